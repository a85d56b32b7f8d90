"""What executors with workers have in common: the line of jobs, and what a worker answers."""

from __future__ import annotations

import contextlib
import pickle
import signal
import traceback
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..core.messages import Model, Task, TrainResult
from .inline import Trainer

AHEAD = 4
"""Jobs for each worker that are in work or ready ahead of the one awaited."""


TRIES = 3
"""Workers that a job may cost before the run is given up."""


class JobQueue:
    """Jobs in the order in which their results are needed."""

    def __init__(self) -> None:
        self.jobs: dict[int, tuple[Task, Model, float]] = {}
        self._order: list[tuple[float, int]] = []

    def add(self, task: Task, model: Model, needed_at_s: float) -> None:
        self.jobs[task.id] = (task, model, needed_at_s)
        insort(self._order, (needed_at_s, task.id))

    def remove(self, task: int) -> None:
        _, _, needed_at_s = self.jobs.pop(task)
        del self._order[bisect_left(self._order, (needed_at_s, task))]

    def first(self, ahead: int, wanted: float) -> list[int]:
        """The tasks needed soonest, `ahead` at most, and no more than results are still wanted."""
        return [task for _, task in self._order[: int(max(0, min(wanted, ahead)))]]

    def clear(self) -> None:
        self.jobs.clear()
        self._order.clear()


class WorkerTraceback(Exception):
    """Where in the worker a fault came from."""


@dataclass(frozen=True)
class Answer:
    """What a worker answers: an update, or why there is none; and the seconds of its work by kind."""

    update: TrainResult | None
    seconds: Mapping[str, float]
    fault: Exception | None = None
    trace: str = ""

    @classmethod
    def failed(cls, fault: Exception) -> Answer:
        """Of a fault that is being handled."""
        return cls(None, {}, portable(fault), traceback.format_exc())

    def read(self, seconds: dict[str, float]) -> TrainResult:
        """The update, or else its fault is raised; the worker's seconds are added to `seconds`."""
        if self.update is None:
            assert self.fault is not None
            raise self.fault from WorkerTraceback(f"\n{self.trace}")
        for kind, spent_s in self.seconds.items():
            seconds[kind] = seconds.get(kind, 0.0) + spent_s
        return self.update


def answer(trainer: Trainer, task: Task, model: Model) -> Answer:
    """Do a job."""
    seconds = getattr(trainer, "seconds", {})
    before = dict(seconds)
    try:
        update = trainer.train(task, model)
    except Exception as fault:
        return Answer.failed(fault)
    return Answer(update, {kind: s - before[kind] for kind, s in seconds.items()})


def portable(fault: Exception) -> Exception:
    """The fault itself where it can travel between processes."""
    try:
        pickle.loads(pickle.dumps(fault))
        return fault
    except Exception:
        return RuntimeError(f"{type(fault).__name__}: {fault}")


@contextlib.contextmanager
def ignoring_interrupts() -> Iterator[None]:
    """What is started within never hears Ctrl-C, which reaches every process of a terminal: the server decides."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
