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

    inbox    what the server heard, in order: enough to replay the run
    events   what it did: dispatch, accept, refuse, lost, cancel, join, leave, aggregate, stages; evaluate on live runs
    metrics  one row per evaluation, columns in METRICS
    continuations   of a language model, where asked for: what it makes of a few prompts at an evaluation
    jobs, accepted, refined    views of `events` with plain columns, for pandas and the like

A killed run loses nothing it needs. It goes back to its last checkpoint; a simulated one forgets the rows written after
it and computes them again to the same bits, a live one hears again what it had heard.
"""

from __future__ import annotations

from ..core import trees as tree
from ..core.errors import RecordError
from ..core.messages import Arrived
from ..core.messages import Event
from ..core.messages import LogEntry
from ..core.messages import Joined
from ..core.messages import Left
from ..core.messages import Lost
from ..core.messages import Rejected
from ..core.messages import Wake
from .environment import environment
from .files import save_tensors
from .files import write_text
from .schema import METRICS
from .schema import SCHEMA_VERSION
from .schema import SCHEMA
from .schema import VIEWS
from .updates import load_update
from .updates import save_update
from collections.abc import Generator
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from typing import Any
from typing import TextIO
import fcntl
import json
import sqlite3

class RunFolder:
    """Reads and writes one run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inbox: list[tuple[Any, ...]] = []
        self._events: list[tuple[Any, ...]] = []
        self._metrics: list[tuple[Any, ...]] = []
        self._continuations: list[tuple[Any, ...]] = []
        self._database: sqlite3.Connection | None = None
        self._lock: TextIO | None = None

    # -- making and opening

    @classmethod
    def create(cls, path: Path, config: str, environment: Mapping[str, Any]) -> RunFolder:
        """A new run's folder.

        Raises:
            RecordError: when there is a run already, or no folder can be made there.
        """
        if (path / "config.toml").exists():
            raise RecordError(f"{path} already holds a run; resume it, or give another folder with --out")
        if (path / "summary.json").exists() or any(path.glob("checkpoint-*.safetensors")):
            raise RecordError(f"{path} holds part of a run; remove it, or give another folder with --out")
        try:
            path.mkdir(parents=True, exist_ok=True)
            for left in path.glob("records.sqlite*"):  # by somebody who was killed just below
                left.unlink()
            folder = cls(path)
            folder.save_environment(environment)
            with folder.database() as db:
                db.execute("insert into meta values ('schema_version', ?)", (str(SCHEMA_VERSION),))
            write_text(path / "config.toml", config)  # last: a folder with a config is a run
        except (OSError, sqlite3.DatabaseError) as fault:
            raise RecordError(f"{path} cannot be written ({fault}); give another folder with --out") from None
        folder.lock()
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run's folder.

        Raises:
            RecordError: when it is none, or was written by another schema.
        """
        if not (path / "config.toml").is_file():
            raise RecordError(f"{path} is not a run folder (it has no config.toml); give the folder of a run")
        folder = cls(path)
        try:
            row = folder.database().execute("select value from meta where key = 'schema_version'").fetchone()
        except sqlite3.DatabaseError as fault:
            folder.close()
            raise RecordError(f"{path / 'records.sqlite'} cannot be read ({fault}); the run must start anew") from None
        if row is None or row[0] != str(SCHEMA_VERSION):
            folder.close()
            found = row[0] if row else "none"
            raise RecordError(
                f"{path} was written with schema {found}, this version reads {SCHEMA_VERSION}; use the version that "
                "environment.json names"
            )
        return folder

    def lock(self) -> None:
        """Keep other processes from writing here until this one closes the folder or dies.

        Raises:
            RecordError: when another process is at it.
        """
        self._lock = (self.path / "config.toml").open(encoding="utf-8")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise RecordError(f"{self.path} is being worked on by another process; wait for it, or stop it") from None

    def database(self) -> sqlite3.Connection:
        if self._database is None:
            self._database = sqlite3.connect(self.path / "records.sqlite", timeout=30)
            self._database.execute("pragma journal_mode = wal")
            self._database.execute("pragma synchronous = full")  # rows outlive a power cut, as their checkpoint does
            self._database.executescript(SCHEMA + VIEWS)
            there = {row[1] for row in self._database.execute("pragma table_info(metrics)")}
            for name in METRICS:  # a folder of an earlier version goes on without what it does not know
                if name not in there:
                    self._database.execute(f"alter table metrics add column {name} real")
        return self._database

    def close(self) -> None:
        if self._database is not None:
            self.flush()
            self._database.close()
            self._database = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

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
        self._events.append((seq, entry.at_s, entry.kind, entry.client, entry.task, entry.version, entry.staleness, detail))

    def add_metrics(self, seq: int, row: Mapping[str, float | None]) -> None:
        """One evaluation; `row` has the keys of METRICS."""
        self._metrics.append((seq, *(row[name] for name in METRICS)))

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
            places = ", ".join("?" * (len(METRICS) + 1))
            db.executemany("insert into continuations values (?, ?, ?, ?, ?)", self._continuations)
            db.executemany(f"insert into metrics (seq, {', '.join(METRICS)}) values ({places})", self._metrics)
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
            else:  # what clients found when they evaluated comes to nobody's ears again
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
        """Remember a word about the run, for good."""
        with self.database() as db:
            db.execute("insert or replace into meta values (?, ?)", (key, value))

    def noted(self, key: str) -> str | None:
        """What was noted under this key."""
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
            raise RecordError(f"{self.path / 'start.safetensors'} cannot be read ({fault})") from None

    def inbox(self) -> Generator[tuple[float, str, int, str], None, None]:
        """What the server heard, in order."""
        yield from self.database().execute("select at_s, kind, number, reason from inbox order by seq")

    def metrics(self) -> list[dict[str, float]]:
        """Every evaluation, in order."""
        rows = self.database().execute(f"select {', '.join(METRICS)} from metrics order by seq")
        return [dict(zip(METRICS, row, strict=True)) for row in rows]

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
        skeleton, tensors = tree.flatten(state)
        header = {"state": json.dumps(skeleton), "schema_version": str(SCHEMA_VERSION)}
        path = self.path / f"checkpoint-{seq:09d}.safetensors"
        save_tensors(path, tensors, header)
        for old in self.checkpoints()[:-2]:
            old.unlink()

    def checkpoints(self) -> list[Path]:
        """Checkpoint files, oldest first."""
        return sorted(self.path.glob("checkpoint-*.safetensors"))

    def load_checkpoint(self, device: str = "cpu") -> tuple[int, Any] | None:
        """The newest checkpoint that can be read, as (seq, state) with its tensors on `device`, or None."""
        for path in reversed(self.checkpoints()):
            try:
                with safe_open(path, framework="pt", device=device) as file:
                    header = file.metadata()
                    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            except Exception:
                continue
            return int(path.stem.split("-")[1]), tree.unflatten(json.loads(header["state"]), tensors)
        return None

    def drop_checkpoints(self) -> None:
        """Remove them all, and what is left of one whose writing was cut short."""
        for path in self.path.glob("checkpoint-*"):
            path.unlink()

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
            raise RecordError(f"{path} cannot be read ({fault}); remove it and resume the run") from None

    def save_environment(self, environment: Mapping[str, Any]) -> None:
        """Write down what decides the bits, where it was not known when the folder was made."""
        write_text(self.path / "environment.json", json.dumps(environment, indent=2) + "\n")

    def rewrite(self, config: str) -> None:
        """Give the run another configuration, such as a later end; it is not finished any more."""
        (self.path / "summary.json").unlink(missing_ok=True)
        write_text(self.path / "config.toml", config)

    def config(self) -> str:
        return (self.path / "config.toml").read_text(encoding="utf-8")

    def size_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.path.iterdir() if file.is_file())
