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
from .transport import Unreadable

STATISTICS = ("running_mean", "running_var")
"""How the names of batch-norm's buffers end: where no module says which arrays are trained, all others are."""


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


def digest(unlabeled: Tensor) -> str:
    """SHA-256 of U's shape and float32 bytes: server and clients must mean the same examples."""
    values = unlabeled.detach().float().cpu().contiguous()
    return hashlib.sha256(repr(tuple(values.shape)).encode() + values.numpy().tobytes()).hexdigest()


def as_record(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """Tensors as Flower carries them."""
    return ArrayRecord({name: Array(value.cpu().numpy()) for name, value in tensors.items()})


def to_vector(array: Array, name: str) -> Tensor:
    return to_values(array, name).float()


def to_values(array: Array, name: str) -> Tensor:
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
