"""The server's state: one value that holds all that changes during a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ..algorithms.base import State
from ..core.messages import Model, Task


@dataclass(slots=True)
class ServerState:
    """All that changes while the server runs; a tree (see `fedecho.core.trees`)."""

    clients: int
    model: Model
    algorithm: State
    stages: tuple[State, ...]
    stage_runs: tuple[int, ...]
    average: Tensor | None
    buffers_sum: Tensor
    idle: list[int]
    away: list[int]
    event_s: float = 0.0
    now_s: float = 0.0
    busy_until_s: float = 0.0
    updates: int = 0
    refused: int = 0
    since_aggregation: int = 0
    next_task: int = 0
    in_flight: dict[int, Task] = field(default_factory=dict)
    versions: dict[int, Model] = field(default_factory=dict)
    timers: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    started: bool = False
