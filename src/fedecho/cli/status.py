"""The command `status`: how far a run is. Nothing slow is imported: supervision loops call it often."""

from __future__ import annotations

import argparse
import contextlib
import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

from ..core.errors import RecordError
from ..runs.database import reading
from .arguments import require_run

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

UNFINISHED = 3
"""The exit code for a run that is not finished."""


def status_command(options: argparse.Namespace) -> int:
    require_run(options.run_dir)
    folder = Path(options.run_dir)
    if (folder / "summary.json").is_file():
        print(f"{folder}: finished, {_finished(folder / 'summary.json')}")
        return 0
    print(f"{folder}: not finished, {_progress(folder)}")
    return UNFINISHED


def _finished(file: Path) -> str:
    """The updates of a finished run, and its judged metric."""
    try:
        summary: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        text = f"{summary['updates']:,} updates"
        for name, values in list(summary.get("metrics", {}).items())[:1]:
            text += "" if values["last_5_mean"] is None else f", {name} {values['last_5_mean']:.6g}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        raise RecordError(f"{file} cannot be read ({fault}); remove it and resume the run") from fault
    return text


def _progress(folder: Path) -> str:
    """How far a run is that is not finished, and how it goes on."""
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(reading(folder))
        try:
            (updates,) = database.execute("select count(*) from events where kind = 'accept'").fetchone()
        except sqlite3.DatabaseError as fault:
            raise RecordError(f"{folder / 'records.sqlite'} cannot be read ({fault}); leave this run out") from fault
    try:
        tables = tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise RecordError(f"{folder / 'config.toml'} cannot be read ({fault}); leave this run out") from fault
    limit = tables.get("experiment", {}).get("updates")
    live = tables.get("transport", {}).get("name", "simulated") != "simulated"
    how = "its ServerApp continues it" if live else f"`fedecho resume {folder}` continues it"
    total = f"{updates:,} of {limit:,} updates" if isinstance(limit, int) else f"{updates:,} updates"
    return f"{total} recorded; if no process is at work on it, {how}"
