"""What executors with workers share: the queue of jobs, what a worker answers, and when dying workers end a run."""

from __future__ import annotations

import contextlib
import pickle
import signal
import traceback
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..core.errors import WorkerLost
from ..core.messages import Model, Task, TrainResult
from .base import Trainer

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
        """The tasks needed soonest: `ahead` at most, and no more than results are still wanted."""
        return [task for _, task in self._order[: int(max(0, min(wanted, ahead)))]]

    def clear(self) -> None:
        self.jobs.clear()
        self._order.clear()


class WorkerTraceback(Exception):
    """Where in the worker a fault came from."""


@dataclass(frozen=True)
class Answer:
    """What a worker answers: an update, or the fault in its place; and the seconds of its work by kind."""

    update: TrainResult | None
    seconds: Mapping[str, float]
    fault: Exception | None = None
    trace: str = ""

    @classmethod
    def failed(cls, fault: Exception) -> Answer:
        """For a fault that is being handled."""
        return cls(None, {}, portable(fault), traceback.format_exc())

    def read(self, seconds: dict[str, float]) -> TrainResult:
        """The update; its fault is raised if there is none. The worker's seconds are added to `seconds`."""
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
    return Answer(update, {kind: spent_s - before[kind] for kind, spent_s in seconds.items()})


def portable(fault: Exception) -> Exception:
    """The fault itself where it can be pickled, else a RuntimeError that quotes it."""
    try:
        pickle.loads(pickle.dumps(fault))
        return fault
    except Exception:
        return RuntimeError(f"{type(fault).__name__}: {fault}")


class WorkerDeaths:
    """Counts the workers that died on each job; None stands for workers without a job.

    Args:
        workers: what the workers are called, in the plural.
    """

    def __init__(self, workers: str) -> None:
        self._workers = workers
        self._counts: Counter[int | None] = Counter()

    def clear(self) -> None:
        """A result arrived: count anew."""
        self._counts.clear()

    def count(self, tasks: Iterable[int], cause: str, workers: int) -> None:
        """A worker died while it had these tasks.

        Raises:
            WorkerLost: when it was the last that one of them may cost.
        """
        charged: list[int | None] = [*tasks] or [None]
        for task in charged:
            self._counts[task] += 1
            if self._counts[task] >= TRIES:
                about = f"on task {task}" if task is not None else "while they had nothing to do"
                raise WorkerLost(
                    f"{TRIES} {self._workers} died {about}, the last one: {cause}; where memory is short lower "
                    f"executor.workers ({workers}) or client.batch_size; the records are whole, resume the run"
                )


@contextlib.contextmanager
def ignoring_interrupts() -> Iterator[None]:
    """Processes started within never receive Ctrl-C, which reaches every process of a terminal: the server decides."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
