"""A federation's data: who holds what, what is public, what is kept for judging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor

from ..core.errors import ConfigError
from ..core.imports import object_name
from ..core.keys import Key
from . import natural
from .partition import partition
from .source import Source
from .sources import is_text, load, names
from .unlabeled import carve, unlabeled


@dataclass(frozen=True)
class DataConfig:
    """The `[data]` table.

    Attributes:
        dataset: a name (`fedecho list datasets`), `hf:NAME`, or `module:function` returning a user's own; in Python
            also that function itself, which is kept as its `module:function`.
        tokenizer: of text: what makes tokens of it (`fedecho list tokenizers`, or `hf:NAME`); None: the model's own.
        length: of text: tokens an example.
        features: of text with classes: a frozen encoder ("minilm"). Models then see its features [384], computed once.
        clients: N.
        partition: the split: iid, dirichlet, dirichlet_mix, pathological, quantity, coupled, natural, natural_coupled.
        alpha: the Dirichlet parameter of the split.
        classes_per_client: k of the pathological split.
        min_examples: fewest examples a client may have.
        max_examples: most examples a client keeps; None keeps all.
        slow_classes: classes that the slow clients own, in the coupled split.
        coupling: the share of those classes' examples that slow clients own.
        unlabeled: where U comes from: held_out, mixup, dead_leaves, fractals, noise, generated, `dataset:NAME`,
            `file:PATH`.
        unlabeled_size: |U|.
        held_out: real examples kept from the clients for U to be made of; None: |U| where U is made of them, else 0.
        validation: examples kept from the clients for tuning.
        test_size: the most test examples that judge a model, a random part of them; None: all.
        options: keyword arguments of a user's own function, the table [data.options].
    """

    dataset: str = "digits"
    tokenizer: str | None = None
    length: Annotated[int, Ge(1)] = 64
    features: str | None = None
    clients: Annotated[int, Ge(1)] = 50
    partition: str = "dirichlet_mix"
    alpha: Annotated[float, Gt(0)] = 0.1
    classes_per_client: Annotated[int, Ge(1)] = 2
    min_examples: Annotated[int, Ge(0)] = 1
    max_examples: Annotated[int, Ge(1)] | None = None
    slow_classes: Annotated[int, Ge(0)] = 2
    coupling: Annotated[float, Interval(ge=0, le=1)] = 0.95
    unlabeled: str = "held_out"
    unlabeled_size: Annotated[int, Ge(1)] = 300
    held_out: Annotated[int, Ge(0)] | None = None
    validation: Annotated[int, Ge(0)] = 0
    test_size: Annotated[int, Ge(1)] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if callable(self.dataset):
            object.__setattr__(self, "dataset", object_name(self.dataset, "data.dataset"))

    def unused_settings(self) -> dict[str, str]:
        """Settings without effect, each with the reason."""
        reason = f"data.partition is {self.partition!r}"
        unused = {
            "alpha": self.partition in ("iid", "pathological", *natural.schemes()),
            "classes_per_client": self.partition != "pathological",
            "slow_classes": self.partition != "coupled",
            "coupling": self.partition != "coupled",
        }
        reasons = {name: reason for name, idle in unused.items() if idle}
        if not _is_own_function(self.dataset):
            reasons["options"] = f"data.dataset is {self.dataset!r}, no function of your own"
        return reasons


@dataclass(frozen=True)
class Federation:
    """The data of one run.

    Attributes:
        inputs: [n, *shape] float32, or [n, L] int64 token ids: all clients' examples, client after client.
        labels: [n] int64, or [n, L], see `causal`; float32 [n], [n, T] or [n, L] where targets are numbers or labels
            that may hold or not.
        offsets: [N + 1]: client i holds the examples offsets[i] to offsets[i + 1].
        unlabeled: U, [|U|, *shape], as `inputs`.
        validation: inputs and labels kept from the clients.
        test: inputs and labels of the data set's test part; in a natural split, of the clients' own alone.
        classes: the model's outputs: C classes, labels or target columns; of a language model, the tokens.
        causal: language: labels are [n, L], the next token at each place, and −100 where none is to be predicted.
        pad: the token that fills short texts; None: there is none, or inputs are no tokens.
        test_clients: [m] the client whose each test example is; None but in a natural split.
        tokenizer: what made the tokens; None where inputs are none.
        label_names: what each class label stands for, where a user's labels were renumbered; else empty.
        hours: for each client the hours of the day (UTC) at which it is active; None where the data do not say.
    """

    inputs: Tensor
    labels: Tensor
    offsets: tuple[int, ...]
    unlabeled: Tensor
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    classes: int
    causal: bool = False
    pad: int | None = None
    test_clients: Tensor | None = None
    tokenizer: str | None = None
    hours: tuple[tuple[int, ...], ...] | None = None
    label_names: tuple[str, ...] = ()

    @classmethod
    def public(cls, unlabeled: Tensor, classes: int) -> Federation:
        """What the server of a live federation holds: U [|U|, *shape] alone."""
        nothing = (unlabeled[:0], torch.zeros(0, dtype=torch.int64))
        return cls(*nothing, (0,), unlabeled, nothing, nothing, classes)

    @property
    def clients(self) -> int:
        return len(self.offsets) - 1

    def label_mix(self, members: Sequence[int]) -> Tensor:
        """The label distribution of the data that these clients hold together, [C]; it sums to 1."""
        counts = torch.zeros(self.classes, dtype=torch.float64)
        for i in members:
            counts += torch.bincount(self.labels[self.offsets[i] : self.offsets[i + 1]], minlength=self.classes)
        return counts / counts.sum().clamp(min=1)


def federation(
    config: DataConfig,
    key: Key,
    slow: Sequence[int] = (),
    cache: Path | None = None,
    tokenizer: str | None = None,
) -> Federation:
    """Load, carve and split.

    Args:
        config: which data.
        key: where the randomness comes from.
        slow: the slow clients, for the coupled splits.
        cache: the cache folder; None is `fetch.cache_dir()`.
        tokenizer: that which the model brings; None: it takes any.

    Raises:
        ConfigError: for a split or a size that cannot be, or tokens that the model does not know.
        DataError: for data that cannot be had.
        MissingExtra: for what needs an extra.
    """
    by = _tokenizer(config, tokenizer)
    source = _loaded(config, by, cache)
    made_of_real = config.unlabeled in ("held_out", "mixup")
    held_out = config.held_out if config.held_out is not None else (config.unlabeled_size if made_of_real else 0)
    part, validation, public = carve(source, key.fold("carve"), unlabeled=held_out, validation=config.validation)
    if not source.class_labels and config.partition not in ("iid", "quantity", *natural.schemes()):
        instead = "is running text without any" if source.causal else "has no class label per example"
        natural_too = f", {', '.join(natural.schemes())}" if source.owners is not None else ""
        raise ConfigError(
            f"data.partition {config.partition!r} deals by label, and {config.dataset!r} {instead}; take iid, "
            f"quantity{natural_too}"
        )
    owners, owned = _dealt(config, source, part, slow, key.fold("partition"))
    order = torch.from_numpy(np.concatenate([part[rows] for rows in owned]))
    sizes = np.cumsum([0, *(len(rows) for rows in owned)])
    judging, whose = _judging(source, owners, config.test_size, key.fold("test"))
    return Federation(
        inputs=source.inputs[order],
        labels=source.labels[order],
        offsets=tuple(int(size) for size in sizes),
        unlabeled=unlabeled(config.unlabeled, config.unlabeled_size, source, public, key.fold("unlabeled"), cache),
        validation=(source.inputs[validation], source.labels[validation]),
        test=(source.test_inputs[judging], source.test_labels[judging]),
        classes=source.classes,
        causal=source.causal,
        label_names=source.label_names,
        pad=source.pad,
        test_clients=whose,
        tokenizer=None if source.features is not None else source.tokenizer,
        hours=None if source.hours is None or owners is None else tuple(source.hours[owner] for owner in owners),
    )


def _is_own_function(dataset: str) -> bool:
    return ":" in dataset and not dataset.startswith("hf:")


def _loaded(config: DataConfig, tokenizer: str | None, cache: Path | None) -> Source:
    if config.options and not _is_own_function(config.dataset):
        raise ConfigError(
            f"[data.options] are for a function of your own, and data.dataset is {config.dataset!r}; leave them out"
        )
    source = load(config.dataset, cache, tokenizer, config.length, config.features, config.options)
    if source.owners_are_clients and config.partition not in natural.schemes():
        raise ConfigError(
            f"data.partition is {config.partition!r}, and {config.dataset!r} returns each client's own data; set "
            "data.partition to 'natural', or return one data set"
        )
    return source


def _dealt(
    config: DataConfig, source: Source, part: np.ndarray, slow: Sequence[int], key: Key
) -> tuple[Sequence[int] | None, list[np.ndarray]]:
    """The owner that each client is, None but in a natural split; and each client's positions in `part`."""
    owners: Sequence[int] | None = None
    if config.partition in natural.schemes():
        owners, owned = natural.partition(
            source,
            part,
            config.clients,
            config.partition,
            key,
            min_examples=config.min_examples,
            max_examples=config.max_examples,
            slow=slow,
        )
    else:
        owned = partition(
            source.labels[part].numpy() if source.class_labels else np.zeros(len(part), dtype=np.int64),
            config.clients,
            config.partition,
            key,
            alpha=config.alpha,
            classes_per_client=config.classes_per_client,
            min_examples=config.min_examples,
            slow=slow,
            slow_classes=config.slow_classes,
            coupling=config.coupling,
            max_examples=config.max_examples,
        )
    return owners, owned


