"""Choosing the executor by what a run turns out to need."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import ClassVar

from ..core.messages import Model, Task, TrainResult
from .base import Executor, ExecutorContext, Resources, Trainer
from .inline import Inline
from .processes import Processes
from .vectorized import Vectorized

PATIENCE_S = 3.0
"""About what starting workers takes: a run that has trained for as long is likely to train for longer."""

WORTH_S = 0.01
"""Shorter jobs gain little: handing one over takes a millisecond or two of this process."""


class Auto(Executor):
    """Inline at first; processes once training has taken as long as starting them does. The same bits either way.

    On a GPU it is `Vectorized` where the model allows that.

    Args:
        learner: trains in this process.
        create_other: makes the executor to change to; None stays here.
    """

    name: ClassVar[str] = "auto"

    def __init__(self, learner: Trainer, create_other: Callable[[], Executor] | None) -> None:
        self._executor: Executor = Inline(learner)
        self._create_other = create_other
        self._jobs: dict[int, tuple[Task, Model, float]] = {}
        self._trained_s, self._results = 0.0, 0

    @classmethod
    def create(cls, context: ExecutorContext) -> Executor:
        if context.device.startswith("cuda") and context.learner.batching_unsupported_reason is None:
            return Vectorized.create(context)
        if context.shared_factory is None:
            return Inline.create(context)
        return cls(context.learner, lambda: Processes.create(context))

    @classmethod
    def local_workers(cls, resources: Resources) -> int:
        """0 where nothing is gained: on a GPU, with one job at a time or one core, or in a worker itself."""
        useful = resources.device == "cpu" and resources.concurrency > 1 and resources.workers > 1
        return resources.workers if useful and not resources.in_worker else 0

    @property
    def seconds(self) -> Mapping[str, float]:  # type: ignore[override]
        return self._executor.seconds

    def submit(self, task: Task, model: Model, needed_at_s: float) -> None:
        if self._create_other is not None:
            self._jobs[task.id] = (task, model, needed_at_s)
        self._executor.submit(task, model, needed_at_s)

    def result(self, task: int) -> TrainResult:
        if self._create_other is None:
            return self._executor.result(task)
        began = time.perf_counter()
        update = self._executor.result(task)
        del self._jobs[task]
        self._trained_s += time.perf_counter() - began
        self._results += 1
        if self._trained_s >= PATIENCE_S and self._trained_s >= WORTH_S * self._results:
            self._executor.close()
            self._executor = self._create_other()
            for job in self._jobs.values():
                self._executor.submit(*job)
            self._create_other = None
        return update

    def cancel(self, task: int) -> None:
        self._jobs.pop(task, None)
        self._executor.cancel(task)

    def close(self) -> None:
        self._executor.close()
