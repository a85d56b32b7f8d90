"""What an aggregation rule is: hyperparameters on a frozen dataclass, its evolving state passed in and returned.

The server calls `init` once; `select` whenever somebody could be given work; `receive` for every accepted update;
`ready` after each event; and, when that says so, `aggregate`. A rule never sees a clock, a file, a network or a module.

A whole rule, the average of whatever two clients send:

>>> from dataclasses import dataclass, replace
>>> @dataclass(frozen=True)
... class Pairs(Algorithm):
...     name = "pairs"
...     def init(self, weights, clients):
...         return Buffer(torch.zeros_like(weights))
...     def receive(self, state, update):
...         return replace(state, total=state.total + update.delta, count=state.count + 1)
...     def ready(self, state, view):
...         return state.count == 2
...     def aggregate(self, state, weights, scale):
...         return weights + scale * state.total / 2, self.init(weights, 0)
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

import torch
from torch import Tensor

from ..core.keys import Key
from ..core.messages import Extra, View

State: TypeAlias = Any
"""An algorithm's own state: a tree of tensors, numbers, containers and dataclasses (see `fedecho.core.trees`)."""


@dataclass(frozen=True, slots=True)
class ClientUpdate:
    """An accepted update, as a rule sees it.

    Attributes:
        client: who sent it.
        staleness: τ, versions made since the one the client started from.
        delta: Δ_i = x_i − x_{t−τ}, [d]: always against the version the client started from.
        weights: x_i, [d], the client's model.
        start: x_{t−τ}, [d], the version it started from.
        current: x_t, [d], the server's model now.
        buffers: [b], the client's buffers.
        num_examples: n_i.
        version: t, the server's version now.
        issued_at_s: when the task was sent.
        extra: what the client rule reported.
    """

    client: int
    staleness: int
    delta: Tensor
    weights: Tensor
    start: Tensor
    current: Tensor
    buffers: Tensor
    num_examples: int
    version: int
    issued_at_s: float = 0.0
    extra: Extra = field(default_factory=dict)

    @property
    def alignment(self) -> float:
        """cos(x_t − x_{t−τ}, Δ_i) in [−1, 1]: does the change go where the model went meanwhile? 1 where the model has
        not moved, 0 for a change of length 0."""
        model_change = self.current - self.start
        if not bool(model_change.any()):
            return 1.0
        return float(torch.cosine_similarity(model_change, self.delta, dim=0))


class ClientRule(Protocol):
    """What a client does differently from plain local SGD. The learner applies it."""

    def direct(self, gradient: Tensor, weights: Tensor, start: Tensor, extra: Extra) -> None:
        """Turn the gradient at `weights` into the step's direction, in place ([d] each). `extra` came with the task."""
        ...

    def report(self, start: Tensor, weights: Tensor, steps: int, lr: float, extra: Extra) -> Extra:
        """What goes back to the server beside the model."""
        ...


DEFAULT_BUFFER_SIZE = 5
"""M, updates per aggregation, of the server and of every rule that is not given its own."""

DEFAULT_CONCURRENCY = 25
"""M_c, jobs in flight, of the server and of every rule that is not given its own."""


@dataclass(frozen=True)
class RunShape:
    """What a rule may know of the run that it is used in.

    Attributes:
        clients: N.
        concurrency: M_c, jobs in flight.
        buffer_size: M of the server, for rules that are not given their own.
        refill: when freed slots get new work, see `fedecho.server.settings.ServerConfig`.
        live: a live federation, whose clients come and go: N is no bound there.
    """

    clients: int
    concurrency: int
    buffer_size: int
    refill: Literal["immediate", "batch"] = "immediate"
    live: bool = False


