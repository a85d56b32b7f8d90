"""Executors compute jobs for the transports that do so themselves.

A job's inputs are fixed when it is submitted, so when it is computed, and by whom, is the executor's to choose.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ...messages import Model, Task, Update
from .auto import Auto
from .inline import Inline
from .processes import Processes
from .ray import Ray
from .vectorized import Vectorized


class Executor(Protocol):
    """Computes jobs."""

    @property
    def seconds(self) -> Mapping[str, float]:
        """Work done in other processes, by kind; and under `wait_s` how long this one waited for them."""
        ...

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


EXECUTORS = {"inline": Inline, "processes": Processes, "auto": Auto, "vectorized": Vectorized, "ray": Ray}

__all__ = ["EXECUTORS", "Auto", "Executor", "Inline", "Processes", "Ray", "Vectorized"]
