"""The run folder: everything a run leaves behind, and what a stopped run needs to go on.

    RUN/config.toml                 the resolved configuration
    RUN/environment.json            what decides the bits: versions, threads, device, memory format
    RUN/records.sqlite              tables below (schema_version in `meta`)
    RUN/checkpoint-*.safetensors    the last two checkpoints, while the run is going
    RUN/model.safetensors           the final model: a plain state_dict
    RUN/summary.json                the final numbers

    of a run on a live federation, besides:

    RUN/updates/*.safetensors       what the clients sent, one file an answer, as long as it is kept
    RUN/start.safetensors           the initial model, and U where the server has one

    RUN/lock                        while a process writes here

Tables and views of records.sqlite:

    meta     schema_version, objective, metrics (JSON: the fields of each Metric), and what else is noted
    inbox    what the server heard, in order: enough to replay the run
    events   what it did: dispatch, accept, refuse, lost, cancel, join, leave, aggregate, stage; evaluate on live runs
    metrics  one row per evaluation: the columns in `schema.BOOKKEEPING`, and three for each metric of the objective
    continuations   of a language model, where asked for: how it continues a few prompts at an evaluation
    jobs, accepted, refined    views of `events` with plain columns, for pandas and the like

A killed run loses nothing it needs. It goes back to its last checkpoint; a simulated one forgets the rows written after
it and computes them again to the same bits, a live one hears again what it had heard.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from ..core.errors import RecordError
from ..core.messages import Arrived, Event, Joined, Left, LogEntry, Lost, Rejected, Wake
from ..objectives.base import Metric
from . import checkpoints, database
from .files import read_tables, save_tensors, write_text
from .lock import FolderLock
from .schema import SCHEMA_VERSION
from .updates import load_update, save_update


class RunFolder:
    """Reads one run's folder, and writes it once it is locked.

    A folder that was opened is read only, and nothing is created in it; `lock` makes it writable. `create` locks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inbox: list[tuple[Any, ...]] = []
        self._events: list[tuple[Any, ...]] = []
        self._metrics: list[tuple[int, Mapping[str, Any]]] = []
        self._continuations: list[tuple[Any, ...]] = []
        self._database: sqlite3.Connection | None = None
        self._lock: FolderLock | None = None

    # -- making and opening

    @staticmethod
    def check_free(path: Path) -> None:
        """See that a new run can have this folder.

        Raises:
            RecordError: when there is a run already, or part of one.
        """
        if (path / "config.toml").exists():
            raise RecordError(f"{path} already holds a run; resume it, or give another folder with --out")
        if (path / "summary.json").exists() or any(path.glob("checkpoint-*.safetensors")):
            raise RecordError(f"{path} holds part of a run; remove it, or give another folder with --out")

    @classmethod
    def create(cls, path: Path, config: str, environment: Mapping[str, Any]) -> RunFolder:
        """A new run's folder, locked.

        Raises:
            RecordError: when there is a run already, another process is making one, or no folder can be made there.
        """
        cls.check_free(path)
        folder = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            folder.lock()
            cls.check_free(path)
            for leftover in path.glob(f"{database.FILE}*"):  # of a process that was killed just below
                leftover.unlink()
            folder.save_environment(environment)
            with folder.database() as db:
                db.execute("insert into meta values ('schema_version', ?)", (str(SCHEMA_VERSION),))
            write_text(path / "config.toml", config)  # last: a folder with a config is a run
        except RecordError:
            folder.close()
            raise
        except (OSError, sqlite3.DatabaseError) as fault:
            folder.close()
            raise RecordError(f"{path} cannot be written ({fault}); give another folder with --out") from fault
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run's folder, to be read.

        Raises:
            RecordError: when it is none, or was written by another schema.
        """
        if not (path / "config.toml").is_file():
            raise RecordError(f"{path} is not a run folder (it has no config.toml); give the folder of a run")
        folder, file = cls(path), path / database.FILE
        try:
            schema = folder.noted("schema_version") if file.exists() else None
        except sqlite3.DatabaseError as fault:
            folder.close()
            raise RecordError(f"{file} cannot be read ({fault}); the run must start anew") from fault
        if schema != str(SCHEMA_VERSION):
            folder.close()
            raise RecordError(
                f"{path} was written with schema {schema or 'none'}, this version reads {SCHEMA_VERSION}; use the "
                "version that environment.json names"
            )
        return folder

    def lock(self) -> None:
        """Keep other processes from writing here until this one closes the folder or ends; afterwards it may write.

        Raises:
            RecordError: when another process holds the lock.
        """
        try:
            self._lock = FolderLock(self.path)
        except RecordError:
            self.close()
            raise
        if self._database is not None:  # it was opened for reading
            self._database.close()
            self._database = None

    def database(self) -> sqlite3.Connection:
        """The records: writable where the folder is locked."""
        if self._database is None:
            open_ = database.open_for_reading if self._lock is None else database.open_for_writing
            self._database = open_(self.path / database.FILE)
        return self._database

    def close(self) -> None:
        """Write what is left to write, and let others in."""
        try:
            if self._database is not None:
                self.flush()
                self._database.close()
        finally:
            self._database = None
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    # -- what is judged

    def declare_metrics(self, objective: str, metrics: Sequence[Metric]) -> None:
        """Say by which objective and metrics the run is judged, and make their columns."""
        self.note("objective", objective)
        self.note("metrics", json.dumps([asdict(metric) for metric in metrics]))
        database.add_metric_columns(self.database(), [metric.name for metric in metrics])

    def metric_info(self) -> list[dict[str, Any]]:
        """The fields of every `Metric` of the run, the judged one first; empty before the run began."""
        return [dict(info) for info in json.loads(self.noted("metrics") or "[]")]

    # -- rows

    def add_inbox(self, seq: int, event: Event) -> None:
        """One event that the server heard."""
        number, reason = 0, ""
        if isinstance(event, Arrived):
            number = event.result.task
        elif isinstance(event, Lost | Rejected):
            number, reason = event.task, event.reason
        elif isinstance(event, Joined):
            number, reason = event.client, event.name
        elif isinstance(event, Left):
            number = event.client
        self._inbox.append((seq, event.at_s, type(event).__name__.lower(), number, reason))

    def hear(self, seq: int, event: Event) -> None:
        """One event that the server is about to hear, on disk when this returns; with what a client sent."""
        if isinstance(event, Arrived):
            save_update(self._update_file(seq), event.result)
        self.add_inbox(seq, event)
        self.flush()

    def add_log_entry(self, seq: int, entry: LogEntry) -> None:
        """One thing that the server did."""
        detail = json.dumps(entry.detail) if entry.detail else None
        self._events.append(
            (seq, entry.at_s, entry.kind, entry.client, entry.task, entry.version, entry.staleness, detail)
        )

    def add_metrics(self, seq: int, row: Mapping[str, float | None]) -> None:
        """One evaluation; `row` has the bookkeeping columns and those of the declared metrics."""
        self._metrics.append((seq, row))

    def add_continuation(self, seq: int, row: Mapping[str, float], prompt: str, text: str) -> None:
        """What the model made of a prompt when it was judged; `row` is that evaluation's."""
        self._continuations.append((seq, row["updates"], row["virtual_time_s"], prompt, text))

    def flush(self) -> None:
        """Put the rows added so far into the database."""
        if not (self._inbox or self._events or self._metrics):
            return
        with self.database() as db:
            db.executemany("insert into inbox values (?, ?, ?, ?, ?)", self._inbox)
            db.executemany("insert into events values (null, ?, ?, ?, ?, ?, ?, ?, ?)", self._events)
            columns = database.evaluation_columns(db)
            names = ", ".join(f'"{name}"' for name in ("seq", *columns))
            rows = [(seq, *(row.get(name) for name in columns)) for seq, row in self._metrics]
            db.executemany("insert into continuations values (?, ?, ?, ?, ?)", self._continuations)
            db.executemany(f"insert into metrics ({names}) values ({', '.join('?' * (len(columns) + 1))})", rows)
        self._inbox.clear()
        self._events.clear()
        self._metrics.clear()
        self._continuations.clear()

    def forget_after(self, seq: int, inbox: bool = True) -> None:
        """Drop the rows written after event number `seq`; what was heard too, unless it is kept to be heard again."""
        with self.database() as db:
            db.execute("delete from metrics where seq > ?", (seq,))
            db.execute("delete from continuations where seq > ?", (seq,))
            if inbox:
                db.execute("delete from inbox where seq > ?", (seq,))
                db.execute("delete from events where seq > ?", (seq,))
            else:  # clients do not send their evaluations again
                db.execute("delete from events where seq > ? and kind != 'evaluate'", (seq,))

    @property
    def heard(self) -> int:
        """The number of the last event in the inbox, 0 before the first."""
        (last,) = self.database().execute("select max(seq) from inbox").fetchone()
        return int(last or 0)

    def names(self) -> dict[int, str]:
        """Every client that came by a name, in the order in which they came: what a live transport knows it by."""
        rows = self.database().execute("select number, reason from inbox where kind = 'joined' order by seq")
        return {number: name for number, name in rows if name}

    def again(self, after: int) -> Iterator[Event]:
        """What a live run's server heard after event number `after`, with what the clients sent.

        Raises:
            RecordError: when an update is not there any more.
        """
        rows = self.database().execute(
            "select seq, at_s, kind, number, reason from inbox where seq > ? order by seq", (after,)
        )
        for seq, at_s, kind, number, reason in rows.fetchall():
            if kind == "arrived":
                yield Arrived(at_s, load_update(self._update_file(seq)))
            elif kind in ("lost", "rejected"):
                yield (Lost if kind == "lost" else Rejected)(at_s, number, reason)
            elif kind == "joined":
                yield Joined(at_s, number, reason)
            else:
                yield Left(at_s, number) if kind == "left" else Wake(at_s)

    def note(self, key: str, value: str) -> None:
        """Write a value into the table `meta`."""
        with self.database() as db:
            db.execute("insert or replace into meta values (?, ?)", (key, value))

    def noted(self, key: str) -> str | None:
        """The value that the table `meta` has under this key, or None."""
        row = self.database().execute("select value from meta where key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    # -- what the clients of a live run sent

    def _update_file(self, seq: int) -> Path:
        return self.path / "updates" / f"{seq:09d}.safetensors"

    def updates(self) -> list[int]:
        """The numbers of the arrivals whose updates are kept, in order."""
        return sorted(int(file.stem) for file in (self.path / "updates").glob("*.safetensors"))

    def drop_updates(self, until: int) -> None:
        """Remove the updates that arrived up to event number `until`."""
        for seq in self.updates():
            if seq <= until:
                self._update_file(seq).unlink()

    def save_start(self, tensors: Mapping[str, Tensor]) -> None:
        """Write down what a live run starts from."""
        save_tensors(self.path / "start.safetensors", tensors, {"format": "pt"})

    def load_start(self) -> dict[str, Tensor]:
        """What `save_start` wrote.

        Raises:
            RecordError: when it cannot be read.
        """
        try:
            return load_file(self.path / "start.safetensors")
        except Exception as fault:
            raise RecordError(f"{self.path / 'start.safetensors'} cannot be read ({fault})") from fault

    def inbox(self) -> Generator[tuple[float, str, int, str], None, None]:
        """What the server heard, in order."""
        yield from self.database().execute("select at_s, kind, number, reason from inbox order by seq")

    def metrics(self) -> list[dict[str, Any]]:
        """Every evaluation, in order."""
        columns = database.evaluation_columns(self.database())
        names = ", ".join(f'"{name}"' for name in columns)
        rows = self.database().execute(f"select {names} from metrics order by seq")
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def continuations(self) -> list[dict[str, Any]]:
        """Updates, virtual_time_s, prompt and text of every continuation, in order."""
        names = ("updates", "virtual_time_s", "prompt", "text")
        rows = self.database().execute(f"select {', '.join(names)} from continuations order by rowid")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def events(self) -> Iterator[dict[str, Any]]:
        """What the server did, in order; `detail` is a dict."""
        names = ("at_s", "kind", "client", "task", "version", "staleness", "detail")
        for row in self.database().execute(f"select {', '.join(names)} from events order by id"):
            entry = dict(zip(names, row, strict=True))
            entry["detail"] = json.loads(entry["detail"]) if entry["detail"] else {}
            yield entry

    # -- checkpoints

    def save_checkpoint(self, seq: int, state: Any) -> None:
        """Write `state` (a tree) as the checkpoint after event `seq`; the one before the last is deleted."""
        self.flush()
        checkpoints.save_checkpoint(self.path, seq, state)

    def checkpoints(self) -> list[Path]:
        """Checkpoint files, oldest first."""
        return checkpoints.checkpoint_files(self.path)

    def load_checkpoint(self, device: str = "cpu") -> tuple[int, Any] | None:
        """The newest checkpoint that can be read, as (seq, state) with its tensors on `device`, or None."""
        return checkpoints.load_checkpoint(self.path, device)

    def drop_checkpoints(self) -> None:
        """Remove them all, and what is left of one whose writing was cut short."""
        checkpoints.drop_checkpoints(self.path)

    # -- the end

    def save_model(self, state_dict: dict[str, Tensor]) -> None:
        save_tensors(self.path / "model.safetensors", state_dict, {"format": "pt"})

    def save_summary(self, summary: Mapping[str, Any]) -> None:
        write_text(self.path / "summary.json", json.dumps(summary, indent=2) + "\n")

    def summary(self) -> dict[str, Any] | None:
        """The final numbers, or None while the run is not finished.

        Raises:
            RecordError: when they cannot be read.
        """
        path = self.path / "summary.json"
        if not path.is_file():
            return None
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as fault:
            raise RecordError(f"{path} cannot be read ({fault}); remove it and resume the run") from fault

    def save_environment(self, environment: Mapping[str, Any]) -> None:
        """Write down what decides the bits, where it was not known when the folder was made."""
        write_text(self.path / "environment.json", json.dumps(environment, indent=2) + "\n")

    def rewrite(self, config: str) -> None:
        """Give the run another configuration, such as a later end; it is not finished any more."""
        (self.path / "summary.json").unlink(missing_ok=True)
        write_text(self.path / "config.toml", config)

    def config(self) -> str:
        """The configuration as it was written."""
        return (self.path / "config.toml").read_text(encoding="utf-8")

    def tables(self) -> dict[str, Any]:
        """The tables of the configuration, unread: no class that they name need be there.

        Raises:
            RecordError: when they are not TOML.
        """
        return read_tables(self.path / "config.toml")

    def size_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.path.iterdir() if file.is_file())
