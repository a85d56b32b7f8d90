"""Executors compute jobs for the transports that do so themselves.

A job's inputs are fixed when it is submitted, so when it is computed is the executor's to choose.
"""

from __future__ import annotations

from typing import Protocol

from ...messages import Model, Task, Update
from .inline import Inline


class Executor(Protocol):
    """Computes jobs."""

    def submit(self, task: Task, model: Model, needed_at_s: float) -> None:
        """Take a job whose result is wanted at `needed_at_s` of the transport's clock, at the earliest."""
        ...

    def result(self, task: int) -> Update:
        """The job's result; once."""
        ...

    def cancel(self, task: int) -> None:
        """The job's result will not be wanted."""
        ...

    def close(self) -> None: ...


EXECUTORS = {"inline": Inline}

__all__ = ["EXECUTORS", "Executor", "Inline"]
