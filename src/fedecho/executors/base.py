"""What an executor is, and what it can be built from."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from ..core.messages import Model, Task, TrainResult


class Trainer(Protocol):
    """Does a client's work: turns a task and a model into an update."""

    def train(self, task: Task, model: Model) -> TrainResult: ...


class BatchTrainer(Trainer, Protocol):
    """A trainer that can also train many clients as one batched program."""

    @property
    def batching_unsupported_reason(self) -> str | None:
        """Why it cannot, in words that follow the model's name; None where it can."""
        ...

    def train_many(self, jobs: Sequence[tuple[Task, Model]]) -> list[TrainResult]: ...


class ExecutorSettings(Protocol):
    """The `[executor]` table, as far as executors read it."""

    @property
    def workers(self) -> int | None: ...
    @property
    def threads(self) -> int: ...
    @property
    def address(self) -> str | None: ...
    @property
    def batch(self) -> int: ...


@dataclass(frozen=True)
class Resources:
    """What a run may use on this machine.

    Attributes:
        workers: worker processes: those asked for, else one for every `threads` cores.
        device: the torch device that trains.
        concurrency: jobs in flight at once, at most.
        in_worker: whether this process was itself started beside others, as those of `compare --jobs` are.
    """

    workers: int
    device: str
    concurrency: int
    in_worker: bool


@dataclass(frozen=True)
class ExecutorContext:
    """What an executor can be built from.

    Attributes:
        settings: the `[executor]` table.
        device: the torch device that trains.
        model_name: as the configuration names it, for messages.
        learner: trains in this process.
        workers: worker processes on this machine, as the executor's `local_workers` said.
        shared_factory: makes a worker's trainer on this machine, from data in shared memory; picklable. None where
            `workers` is 0.
        portable_factory: makes another, picklable function that makes a trainer anywhere and carries the data.
        wanted: how many results can still be wanted before the run ends.
    """

    settings: ExecutorSettings
    device: str
    model_name: str
    learner: BatchTrainer
    workers: int
    shared_factory: Callable[[], Trainer] | None
    portable_factory: Callable[[], Callable[[], Trainer]]
    wanted: Callable[[], float]


class Executor(abc.ABC):
    """Computes jobs.

    Class attributes:
        name: what `executor.name` calls it.

    Attributes:
        seconds: seconds of work done in other processes, by kind; under `wait_s`, how long this process waited.
    """

    name: ClassVar[str]
    seconds: Mapping[str, float]

    @classmethod
    @abc.abstractmethod
    def create(cls, context: ExecutorContext) -> Executor:
        """The executor of a run.

        Raises:
            ConfigError, MissingExtra: where it cannot serve this run.
        """

    @classmethod
    def local_workers(cls, resources: Resources) -> int:
        """How many worker processes on this machine it will use; they share the training data in memory."""
        return 0

    @abc.abstractmethod
    def submit(self, task: Task, model: Model, needed_at_s: float) -> None:
        """Take a job whose result is wanted at `needed_at_s` of the transport's clock, at the earliest."""

    @abc.abstractmethod
    def result(self, task: int) -> TrainResult:
        """The job's result. Each result is asked for once, at most."""

    @abc.abstractmethod
    def cancel(self, task: int) -> None:
        """The job's result will not be wanted."""

    @abc.abstractmethod
    def close(self) -> None:
        """End the worker processes and forget the jobs."""
