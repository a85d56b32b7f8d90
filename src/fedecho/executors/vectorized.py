from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Protocol

from ..core.messages import Model, Task, TrainResult
from .queue import JobQueue


class ManyTrainer(Protocol):
    def train_many(self, jobs: Sequence[tuple[Task, Model]]) -> list[TrainResult]: ...


class Vectorized:
    """Computes many jobs as one batched program, in this process.

    When a result is asked for that is not there, it is computed together with those needed next: `batch` at most, and
    no more than results are still wanted. Which jobs go together may change the last bits of each (see
    docs/performance.md), so a resumed run need not end in the same ones.

    Args:
        learner: trains.
        batch: jobs in one program, at most.
        wanted: how many results can still be wanted before the run ends.
    """

    seconds: ClassVar[Mapping[str, float]] = {}

    def __init__(self, learner: ManyTrainer, batch: int, wanted: Callable[[], float] = lambda: math.inf) -> None:
        self._learner, self._batch, self._wanted = learner, batch, wanted
        self._line = JobQueue()
        self._ready: dict[int, TrainResult] = {}

    def submit(self, task: Task, model: Model, needed_at_s: float) -> None:
        self._line.add(task, model, needed_at_s)

    def result(self, task: int) -> TrainResult:
        if task not in self._ready:
            near = self._line.first(self._batch + len(self._ready), self._wanted())
            others = [other for other in near if other != task and other not in self._ready]
            jobs = [self._line.jobs[it][:2] for it in [task, *others[: self._batch - 1]]]
            self._ready |= {update.task: update for update in self._learner.train_many(jobs)}
        self._line.remove(task)
        return self._ready.pop(task)

    def cancel(self, task: int) -> None:
        if task in self._line.jobs:
            self._line.remove(task)
            self._ready.pop(task, None)

    def close(self) -> None:
        self._line.clear()
        self._ready.clear()
