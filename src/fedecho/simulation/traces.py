"""Job times from a CSV file."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Final

from ..core.errors import ConfigError
from ..core.keys import Key
from .job_times import Empirical, JobTimes
from .settings import TRACE_PREFIX


def trace_job_times(clients: int, key: Key, path: str) -> list[JobTimes]:
    """The laws of a trace file. Raises ConfigError, in one line, if it cannot be used."""
    if not Path(path).is_file():
        raise ConfigError(
            f"[population] there is no trace file at {path!r}: give the path of a CSV file after `{TRACE_PREFIX}`"
        )
    owner, times_s = _read_trace(path)
    if owner == "device":
        # Sorted, so that the order of the lines in the file changes nothing.
        devices = [Empirical(tuple(times_s[device])) for device in sorted(times_s)]
        return [devices[key.fold("device", c).below(len(devices))] for c in range(clients)]
    missing = [c for c in range(clients) if str(c) not in times_s]
    if missing:
        shown = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        raise ConfigError(
            f"{path}: no times for {len(missing)} of {clients} clients ({shown}): add lines for them, lower the number "
            "of clients, or name the column `device` to draw each client's device from the file"
        )
    return [Empirical(tuple(times_s[str(c)])) for c in range(clients)]


def _read_trace(path: str) -> tuple[str, dict[str, list[float]]]:
    """What its first column is called, and the job times in seconds of each name in it."""
    times_s: dict[str, list[float]] = {}
    bad: list[str] = []
    try:
        # `-sig` as spreadsheets put a byte order mark before the first column's name.
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, skipinitialspace=True)
            columns = [column.strip() for column in rows.fieldnames or ()]
            rows.fieldnames = columns
            owner = next((column for column in ("client", "device") if column in columns), None)
            if owner is None or "seconds" not in columns:
                raise ConfigError(
                    f"{path}: the first line must name the columns `client,seconds` or `device,seconds`, "
                    f"got {','.join(columns)!r}: add it"
                )
            for row in rows:
                name, seconds = (row[owner] or "").strip(), _seconds(row["seconds"])
                if owner == "client" and name.isdecimal():
                    name = str(int(name))
                elif owner == "client" or not name:
                    bad.append(f"line {rows.line_num}: `{owner}` must be {_OWNERS[owner]}, got {name!r}")
                    continue
                if seconds is None:
                    bad.append(f"line {rows.line_num}: `seconds` must be a number above 0, got {row['seconds']!r}")
                    continue
                times_s.setdefault(name, []).append(seconds)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read as a CSV file ({error}): give a text file in UTF-8") from error
    if bad:
        more = f" (and {len(bad) - 1} more such lines)" if len(bad) > 1 else ""
        raise ConfigError(f"{path}: {bad[0]}{more}: mend or remove it")
    if not times_s:
        raise ConfigError(f"{path}: holds no times: add a line for each job seen, such as `0,12.5`")
    return owner, times_s


_OWNERS: Final = {"client": "a client number from 0", "device": "a name"}


def _seconds(text: str | None) -> float | None:
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None
