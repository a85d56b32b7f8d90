"""Many runs in parallel processes, with progress within each."""

from __future__ import annotations

import contextlib
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import Any, Protocol

from ..config.config import Config
from ..config.toml import read_toml
from ..core.errors import Diverged, RecordError, Stalled, UnusedSettingWarning
from ..experiment.observer import Observer
from ..experiment.result import Result
from ..experiment.run import resume, run
from ..experiment.setup import Setup
from .processes import context
from .progress import Progress

POLL_S = 0.2
"""Seconds between two looks at the progress of the runs."""


@dataclass(frozen=True)
class Job:
    """One run of a comparison."""

    label: str
    seed: int
    config: Config
    out: Path


@dataclass(frozen=True)
class Failure:
    """A run that ended without a result because of its method: the model is not finite any more, or no event is left to
    wait for."""

    reason: str


class Watcher(Protocol):
    """Is told how the runs of a comparison go."""

    def progressed(self, states: Sequence[Progress]) -> None:
        """Now and then; one state for each job, in their order."""
        ...

    def finished(self, job: Job, result: Result | Failure) -> None:
        """After each run."""
        ...


def run_job(job: Job, observer: Observer | None = None) -> Result:
    """Run a job, continue it, or take its result if it is there.

    Raises:
        RecordError: when its folder holds a run of another configuration.
    """
    if (job.out / "config.toml").exists():
        recorded = Config.from_dict(read_toml(job.out / "config.toml"))
        if _deciding_tables(recorded) != _deciding_tables(job.config):
            raise RecordError(
                f"{job.out} holds a run with other settings; remove it, or give another folder with --out"
            )
        return resume(job.out, observer)
    return run(job.config, job.out, observer)


def _deciding_tables(config: Config) -> dict[str, Any]:
    """The tables that decide a run's bits: not the other variants, nor how often it is saved."""
    return {name: table for name, table in config.to_dict().items() if name not in ("variants", "records")}


# -- in the process of a run

_board: Any = None
"""In the process of a run: the numbers of `Progress` for every job, one after the other, shared with the parent."""


def _share_board(board: Any) -> None:
    global _board
    _board = board


class _Reporter:
    """Writes a run's progress where the parent process reads it."""

    def __init__(self, place: int) -> None:
        self._place = place

    def started(self, setup: Setup) -> None: ...

    def progressed(self, setup: Setup) -> None:
        if _board is not None:
            now = Progress.of(setup)
            _board[3 * self._place : 3 * self._place + 3] = (now.share, now.updates, now.refused)

    def evaluated(self, row: Mapping[str, Any]) -> None: ...


def _run_in_worker(place: int, label: str, seed: int, tables: dict[str, Any], out: Path) -> Result | Failure:
    """`run_job` in another process, which finds a user's own rule by its name; only the command line prints."""
    # Ctrl-C stops each run at a checkpoint; a forkserver that an executor started blocks it for all that it forks
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    warnings.simplefilter("ignore", UnusedSettingWarning)  # given when the runs were planned
    with contextlib.redirect_stdout(sys.stderr):
        try:
            return run_job(Job(label, seed, Config.from_dict(tables), out), _Reporter(place))
        except (Diverged, Stalled) as fault:
            return Failure(f"{type(fault).__name__.lower()}: {fault}")


# -- in the parent process


def run_jobs(jobs: Sequence[Job], processes: int, watcher: Watcher | None = None) -> list[Result | Failure]:
    """All jobs, at most `processes` at once, each in a process of its own. Results in the order of `jobs`.

    A run that diverges or stalls fails alone: the others go on.

    Raises:
        RecordError: when a run's process was killed.
    """
    board = RawArray("d", 3 * len(jobs))
    results: dict[int, Result | Failure] = {}
    with _pool(min(processes, len(jobs)), board) as pool:
        places = {
            pool.submit(_run_in_worker, place, job.label, job.seed, job.config.to_dict(), job.out): place
            for place, job in enumerate(jobs)
        }
        try:
            for future in _completed(places, board, watcher):
                place = places[future]
                results[place] = future.result()
                if watcher is not None:
                    watcher.finished(jobs[place], results[place])
        except BrokenProcessPool:
            raise RecordError(
                "a run's process was killed (out of memory?); the same command with --out continues, --jobs sets how "
                "many run at once"
            ) from None
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [results[place] for place in range(len(jobs))]


def _completed(
    futures: Mapping[Future[Result | Failure], int], board: Any, watcher: Watcher | None
) -> Iterator[Future[Result | Failure]]:
    """The futures as they end; the watcher hears of the progress in between."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, None if watcher is None else POLL_S, FIRST_COMPLETED)
        if watcher is not None:
            numbers = list(board)
            watcher.progressed(
                [
                    Progress(numbers[place], int(numbers[place + 1]), int(numbers[place + 2]))
                    for place in range(0, len(numbers), 3)
                ]
            )
        yield from done


def _pool(processes: int, board: Any) -> ProcessPoolExecutor:
    """A pool that takes a fresh process for each run, forked from one that has imported everything but started no
    thread: a plain fork would inherit torch's threads in an undefined state, and a spawn would import torch again for
    every run."""
    fresh: dict[str, Any] = {"max_tasks_per_child": 1} if sys.version_info >= (3, 11) else {}
    return ProcessPoolExecutor(processes, context(), _share_board, (board,), **fresh)
