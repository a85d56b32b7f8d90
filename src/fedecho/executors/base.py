"""What an executor is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ..core.messages import Model, Task, TrainResult


class Executor(Protocol):
    """Computes jobs."""

    @property
    def seconds(self) -> Mapping[str, float]:
        """Work done in other processes, by kind; and under `wait_s` how long this one waited for them."""
        ...

    def submit(self, task: Task, model: Model, needed_at_s: float) -> None:
        """Take a job whose result is wanted at `needed_at_s` of the transport's clock, at the earliest."""
        ...

    def result(self, task: int) -> TrainResult:
        """The job's result; once."""
        ...

    def cancel(self, task: int) -> None:
        """The job's result will not be wanted."""
        ...

    def close(self) -> None: ...
