"""The database of a run's records, opened for writing or for reading only."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from ..core.errors import RecordError
from .schema import SCHEMA, VIEWS, metric_columns

FILE = "records.sqlite"
"""In the run folder."""


def open_for_writing(file: Path) -> sqlite3.Connection:
    """The database, with its tables made where they are missing.

    Raises:
        sqlite3.DatabaseError: when it cannot be written.
    """
    database = sqlite3.connect(file, timeout=30)
    try:
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = full")  # rows outlive a power cut, as their checkpoint does
        database.executescript(SCHEMA + VIEWS)
    except sqlite3.DatabaseError:
        database.close()
        raise
    return database


def open_for_reading(file: Path) -> sqlite3.Connection:
    """The database, read only: nothing is created beside it, so that it may lie on read-only media.

    Raises:
        sqlite3.DatabaseError: when it cannot be read.
    """
    log = file.with_name(file.name + "-wal")
    quoted = quote(str(file.resolve()))
    if not log.exists() or not log.stat().st_size:  # nobody is writing
        return _connected(f"file:{quoted}?mode=ro&immutable=1")
    try:
        return _connected(f"file:{quoted}?mode=ro")
    except sqlite3.OperationalError:  # the run was killed, and the log's index cannot be made here
        return _copied(file, log)


def _connected(uri: str) -> sqlite3.Connection:
    database = sqlite3.connect(uri, uri=True, timeout=30)
    try:
        database.execute("select count(*) from sqlite_master").fetchone()
    except sqlite3.DatabaseError:
        database.close()
        raise
    return database


def _copied(file: Path, log: Path) -> sqlite3.Connection:
    """The database and what its log adds, in memory."""
    memory = sqlite3.connect(":memory:")
    with tempfile.TemporaryDirectory(prefix="fedecho-") as folder:
        for part in (file, log):
            shutil.copyfile(part, Path(folder) / part.name)
        with contextlib.closing(sqlite3.connect(Path(folder) / file.name)) as database:
            database.backup(memory)
    return memory


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """The records of the run folder `path`, to be read only.

    Raises:
        RecordError: when they cannot be.
    """
    file = path / FILE
    try:
        with contextlib.closing(open_for_reading(file)) as database:
            yield database
    except sqlite3.DatabaseError as fault:
        raise RecordError(f"{file} cannot be read ({fault}); leave this run out") from fault


def evaluation_columns(database: sqlite3.Connection) -> list[str]:
    """The columns of the table `metrics`, without `seq`."""
    return [row[1] for row in database.execute("pragma table_info(metrics)") if row[1] != "seq"]


def add_metric_columns(database: sqlite3.Connection, names: Sequence[str]) -> None:
    """Columns for these metrics, where they are missing."""
    present = evaluation_columns(database)
    for column in metric_columns(names):
        if column not in present:
            database.execute(f'alter table metrics add column "{column}" real')
