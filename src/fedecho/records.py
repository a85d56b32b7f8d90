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
    events   what it did: dispatch, accept, refuse, lost, cancel, join, leave, aggregate, refine; evaluate on live runs
    metrics  one row per evaluation, columns in METRICS
    continuations   of a language model, where asked for: what it makes of a few prompts at an evaluation
    jobs, accepted, refined    views of `events` with plain columns, for pandas and the like

A killed run loses nothing it needs. It goes back to its last checkpoint; a simulated one forgets the rows written after
it and computes them again to the same bits, a live one hears again what it had heard.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import sqlite3
import time
from collections.abc import Generator, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from . import tree
from .errors import RecordError
from .messages import Arrived, Event, Fact, Joined, Left, Lost, Rejected, Update, Wake

SCHEMA_VERSION = 1

METRICS: dict[str, str] = {
    "updates": "updates accepted so far",
    "version": "model versions made so far",
    "virtual_time_s": "seconds on the transport's clock",
    "wall_s": "seconds of real time the run has taken, over all its sittings",
    "staleness_mean": "mean staleness of the updates accepted since the last row, in versions",
    "staleness_max": "largest staleness of the updates accepted since the last row, in versions",
    "accuracy": "share of the judged examples (a language model's: tokens) that the model gets right",
    "loss": "mean cross-entropy on the judged examples, in nats",
    "slow_client_accuracy": "accuracy on the slow clients' own test examples where the data set says whose they are; "
    "else what is expected on data with the label distribution of the slow clients' data",
    "fast_client_accuracy": "likewise of the fast clients",
    "perplexity": "of a language model: exp(loss)",
    "slow_client_perplexity": "likewise on the slow clients' own test text",
    "fast_client_perplexity": "likewise on the fast clients' own test text",
    "train_loss": "mean of the clients' mean training losses since the last row, in nats",
    "refused": "updates refused so far",
    "lost": "tasks lost so far",
}
"""The glossary of every metric; also the columns of the table `metrics`, in order."""

_INTEGERS = {"updates", "version", "staleness_max", "refused", "lost"}

_SCHEMA = f"""
create table if not exists meta (key text primary key, value text);
create table if not exists inbox (seq integer primary key, at_s real, kind text, number integer, reason text);
create table if not exists events (
    id integer primary key, seq integer, at_s real, kind text, client integer, task integer, version integer,
    staleness integer, detail text);
create table if not exists continuations (
    seq integer, updates integer, virtual_time_s real, prompt text, text text);
create table if not exists metrics (
    seq integer, {", ".join(f"{name} {'integer' if name in _INTEGERS else 'real'}" for name in METRICS)});
"""


_FIELD = "case when json_valid({0}detail) then json_extract({0}detail, '$.{1}') end as {1}"
_ACCEPTED = ("num_examples", "waited_s", "change_norm", "loss")
_REFINED = ("stage", "rows", "uncertainty", "alpha", "loss")