def _tokenizer(config: DataConfig, models: str | None) -> str | None:
    """What makes tokens of the texts: the data's and the model's tokenizer are one."""
    own = config.tokenizer
    if not is_text(config.dataset):
        if own is not None or config.features is not None:
            name, value = ("tokenizer", own) if own is not None else ("features", config.features)
            raise ConfigError(f"data.{name} is {value!r}, and {config.dataset!r} is no text; leave it out")
        if models is not None:
            texts = ", ".join(name for name in names() if is_text(name))
            raise ConfigError(
                f"the model takes tokens ({models!r}), and {config.dataset!r} is no text; take another model, "
                f"or one of {texts}"
            )
        return None
    if config.features is not None:
        if models is not None:
            raise ConfigError(
                f"data.features is {config.features!r}, and the model takes tokens ({models!r}); leave the features "
                "out, or take a model of numbers, such as mlp"
            )
        if own not in (None, config.features):
            raise ConfigError(
                f"data.tokenizer is {own!r}, and data.features {config.features!r} brings its own; leave it out"
            )
        return config.features
    if own is not None and models is not None and own != models:
        raise ConfigError(
            f"data.tokenizer is {own!r}, and the model brings {models!r}; leave data.tokenizer out, or "
            "take another model"
        )
    return own if own is not None else models


def _judging(
    source: Source, owners: Sequence[int] | None, most: int | None, key: Key
) -> tuple[Tensor | slice, Tensor | None]:
    """Which test examples judge, and whose they are."""
    rows, whose = np.arange(len(source.test_inputs)), None
    owned = owners is not None and source.test_owners is not None
    if owners is not None and source.test_owners is not None:
        assert source.owners is not None
        client = np.full(1 + max(int(source.owners.max()), int(source.test_owners.max())), -1)
        client[list(owners)] = np.arange(len(owners))
        clients = client[source.test_owners.numpy()]
        rows = np.flatnonzero(clients >= 0)
    if most is not None and len(rows) > most:
        rows = np.sort(key.numpy().choice(rows, most, replace=False))
    if owned:
        whose = torch.from_numpy(clients[rows])
    return (slice(None) if len(rows) == len(source.test_inputs) else torch.from_numpy(rows)), whose
