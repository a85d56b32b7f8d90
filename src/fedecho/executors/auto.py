from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..core.messages import Model, Task, TrainResult
from .inline import Inline, Trainer

if TYPE_CHECKING:
    from .base import Executor


PATIENCE_S = 3.0
"""About what starting workers takes: whoever has trained for as long is likely to train for longer."""


WORTH_S = 0.01
"""Shorter jobs gain little: handing one over takes a millisecond or two of this process."""


class Auto:
    """Inline at first; processes once training has taken as long as starting them does. The same bits either way.

    Args:
        learner: trains here.
        elsewhere: makes the executor to change to; None stays here.
    """

    def __init__(self, learner: Trainer, worker_seconds: Callable[[], Executor] | None) -> None:
        self._executor: Executor = Inline(learner)
        self._elsewhere = worker_seconds
        self._jobs: dict[int, tuple[Task, Model, float]] = {}
        self._spent_s, self._done = 0.0, 0

    @property
    def seconds(self) -> Mapping[str, float]:
        return self._executor.seconds

    def submit(self, task: Task, model: Model, needed_at_s: float) -> None:
        if self._elsewhere is not None:
            self._jobs[task.id] = (task, model, needed_at_s)
        self._executor.submit(task, model, needed_at_s)

    def result(self, task: int) -> TrainResult:
        if self._elsewhere is None:
            return self._executor.result(task)
        began = time.perf_counter()
        update = self._executor.result(task)
        del self._jobs[task]
        self._spent_s, self._done = self._spent_s + time.perf_counter() - began, self._done + 1
        if self._spent_s >= PATIENCE_S and self._spent_s >= WORTH_S * self._done:
            self._executor.close()
            self._executor = self._elsewhere()
            for job in self._jobs.values():
                self._executor.submit(*job)
            self._elsewhere = None
        return update

    def cancel(self, task: int) -> None:
        self._jobs.pop(task, None)
        self._executor.cancel(task)

    def close(self) -> None:
        self._executor.close()