_VIEWS = f"""
create view if not exists accepted as select seq, at_s, client, task, version, staleness,
    {", ".join(_FIELD.format("", name) for name in _ACCEPTED)}
    from events where kind = 'accept';
create view if not exists refined as select seq, at_s, version,
    {", ".join(_FIELD.format("", name) for name in _REFINED)}
    from events where kind = 'refine';
create view if not exists jobs as select began.task, began.client, began.version, began.at_s as began_s,
    ended.at_s as ended_s, ended.kind as ended, ended.staleness, {_FIELD.format("ended.", "reason")}
    from events began left join
    (select *, min(id) from events where kind in ('accept', 'refuse', 'lost', 'cancel') group by task) ended
    on ended.task = began.task where began.kind = 'dispatch';
"""
"""What is read most, with plain columns; `detail` stays where everything is."""


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
            _write(path / "config.toml", config)  # last: a folder with a config is a run
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
            self._database.executescript(_SCHEMA + _VIEWS)
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
            number = event.update.task
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
            _save_update(self._update_file(seq), event.update)
        self.add_inbox(seq, event)
        self.flush()

    def add_fact(self, seq: int, fact: Fact) -> None:
        """One thing that the server did."""
        detail = json.dumps(fact.detail) if fact.detail else None
        self._events.append((seq, fact.at_s, fact.kind, fact.client, fact.task, fact.version, fact.staleness, detail))

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
                yield Arrived(at_s, _load_update(self._update_file(seq)))
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
        _save_tensors(self.path / "start.safetensors", tensors, {"format": "pt"})

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
        _save_tensors(path, tensors, header)
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
        _save_tensors(self.path / "model.safetensors", state_dict, {"format": "pt"})

    def save_summary(self, summary: Mapping[str, Any]) -> None:
        _write(self.path / "summary.json", json.dumps(summary, indent=2) + "\n")

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
        _write(self.path / "environment.json", json.dumps(environment, indent=2) + "\n")

    def rewrite(self, config: str) -> None:
        """Give the run another configuration, such as a later end; it is not finished any more."""
        (self.path / "summary.json").unlink(missing_ok=True)
        _write(self.path / "config.toml", config)

    def config(self) -> str:
        return (self.path / "config.toml").read_text(encoding="utf-8")

    def size_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.path.iterdir() if file.is_file())


class Clock:
    """Wall seconds over all sittings of a run."""

    def __init__(self, before_s: float = 0.0) -> None:
        self._before_s, self._began = before_s, time.perf_counter()

    @property
    def seconds(self) -> float:
        return self._before_s + time.perf_counter() - self._began


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    _settle(part, path)


def _save_update(path: Path, update: Update) -> None:
    """An update as a file: its tensors, and the rest in the header."""
    tensors = {"weights": update.weights, "buffers": update.buffers}
    if update.predictions is not None:
        tensors["predictions"] = update.predictions
    tensors |= {f"extra/{name}": value for name, value in update.extra.items() if isinstance(value, Tensor)}
    numbers = {name: value for name, value in update.extra.items() if not isinstance(value, Tensor)}
    told = {"task": update.task, "num_examples": update.num_examples, "metrics": dict(update.metrics), "extra": numbers}
    path.parent.mkdir(exist_ok=True)
    _save_tensors(path, tensors, {"update": json.dumps(told)})


def _load_update(path: Path) -> Update:
    try:
        with safe_open(path, framework="pt") as file:
            told = json.loads(file.metadata()["update"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as fault:
        raise RecordError(f"{path} cannot be read ({fault}): what was heard since the checkpoint is needed") from None
    extra = {name.removeprefix("extra/"): value for name, value in tensors.items() if name.startswith("extra/")}
    return Update(
        told["task"],
        tensors["weights"],
        tensors["buffers"],
        told["num_examples"],
        told["metrics"],
        tensors.get("predictions"),
        {**told["extra"], **extra},
    )


def _save_tensors(path: Path, tensors: Mapping[str, Tensor], header: dict[str, str]) -> None:
    part = path.with_name(path.name + ".part")
    save_file({name: _own(tensor) for name, tensor in tensors.items()}, part, header)
    part.chmod(0o644)  # safetensors makes it private
    _settle(part, path)


def _settle(part: Path, path: Path) -> None:
    """Give a written file its name, so that a power cut leaves the old one or the new one, whole."""
    _sync(part)
    os.replace(part, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _own(tensor: Tensor) -> Tensor:
    """The tensor in memory of its own, as the file format asks."""
    tensor = tensor.detach().to("cpu").contiguous()
    return tensor.clone() if tensor.untyped_storage().nbytes() != tensor.numel() * tensor.element_size() else tensor


def environment(device: str, threads: int, memory_format: str) -> dict[str, Any]:
    """What decides the bits of a run."""
    return {
        "fedecho": version("fedecho"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": device,
        "threads": threads,
        "memory_format": memory_format,
    }
