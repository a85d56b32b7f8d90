"""Between Flower's records and the server's flat vectors."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from ..errors import ConfigError
from ..learning.learner import Learner
from ..messages import Model, Task, Update
from ..refine.base import LOGITS, Form
from ..transports.flower import Unreadable

ASKED = "fedecho"
"""The config record in which the server asks more of a client than its training; only our client mod reads it."""
EXTRA = "fedecho.extra"
"""The array record with what a client rule is sent, and reports."""
PREDICTIONS = "fedecho.predictions"
"""The array record with a client's logits on U."""
STATISTICS = ("running_mean", "running_var")
"""How the names of batch-norm's buffers end: where no module says which arrays are trained, all others are."""
PATIENCE = 3
"""Answers without what a rule needs, before the first with it, after which the run is given up."""


@dataclass(frozen=True)
class Keys:
    """What Flower apps call their records.

    Attributes:
        arrays: the array record.
        config: the config record.
        examples: the metric that counts a client's examples.
    """

    arrays: str = "arrays"
    config: str = "config"
    examples: str = "num-examples"


class Arrays:
    """The arrays of a federation, by name, and where each goes: into the weights, into the buffers, or nowhere.

    Args:
        initial: the initial arrays; their names, shapes and types are those of every message.
        learner: holds the server's module, whose layout is then the flat vectors'. The arrays are its state_dict's, by
            name or, where they are named otherwise (as NumPy lists are), in its order.

    Raises:
        ConfigError: when the arrays do not fit the module, or none is a float.
    """

    def __init__(self, initial: ArrayRecord, learner: Learner | None = None) -> None:
        self._given = {name: tensor_of(array) for name, array in initial.items()}
        self._types = {name: array.dtype for name, array in initial.items()}
        self._learner = learner
        self._names: dict[str, str] = {}
        if learner is None:
            floats = [name for name, value in self._given.items() if value.is_floating_point()]
            self._buffers = [name for name in floats if name.endswith(STATISTICS)]
            self.weights = [name for name in floats if name not in self._buffers]
            if not self.weights:
                raise ConfigError("initial_arrays hold no float array: there is nothing to train")
            self._initial = self._vectors(self._given)
            return
        state = learner.state_dict(learner.initial())
        theirs = list(self._given) if set(self._given) == set(state) else None
        ours = list(state) if theirs is None else theirs
        if len(ours) != len(self._given) or any(
            state[own].shape != value.shape for own, value in zip(ours, self._given.values(), strict=True)
        ):
            raise ConfigError(
                f"initial_arrays ({len(self._given)}: {_some(self._given)}) are not the state_dict of the model "
                f"({len(state)}: {_some(state)}); give the strategy the model that the clients train"
            )
        self._names = dict(zip(self._given, ours, strict=True))
        back = {own: name for name, own in self._names.items()}
        self.weights = [back[name] for name, p in learner.module.named_parameters() if p.requires_grad]
        self._initial = self._vectors(self._given)

    @property
    def initial(self) -> Model:
        """Version 0."""
        return Model(0, *self._initial)

    def _vectors(self, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Weights [d] and buffers [b]."""
        if self._learner is not None:
            return self._learner.read({self._names[name]: value for name, value in values.items()})
        return flat([values[name] for name in self.weights]), flat([values[name] for name in self._buffers])

    def tensors(self, model: Model) -> dict[str, Tensor]:
        """The model's arrays by their names, in the types they were given in."""
        values = dict(self._given)
        if self._learner is not None:
            state = self._learner.state_dict(model)
            values |= {name: state[own] for name, own in self._names.items() if state[own].is_floating_point()}
        else:
            for names, vector in ((self.weights, model.weights), (self._buffers, model.buffers)):
                parts = torch.split(vector, [values[name].numel() for name in names])
                values |= {name: part.view(values[name].shape) for name, part in zip(names, parts, strict=True)}
        return {name: value.to(self._given[name].dtype) for name, value in values.items()}

    def record(self, model: Model) -> ArrayRecord:
        """The model as Flower carries it."""
        return as_record(self.tensors(model))

    def read(self, record: ArrayRecord) -> tuple[Tensor, Tensor]:
        """Weights [d] and buffers [b] of a client's arrays; matched by name, or in order where all are named otherwise.

        Raises:
            Unreadable: when they are not the federation's.
        """
        by_name = set(record) == set(self._given)
        if not by_name and (len(record) != len(self._given) or set(record) & set(self._given)):
            raise Unreadable(f"its {len(record)} arrays ({_some(record)}) are not the model's ({_some(self._given)})")
        pairs = [(n, record[n]) for n in self._given] if by_name else zip(self._given, record.values(), strict=True)
        values = {}
        for name, array in pairs:
            want = self._given[name]
            try:
                value = tensor_of(array)
            except Exception as fault:  # bytes that are no array
                raise Unreadable(f"array {name!r} cannot be read: {fault}") from None
            if value.shape != want.shape or value.is_floating_point() != want.is_floating_point():
                got, wanted = f"{array.dtype}{list(value.shape)}", f"{self._types[name]}{list(want.shape)}"
                raise Unreadable(f"array {name!r} is {got}, not {wanted}")
            values[name] = value
        return self._vectors(values)


class Post:
    """Writes train messages and reads their answers (a `Mail` of the transport).

    Args:
        arrays: the federation's.
        keys: what the app calls its records.
        train_config: goes with every task.
        rule: what the algorithm's client rule is made of again, {name, **settings}; None without a client rule.
        reports: the vectors that the rule needs back.
        unlabeled: U, where the clients are to predict on it.
    """

    def __init__(
        self,
        arrays: Arrays,
        keys: Keys,
        train_config: ConfigRecord,
        rule: Mapping[str, object] | None = None,
        reports: Sequence[str] = (),
        unlabeled: Tensor | None = None,
    ) -> None:
        self.arrays, self.keys, self._config = arrays, keys, dict(train_config)
        self._rule, self._reports = rule, tuple(reports)
        self._digest = None if unlabeled is None else digest(unlabeled)
        self._last: tuple[int, ArrayRecord] = (-1, ArrayRecord())
        self._without, self._served = 0, False

    def record(self, model: Model) -> ArrayRecord:
        """The model's arrays; the last one's are remembered."""
        if self._last[0] != model.version:
            self._last = (model.version, self.arrays.record(model))
        return self._last[1]

    def config(self, given: Mapping[str, object], number: int) -> ConfigRecord:
        return ConfigRecord({**given, "server-round": number})  # type: ignore[dict-item]

    def write(self, task: Task, model: Model) -> RecordDict:
        """A message as Flower's FedAvg writes it: the model, and the config with the `server-round`, which is one more
        than the version that the task starts from. What else is asked is in records of our own."""
        content = RecordDict(
            {self.keys.arrays: self.record(model), self.keys.config: self.config(self._config, task.version + 1)}
        )
        asked: dict[str, Any] = {}
        if self._rule is not None:
            asked = {"rule": json.dumps(self._rule), "weights": json.dumps(self.arrays.weights)}
            numbers = {name: float(value) for name, value in task.extra.items() if not isinstance(value, Tensor)}
            asked["numbers"] = json.dumps(numbers)
            vectors = {name: value for name, value in task.extra.items() if isinstance(value, Tensor)}
            if vectors:
                content[EXTRA] = as_record(vectors)
        if self._digest is not None:
            asked["predict"] = self._digest
            if (form := Form.asked(task.extra)) != LOGITS:
                asked["form"] = json.dumps(form.asking())
        if asked:
            content[ASKED] = ConfigRecord(asked)
        return content

    def read(self, task: int, content: RecordDict) -> Update:
        """A client's answer.

        Raises:
            Unreadable: when it is not what it should be.
            ConfigError: when no client sends what the rule needs.
        """
        own = (EXTRA, PREDICTIONS)
        records = {name: record for name, record in content.array_records.items() if name not in own}
        record = records.get(self.keys.arrays) or (next(iter(records.values())) if len(records) == 1 else None)
        if record is None:
            raise Unreadable(f"it holds {len(records)} array records and none is called {self.keys.arrays!r}")
        weights, buffers = self.arrays.read(record)
        metrics = metrics_of(content)
        examples = metrics.pop(self.keys.examples, math.nan)
        if not 1 <= examples < math.inf:
            raise Unreadable(f"its metrics do not say how many examples it has ({self.keys.examples!r})")
        if "train_loss" in metrics:
            metrics.setdefault("loss", metrics["train_loss"])
        extra = {name: _vector(array, name) for name, array in content.array_records.get(EXTRA, {}).items()}
        if missing := [name for name in self._reports if name not in extra]:
            self._without += 1
            told = (
                f"it does not report {', '.join(missing)}: the rule needs fedecho's client mod, "
                "ClientApp(mods=[fedecho.flower.client_mod()])"
            )
            if self._without == PATIENCE and not self._served:
                raise ConfigError(f"no client of the first {PATIENCE} can serve the rule: {told}")
            raise Unreadable(told)
        self._served = True
        predictions = None
        if PREDICTIONS in content.array_records:
            (array,) = content.array_records[PREDICTIONS].values()
            predictions = _values(array, "predictions")
        return Update(task, weights, buffers, int(examples), metrics, predictions, extra)


def digest(unlabeled: Tensor) -> str:
    """SHA-256 of U's shape and float32 bytes: server and clients must mean the same examples."""
    values = unlabeled.detach().float().cpu().contiguous()
    return hashlib.sha256(repr(tuple(values.shape)).encode() + values.numpy().tobytes()).hexdigest()


def metrics_of(content: RecordDict) -> dict[str, float]:
    """The numbers in an answer's metric records, without those that are not finite."""
    records: list[MetricRecord] = list(content.metric_records.values())
    numbers = {name: value for record in records for name, value in record.items() if isinstance(value, int | float)}
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def as_record(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """Tensors as Flower carries them."""
    return ArrayRecord({name: Array(value.cpu().numpy()) for name, value in tensors.items()})


def _vector(array: Array, name: str) -> Tensor:
    return _values(array, name).float()


def _values(array: Array, name: str) -> Tensor:
    try:
        return tensor_of(array)
    except Exception as fault:
        raise Unreadable(f"{name!r} cannot be read: {fault}") from None


def tensor_of(array: Array) -> Tensor:
    """What an array holds."""
    return torch.from_numpy(np.array(array.numpy()))  # a copy: what came off the wire may be read-only


def flat(values: Iterable[Tensor]) -> Tensor:
    """All values in one float32 vector."""
    return torch.cat([torch.zeros(0), *(value.reshape(-1).float() for value in values)])


def _some(names: Mapping[str, object]) -> str:
    first = list(names)[:3]
    return ", ".join(first) + (", …" if len(names) > 3 else "")
