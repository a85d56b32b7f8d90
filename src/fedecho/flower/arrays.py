"""Between Flower's arrays and flat vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from torch import Tensor

from ..core.errors import ConfigError
from ..core.messages import Model
from ..learning.learner import Learner
from .wire import Unreadable, decode, printable

STATISTICS = ("running_mean", "running_var")
"""How the names of batch-norm's buffers end: where no module says which arrays are trained, all others are."""
LARGEST_STATISTIC = 1e6
"""A client's batch-norm statistic may be this many times the largest initial one of the same buffer (or 1) at most."""


@dataclass(frozen=True)
class Keys:
    """What Flower apps call their records.

    Attributes:
        arrays: the array record.
        config: the config record.
        examples: the metric that counts a client's examples.
        evaluated_arrays: the array record of an evaluation message.
        evaluated_config: its config record.
    """

    arrays: str = "arrays"
    config: str = "config"
    examples: str = "num-examples"
    evaluated_arrays: str = "arrays"
    evaluated_config: str = "config"


LEGACY_KEYS = Keys("fitins.parameters", "fitins.config", "num_examples", "evaluateins.parameters", "evaluateins.config")
"""What an app with a `client_fn` (a `Client` or `NumPyClient`) calls them."""


def both_ways(arrays: str, config: str, examples: str) -> Keys:
    """Keys of an app that calls its records the same in both directions."""
    return Keys(arrays, config, examples, arrays, config)


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
        ours = list(self._given) if set(self._given) == set(state) else list(state)
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
            raise Unreadable(self._mismatch(record))
        pairs = [(n, record[n]) for n in self._given] if by_name else zip(self._given, record.values(), strict=True)
        values = {}
        for name, array in pairs:
            expected = self._given[name]
            value = decode(array, name, tuple(expected.shape), expected.is_floating_point())
            if name.endswith(STATISTICS) or self._names.get(name, "").endswith(STATISTICS):
                _check_statistic(name, value, expected)
            values[name] = value
        return self._vectors(values)

    def _mismatch(self, record: ArrayRecord) -> str:
        """How a client's arrays differ from the model's, by name."""
        surplus = [name for name in record if name not in self._given]
        missing = [name for name in self._given if name not in record]
        parts = [f"{len(surplus)} that it lacks ({_some(surplus)})"] if surplus else []
        parts += [f"without {len(missing)} that it has ({_some(missing)})"] if missing else []
        return f"its {len(record)} arrays are not the model's {len(self._given)}: {', '.join(parts)}"


def _check_statistic(name: str, value: Tensor, initial: Tensor) -> None:
    """Raises Unreadable for a batch-norm statistic that no data can have."""
    if not value.numel():
        return
    largest = LARGEST_STATISTIC * max(1.0, float(initial.abs().max()))
    if not bool(torch.isfinite(value).all()) or float(value.abs().max()) > largest:
        raise Unreadable(f"array {name!r} holds statistics of batch norm that are not finite or above {largest:.3g}")
    if name.endswith("running_var") and float(value.min()) < 0:
        raise Unreadable(f"array {name!r} holds a negative variance")


def digest(unlabeled: Tensor) -> str:
    """SHA-256 of U's shape and float32 bytes: server and clients must mean the same examples."""
    values = unlabeled.detach().float().cpu().contiguous()
    return hashlib.sha256(repr(tuple(values.shape)).encode() + values.numpy().tobytes()).hexdigest()


def as_record(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """Tensors as Flower carries them."""
    return ArrayRecord({name: Array(value.cpu().numpy()) for name, value in tensors.items()})


def tensor_of(array: Array) -> Tensor:
    """What an array holds."""
    return torch.from_numpy(np.array(array.numpy()))  # a copy: what came off the wire may be read-only


def flat(values: Iterable[Tensor]) -> Tensor:
    """All values in one float32 vector."""
    return torch.cat([torch.zeros(0), *(value.reshape(-1).float() for value in values)])


def _some(names: Iterable[str]) -> str:
    names = list(names)
    first = [printable(name, 40) for name in names[:3]]
    return ", ".join(first) + (", …" if len(names) > 3 else "")