class Algorithm(abc.ABC):
    """The interface of an aggregation rule: implement it in a leaf, tweak a rule by wrapping it."""

    name: ClassVar[str]
    """The name it is found by."""
    citation: ClassVar[str] = ""
    """BibTeX."""
    grid: ClassVar[dict[str, tuple[float, ...]]] = {}
    """The rule's own server step: one setting and four values to tune it over, around where its authors put it."""
    client_rule: ClientRule | None = None
    """What clients do differently, if anything."""
    reports: ClassVar[tuple[str, ...]] = ()
    """The [d]-vectors that the client rule reports, by name: an update without them is refused."""

    @abc.abstractmethod
    def init(self, weights: Tensor, clients: int) -> State:
        """The state before the first update; `weights` [d] is the initial model, `clients` is N."""

    @abc.abstractmethod
    def receive(self, state: State, update: ClientUpdate) -> State:
        """Take an accepted update."""

    @abc.abstractmethod
    def ready(self, state: State, view: View) -> bool:
        """Is it time to aggregate?"""

    @abc.abstractmethod
    def aggregate(self, state: State, weights: Tensor, scale: float) -> tuple[Tensor, State]:
        """The next model from the current one, x_t [d]; `scale` is the server step schedule's factor."""

    def for_run(self, shape: RunShape) -> Algorithm:
        """The rule with those settings filled in that are None because the run decides them."""
        return self

    def check(self, shape: RunShape) -> list[str]:
        """What does not go together in the rule's own settings or with the run, a line each with full names and a
        remedy. Called on the result of `for_run`, when each setting is within its bounds."""
        return []

    def unused_settings(self) -> dict[str, str]:
        """Settings without effect as the others are, each with the reason: {"b": "staleness is 'polynomial'"}."""
        return {}

    @property
    def updates_per_step(self) -> int:
        """How many updates are summed before a step of the model; 1 for rules that step at each arrival."""
        return 1

    def select(self, state: State, view: View, key: Key) -> Sequence[int]:
        """Who works next, of `view.idle`. By default as many as there are slots, uniformly at random."""
        return sample(view.idle, view.slots, key)

    def task_extra(self, state: State, client: int) -> Extra:
        """What a task for this client carries beside the model."""
        return {}

    def is_stale(self, staleness: int) -> bool:
        """Refuse an update for its lateness alone?"""
        return False

    def deadline_s(self, state: State, view: View) -> float | None:
        """A time of the clock, in seconds, at which `ready` is called although nothing arrived."""
        return None

    def cancelled(self, state: State, view: View) -> Iterable[int]:
        """Tasks in flight, by id, that are not awaited any more after an aggregation."""
        return ()

    def add_clients(self, state: State, clients: int) -> State:
        """The state after a client joined that was never there before; `clients` is N now."""
        return state

    @property
    def plain_sum(self) -> bool:
        """Whether all that the rule does with changes follows from their plain sum since the last aggregation (and from
        who sent them when)."""
        return False

    def memory(self, clients: int) -> int:
        """How many [d]-vectors the state holds at most with N clients."""
        return 4

    def mix_buffers(self, state: State, current: Tensor, arrived: Tensor) -> Tensor:
        """The next model's buffers [b], from the current ones and the mean of those that arrived since. `state` is the
        state before the aggregation."""
        return arrived


class Buffered(Algorithm):
    """The interface of a rule that aggregates after M updates: it has the setting `buffer_size`, its state `count`."""

    buffer_size: int | None

    @property
    def M(self) -> int:
        """The updates per aggregation."""
        return DEFAULT_BUFFER_SIZE if self.buffer_size is None else self.buffer_size

    @property
    def updates_per_step(self) -> int:
        return self.M

    def ready(self, state: State, view: View) -> bool:
        return bool(state.count >= self.M)

    def for_run(self, shape: RunShape) -> Algorithm:
        return self if self.buffer_size is not None else replace(self, buffer_size=shape.buffer_size)  # type: ignore[type-var]

    def check(self, shape: RunShape) -> list[str]:
        if shape.refill == "immediate" or shape.concurrency >= self.M:
            return []
        return [
            f"algorithm.buffer_size ({self.M}) exceeds server.concurrency ({shape.concurrency}) with batch refill: no "
            "aggregation could ever happen; lower one or raise the other"
        ]


@dataclass(frozen=True, slots=True)
class Buffer:
    """The state of a rule that sums changes until there are enough."""

    total: Tensor
    count: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """The state of a rule that steps at every arrival: what is to be added to the model, if anything."""

    move: Tensor | None = None


def sample(pool: Sequence[int], k: int, key: Key) -> list[int]:
    """`k` of `pool` (all of it when it holds fewer), uniformly at random without replacement, in O(k)."""
    n = len(pool)
    swapped: dict[int, int] = {}  # a Fisher-Yates shuffle that touches only the first k places
    chosen = []
    for i in range(min(k, n)):
        j = i + key.below(n - i, i)
        chosen.append(pool[swapped.get(j, j)])
        swapped[j] = swapped.get(i, i)
    return chosen


def zeros(weights: Tensor) -> Tensor:
    """A vector of zeros, [d], for a state to begin with."""
    return torch.zeros_like(weights)
