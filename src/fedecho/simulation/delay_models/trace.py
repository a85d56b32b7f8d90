"""Job times from a CSV file."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from ...core.errors import ConfigError
from ...core.keys import Key
from ..job_times import Empirical
from .base import ClientDelays, DelayModel

SECONDS: Final = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
"""What the units of a trace are in seconds."""


@dataclass(frozen=True)
class TraceDelays(DelayModel):
    """Job times from a CSV file with a line per job seen. A job takes one of its client's times, drawn at random.

    The file has a column of clients or of devices, and one of times. Clients that are whole numbers are the run's
    clients of these numbers, from 0; those beyond the run's are left out. Clients with other names are the run's
    clients in the order of their sorted names. With a column `device`, each client is a device drawn at random.

    Attributes:
        path: of the file.
        client_column: the column that says whose time it is; None: `client`, else `device`.
        seconds_column: the column of times.
        unit: of the times: ms, s, min or h.
    """

    name: ClassVar[str] = "trace"
    argument: ClassVar[str] = "PATH"

    path: str = ""
    client_column: str | None = None
    seconds_column: str = "seconds"
    unit: str = "s"

    def delays(self, clients: int, key: Key) -> ClientDelays:
        if not Path(self.path).is_file():
            raise ConfigError(
                f"[population] there is no trace file at {self.path!r}: give the path of a CSV file after `trace:`"
            )
        column, times_s = self._read()
        if column == "device" and self.client_column is None:
            # Sorted, so that the order of the lines in the file changes nothing.
            devices = [Empirical(tuple(times_s[device])) for device in sorted(times_s)]
            numbers = (key.fold("device", client).below(len(devices)) for client in range(clients))
            return ClientDelays([devices[number] for number in numbers])
        return ClientDelays([Empirical(tuple(times_s[name])) for name in self._clients(times_s, clients)])

    def _clients(self, times_s: dict[str, list[float]], clients: int) -> list[str]:
        """The name in the file of each of the run's clients."""
        remedy = "add lines for them, lower the number of clients, or name the column `device` to draw each client's "
        if not all(name.isdecimal() for name in times_s):
            if len(times_s) < clients:
                raise ConfigError(
                    f"{self.path}: has times for {len(times_s)} clients, and the run has {clients}: {remedy}"
                    "device from the file"
                )
            return sorted(times_s)[:clients]
        missing = [client for client in range(clients) if str(client) not in times_s]
        if missing:
            listed = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
            raise ConfigError(
                f"{self.path}: no times for {len(missing)} of {clients} clients ({listed}): {remedy}device from the "
                "file"
            )
        return [str(client) for client in range(clients)]

    def _read(self) -> tuple[str, dict[str, list[float]]]:
        """The name of the column of clients, and for each of them the job times in seconds.

        Raises:
            ConfigError: in one line, if the file cannot be used.
        """
        times_s: dict[str, list[float]] = {}
        faults: list[str] = []
        try:
            # "utf-8-sig", as spreadsheets put a byte order mark before the first column's name.
            with open(self.path, newline="", encoding="utf-8-sig") as file:
                rows = csv.DictReader(file, skipinitialspace=True)
                rows.fieldnames = [column.strip() for column in rows.fieldnames or ()]
                client_column = self._client_column(rows.fieldnames)
                for name, seconds, fault in self._entries(rows, client_column):
                    if fault:
                        faults.append(f"line {rows.line_num}: {fault}")
                    else:
                        times_s.setdefault(name, []).append(seconds)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ConfigError(
                f"{self.path}: cannot be read as a CSV file ({error}): give a text file in UTF-8"
            ) from error
        if faults:
            more = f" (and {len(faults) - 1} more such lines)" if len(faults) > 1 else ""
            raise ConfigError(f"{self.path}: {faults[0]}{more}: mend or remove it")
        if not times_s:
            raise ConfigError(f"{self.path}: holds no times: add a line for each job seen, such as `0,12.5`")
        if all(name.isdecimal() for name in times_s):
            numbered: dict[str, list[float]] = {}
            for name, times in times_s.items():
                numbered.setdefault(str(int(name)), []).extend(times)  # "007" is client 7
            times_s = numbered if client_column != "device" else times_s
        return client_column, times_s

    def _client_column(self, columns: list[str]) -> str:
        candidates = ("client", "device") if self.client_column is None else (self.client_column,)
        client_column = next((column for column in candidates if column in columns), None)
        if client_column is None or self.seconds_column not in columns:
            pairs = " or ".join(f"`{column},{self.seconds_column}`" for column in candidates)
            raise ConfigError(
                f"{self.path}: the first line must name the columns {pairs}, got {','.join(columns)!r}: add it, or set "
                "population.client_column and population.seconds_column to the file's own names"
            )
        return client_column

    def _entries(self, rows: csv.DictReader[str], client_column: str) -> Iterator[tuple[str, float, str]]:
        """For each line the client's name and the seconds, and what is wrong with it."""
        for row in rows:
            name, text = (row[client_column] or "").strip(), row[self.seconds_column]
            seconds = _positive(text)
            if not name:
                yield name, 0.0, f"`{client_column}` must be a name, got {name!r}"
            elif seconds is None:
                yield name, 0.0, f"`{self.seconds_column}` must be a number above 0, got {text!r}"
            else:
                yield name, seconds * SECONDS[self.unit], ""


def _positive(text: str | None) -> float | None:
    """The finite number above 0 that the text holds, if it holds one."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None
