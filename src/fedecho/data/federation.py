"""A federation's data: who holds what, what is public, what is kept for judging."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..rng import Key
from . import sources
from .partition import partition
from .unlabeled import carve, unlabeled


@dataclass(frozen=True)
class DataConfig:
    """The `[data]` table.

    Attributes:
        dataset: a name (`fedecho list datasets`), `hf:NAME`, or `module:function` returning a user's own.
        clients: N.
        partition: the split: iid, dirichlet, dirichlet_mix, pathological, quantity, coupled.
        alpha: the Dirichlet parameter of the split.
        classes_per_client: k of the pathological split.
        min_examples: fewest examples a client may have.
        max_examples: most examples a client keeps; None keeps all.
        slow_classes: classes that the slow clients own, in the coupled split.
        coupling: the share of those classes' examples that slow clients own.
        unlabeled: where U comes from: held_out, mixup, dead_leaves, fractals, noise, `dataset:NAME`, `file:PATH`.
        unlabeled_size: |U|.
        held_out: real examples kept from the clients for U to be made of; None: |U| where U is made of them, else 0.
        validation: examples kept from the clients for tuning.
    """

    dataset: str = "digits"
    clients: int = 50
    partition: str = "dirichlet_mix"
    alpha: float = 0.1
    classes_per_client: int = 2
    min_examples: int = 1
    max_examples: int | None = None
    slow_classes: int = 2
    coupling: float = 0.95
    unlabeled: str = "held_out"
    unlabeled_size: int = 300
    held_out: int | None = None
    validation: int = 0


@dataclass(frozen=True)
class Federation:
    """The data of one run.

    Attributes:
        inputs: [n, *shape] float32, all clients' examples, client after client.
        labels: [n] int64.
        offsets: [N + 1]: client i holds the examples offsets[i] to offsets[i + 1].
        unlabeled: U, [|U|, *shape] float32.
        validation: inputs and labels kept from the clients.
        test: inputs and labels of the data set's test part.
        classes: C.
        causal: language: labels are [n, L], the next token at each place, and −100 where none is to be predicted.
        pad: the token that fills short texts; None: there is none, or inputs are no tokens.
        test_clients: [m] the client whose each test example is, −1: nobody's; None where the data set does not say.
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


def federation(config: DataConfig, key: Key, slow: Sequence[int] = (), cache: Path | None = None) -> Federation:
    """Load, carve and split. `slow` names the slow clients, for the coupled split.

    Raises:
        ConfigError: for a split or a size that cannot be.
        DataError: for data that cannot be had.
    """
    source = sources.load(config.dataset, cache)
    made_of_real = config.unlabeled in ("held_out", "mixup")
    held_out = config.held_out if config.held_out is not None else (config.unlabeled_size if made_of_real else 0)
    part, validation, public = carve(source, key.fold("carve"), unlabeled=held_out, validation=config.validation)
    owned = partition(
        source.labels[part].numpy(),
        config.clients,
        config.partition,
        key.fold("partition"),
        alpha=config.alpha,
        classes_per_client=config.classes_per_client,
        min_examples=config.min_examples,
        slow=slow,
        slow_classes=config.slow_classes,
        coupling=config.coupling,
        max_examples=config.max_examples,
    )
    order = torch.from_numpy(np.concatenate([part[rows] for rows in owned]))
    sizes = np.cumsum([0, *(len(rows) for rows in owned)])
    return Federation(
        inputs=source.inputs[order],
        labels=source.labels[order],
        offsets=tuple(int(size) for size in sizes),
        unlabeled=unlabeled(config.unlabeled, config.unlabeled_size, source, public, key.fold("unlabeled"), cache),
        validation=(source.inputs[validation], source.labels[validation]),
        test=(source.test_inputs, source.test_labels),
        classes=source.classes,
    )
