"""Computing many jobs as one batched program."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Protocol

from ..core.errors import ConfigError
from ..core.messages import Model, Task, TrainResult
from .base import Executor, ExecutorContext
from .queue import JobQueue


class ManyTrainer(Protocol):
    """Trains many clients as one batched program."""

    def train_many(self, jobs: Sequence[tuple[Task, Model]]) -> list[TrainResult]: ...


class Vectorized(Executor):
    """Computes many jobs as one batched program, in this process.

    A job whose result is asked for and not ready is computed together with those needed next: `batch` at most, and no
    more than results are still wanted. Which jobs are computed together may change the last bits of each (see
    docs/performance.md), so a resumed run need not end in the same bits.

    Args:
        learner: trains.
        batch: jobs in one program, at most.
        wanted: how many results can still be wanted before the run ends.
    """

    name: ClassVar[str] = "vectorized"
    seconds: Mapping[str, float] = {}

    def __init__(self, learner: ManyTrainer, batch: int, wanted: Callable[[], float] = lambda: math.inf) -> None:
        self._learner, self._batch, self._wanted = learner, batch, wanted
        self._queue = JobQueue()
        self._ready: dict[int, TrainResult] = {}

    @classmethod
    def create(cls, context: ExecutorContext) -> Vectorized:
        reason = context.learner.batching_unsupported_reason
        if reason is not None:
            raise ConfigError(
                f"executor.name is 'vectorized', and model.name {context.model_name!r} {reason}: change the model, or "
                "take another executor"
            )
        return cls(context.learner, context.settings.batch, context.wanted)

    def submit(self, task: Task, model: Model, needed_at_s: float) -> None:
        self._queue.add(task, model, needed_at_s)

    def result(self, task: int) -> TrainResult:
        if task not in self._ready:
            soonest = self._queue.first(self._batch + len(self._ready), self._wanted())
            others = [other for other in soonest if other != task and other not in self._ready]
            jobs = [self._queue.jobs[number][:2] for number in [task, *others[: self._batch - 1]]]
            self._ready |= {update.task: update for update in self._learner.train_many(jobs)}
        self._queue.remove(task)
        return self._ready.pop(task)

    def cancel(self, task: int) -> None:
        if task in self._queue.jobs:
            self._queue.remove(task)
            self._ready.pop(task, None)

    def close(self) -> None:
        self._queue.clear()
        self._ready.clear()
