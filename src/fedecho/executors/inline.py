"""Computing in this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ..core.messages import Model, Task, TrainResult
from .base import Executor, ExecutorContext, Trainer


class Inline(Executor):
    """Computes a job in this process, at the moment its result is asked for: never one whose result is not wanted."""

    name: ClassVar[str] = "inline"
    seconds: Mapping[str, float] = {}

    def __init__(self, learner: Trainer) -> None:
        self._learner = learner
        self._jobs: dict[int, tuple[Task, Model]] = {}

    @classmethod
    def create(cls, context: ExecutorContext) -> Inline:
        return cls(context.learner)

    def submit(self, task: Task, model: Model, needed_at_s: float) -> None:
        self._jobs[task.id] = (task, model)

    def result(self, task: int) -> TrainResult:
        return self._learner.train(*self._jobs.pop(task))

    def cancel(self, task: int) -> None:
        self._jobs.pop(task, None)

    def close(self) -> None:
        self._jobs.clear()
