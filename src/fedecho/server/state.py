"""The server's state: one value that holds all that changes during a run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from ..algorithms.base import State
from ..core.messages import Model, Task
from .norms import NormHistory


@dataclass(slots=True)
class ServerState:
    """All that changes while the server runs; a tree (see `fedecho.core.trees`).

    Attributes:
        clients: N, how many clients there have ever been.
        model: the current model, x_t.
        algorithm: the aggregation rule's own state.
        stages: each stage's own state.
        stage_runs: for each stage, the updates accepted when it last ran after an aggregation.
        average: [d] the average of the server's weights, where there is one.
        buffers_sum: [b] the sum of the buffers that arrived since the last aggregation.
        idle: clients that are present and have no task, in an order that follows from the events alone.
        away: clients that are not present, in the order in which they left; a dict without values, for its order.
        event_s: the time of the last event, on the transport's clock.
        now_s: likewise, or later where the server was still busy when the event came.
        busy_until_s: when the server is done with what it is charged for.
        updates: updates accepted.
        refused: answers refused.
        refusals: how many answers were refused, by the kind of refusal.
        refused_in_a_row: client to its answers refused since the last accepted one; only where there are any.
        since_aggregation: updates accepted since the last aggregation.
        next_task: the number of the next task.
        in_flight: tasks sent and not answered yet, by number.
        versions: models by version: the current one, and those that tasks in flight start from.
        timers: times at which the transport was asked for a `Wake` that has not come yet.
        norms: how long changes usually are.
        started: whether the first tasks were sent.
    """

    clients: int
    model: Model
    algorithm: State
    stages: tuple[State, ...]
    stage_runs: tuple[int, ...]
    average: Tensor | None
    buffers_sum: Tensor
    idle: list[int]
    away: dict[int, None]
    event_s: float = 0.0
    now_s: float = 0.0
    busy_until_s: float = 0.0
    updates: int = 0
    refused: int = 0
    refusals: dict[str, int] = field(default_factory=dict)
    refused_in_a_row: dict[int, int] = field(default_factory=dict)
    since_aggregation: int = 0
    next_task: int = 0
    in_flight: dict[int, Task] = field(default_factory=dict)
    versions: dict[int, Model] = field(default_factory=dict)
    timers: list[float] = field(default_factory=list)
    norms: NormHistory = field(default_factory=NormHistory)
    started: bool = False

    def copy(self) -> ServerState:
        """The same state in containers of its own; the values in them are never changed in place."""
        return replace(
            self,
            idle=list(self.idle),
            away=dict(self.away),
            refusals=dict(self.refusals),
            refused_in_a_row=dict(self.refused_in_a_row),
            in_flight=dict(self.in_flight),
            versions=dict(self.versions),
            timers=list(self.timers),
            norms=self.norms.copy(),
        )
