"""A run on the terminal: its table and its progress bar."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ..experiment.setup import Setup, Simulation, Sizes

HEADER = " virtual_s   wall_s  version  updates  stale_mean  stale_max  accuracy    slow    loss"


def line(row: Mapping[str, Any]) -> str:
    """One evaluation as a fixed-width line under HEADER."""
    slow = row["slow_client_accuracy"]
    return (
        f"{row['virtual_time_s']:10.1f} {row['wall_s']:8.1f} {row['version']:8d} {row['updates']:8d} "
        f"{row['staleness_mean']:11.2f} {row['staleness_max']:10d} {row['accuracy']:9.4f} "
        f"{'      –' if slow is None else f'{slow:7.4f}'} {row['loss']:{'7.3f' if row['loss'] < 1000 else '7.1e'}}"
    )


def sizes_line(sizes: Sizes) -> str:
    """What a run will move and keep, in a line."""
    frozen = f" ({sizes.frozen:,} more are frozen and stay)" if sizes.frozen else ""
    said = f", {_mb(sizes.predictions_bytes)} of it predictions" if sizes.predictions_bytes else ""
    bank = f"; bank up to {_mb(sizes.bank_bytes)}" if sizes.bank_bytes else ""
    return (
        f"{sizes.trained:,} weights travel{frozen}: an update takes {_mb(sizes.down_bytes)} down and "
        f"{_mb(sizes.up_bytes)} up{said}{bank}"
    )


def _mb(size: float) -> str:
    """1 MB is a million bytes."""
    return f"{size / 1e6:.{2 if size < 1e7 else 0}f} MB"


class Screen:
    """Shows a run: the table on standard output, a bar on standard error while that is a terminal.

    Without the table, whatever else prints meanwhile (a user's own model or data set) prints on standard error.
    """

    def __init__(self, table: bool) -> None:
        self._table = table
        self._quiet = contextlib.nullcontext() if table else contextlib.redirect_stdout(sys.stderr)
        self._headed = False
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Screen:
        console = Console(stderr=True)
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
            self._progress = Progress(
                *columns,
                TimeRemainingColumn(),
                console=console,
                transient=True,
                redirect_stdout=sys.stdout.isatty(),  # else a table sent to a file would come out on the terminal
            )
            self._progress.start()
        self._quiet.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._quiet.__exit__(None, None, None)
        if self._progress is not None:
            self._progress.stop()

    def started(self, setup: Setup) -> None:
        if self._table and isinstance(setup, Simulation):
            print(sizes_line(setup.sizes), flush=True)
        if self._progress is not None:
            self._task = self._progress.add_task(setup.config.method, total=1.0)

    def progressed(self, setup: Setup) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=setup.server.progress)

    def evaluated(self, row: Mapping[str, Any]) -> None:
        if self._table:
            if not self._headed:
                print(HEADER)
                self._headed = True
            print(line(row), flush=True)
