"""Runs on the terminal: the table of evaluations and the progress bars."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..experiment.result import Result
from ..experiment.setup import Setup, Simulation, Sizes
from ..objectives.base import Metric
from ..studies import progress
from ..studies.jobs import Failure, Job

_BOOKKEEPING = (
    ("virtual_s", "virtual_time_s", 10, 1),
    ("wall_s", "wall_s", 8, 1),
    ("version", "version", 8, 0),
    ("updates", "updates", 8, 0),
    ("stale", "staleness_mean", 6, 2),
    ("max", "staleness_max", 5, 0),
)
"""Heading, key in a row, width, decimals."""


def _columns(metrics: Sequence[Metric]) -> list[tuple[str, str, int, int]]:
    """The columns of the table of evaluations: the judged metric, that of the slow clients, and the loss."""
    columns = list(_BOOKKEEPING)
    for metric in metrics[:1]:
        columns.append((metric.label, metric.name, max(9, len(metric.label)), metric.decimals))
        columns.append(("slow", f"slow_client_{metric.name}", 8, metric.decimals))
    columns += [
        (metric.label, metric.name, 8, min(metric.decimals, 3)) for metric in metrics[1:] if metric.name == "loss"
    ]
    return columns


def header(metrics: Sequence[Metric]) -> str:
    """The headings of the table of evaluations."""
    return " ".join(f"{heading:>{width}}" for heading, _, width, _ in _columns(metrics))


def line(metrics: Sequence[Metric], row: Mapping[str, Any]) -> str:
    """One evaluation as a line as wide as `header`."""
    return " ".join(_number(row.get(key), width, decimals) for _, key, width, decimals in _columns(metrics))


def _number(value: float | None, width: int, decimals: int) -> str:
    """A number in this width, with fewer decimals where there is no room; "–" for None."""
    if value is None:
        return f"{'–':>{width}}"
    texts = [f"{value:.{places}f}" for places in range(decimals, -1, -1)] + [f"{value:.{k}e}" for k in (1, 0)]
    return f"{next((text for text in texts if len(text) <= width), texts[-1]):>{width}}"


def sizes_line(sizes: Sizes) -> str:
    """What a run moves and keeps, in a line."""
    frozen = f" ({sizes.frozen:,} more are frozen and stay)" if sizes.frozen else ""
    predictions = f", {_mb(sizes.predictions_bytes)} of it predictions" if sizes.predictions_bytes else ""
    bank = f"; bank up to {_mb(sizes.bank_bytes)}" if sizes.bank_bytes else ""
    return (
        f"{sizes.trained:,} weights travel{frozen}: an update takes {_mb(sizes.down_bytes)} down and "
        f"{_mb(sizes.up_bytes)} up{predictions}{bank}"
    )


def _mb(size: float) -> str:
    """1 MB is a million bytes."""
    return f"{size / 1e6:.{2 if size < 1e7 else 0}f} MB"


class _Terminal:
    """Bars on standard error while that is a terminal. Without a table on standard output, whatever else prints
    meanwhile (a user's own model or data set) prints on standard error."""

    def __init__(self, table: bool) -> None:
        self._table = table
        self._quiet = contextlib.nullcontext() if table else contextlib.redirect_stdout(sys.stderr)
        self._bars: Progress | None = None

    def __enter__(self) -> Any:
        console = Console(stderr=True)
        if console.is_terminal:
            columns: tuple[ProgressColumn, ...] = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TextColumn("{task.percentage:>3.0f}%"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            self._bars = Progress(
                *columns,
                console=console,
                transient=True,
                redirect_stdout=sys.stdout.isatty(),  # else a table sent to a file would come out on the terminal
            )
            self._bars.start()
        self._quiet.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._quiet.__exit__(None, None, None)
        if self._bars is not None:
            self._bars.stop()


class RunScreen(_Terminal):
    """Shows one run."""

    def __init__(self, table: bool) -> None:
        super().__init__(table)
        self._task: TaskID | None = None
        self._metrics: Sequence[Metric] = ()
        self._headed = self._warned = False

    def started(self, setup: Setup) -> None:
        self._metrics = setup.metrics
        if self._table and isinstance(setup, Simulation):
            print(sizes_line(setup.sizes), flush=True)
        if self._bars is not None:
            self._task = self._bars.add_task(setup.config.method, total=1.0)

    def progressed(self, setup: Setup) -> None:
        state = progress.Progress.of(setup)
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=state.share)
        if not self._warned and state.warning is not None:
            self._warned = True
            print(f"fedecho: {state.warning}", file=sys.stderr, flush=True)

    def evaluated(self, row: Mapping[str, Any]) -> None:
        if self._table:
            if not self._headed:
                print(header(self._metrics))
                self._headed = True
            print(line(self._metrics, row), flush=True)


class JobsScreen(_Terminal):
    """Shows many runs: a bar for all of them and one for each that is going, and a line for each as it ends."""

    def __init__(self, jobs: Sequence[Job], table: bool) -> None:
        super().__init__(table)
        self._jobs = jobs
        self._width = max(16, *(len(job.label) for job in jobs))
        self._total: TaskID | None = None
        self._tasks: dict[int, TaskID] = {}
        self._ended: set[int] = set()
        self._warned: set[int] = set()

    def progressed(self, states: Sequence[progress.Progress]) -> None:
        for place, state in enumerate(states):
            if place not in self._warned and state.warning is not None:
                self._warned.add(place)
                print(f"fedecho: {self._name(place)}: {state.warning}", file=sys.stderr, flush=True)
        if self._bars is None:
            return
        if self._total is None:
            self._total = self._bars.add_task("", total=len(self._jobs))
        done = sum(1.0 if place in self._ended else state.share for place, state in enumerate(states))
        about = f"{len(self._ended)} of {len(self._jobs)} runs"
        self._bars.update(self._total, completed=done, description=f"{about:{self._width + 9}}")
        for place, state in enumerate(states):
            if state.share > 0 and place not in self._ended:
                if place not in self._tasks:
                    self._tasks[place] = self._bars.add_task(f"{self._name(place):{self._width + 9}}", total=1.0)
                self._bars.update(self._tasks[place], completed=state.share)

    def finished(self, job: Job, result: Result | Failure) -> None:
        place = self._jobs.index(job)
        self._ended.add(place)
        if self._bars is not None and place in self._tasks:
            self._bars.remove_task(self._tasks.pop(place))
        if not self._table:
            return
        start = f"{job.label:{self._width}} seed {job.seed:<4}"
        if isinstance(result, Failure):
            print(f"{start} {result.reason}", flush=True)
        else:
            print(f"{start} {judged_text(result)}{result.wall_s:7.1f} s", flush=True)

    def _name(self, place: int) -> str:
        return f"{self._jobs[place].label} seed {self._jobs[place].seed}"


def judged_text(result: Result) -> str:
    """The judged metric of a run and a space; empty where nothing was judged."""
    metric, values = result.judged_metric, result.judged
    return "" if metric is None or values is None else f"{metric.label} {metric.format(values.last_5_mean)} "
