"""Running, resuming and replaying an experiment.

>>> from fedecho import Config, run
>>> config = Config.from_dict({"experiment": {"updates": 10}, "data": {"clients": 5, "unlabeled_size": 50},
...                            "server": {"concurrency": 4, "buffer_size": 2}})
>>> run(config).updates
10
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import tensorboard
from .assembly import Setup, prepare
from .config import Config, read_toml
from .errors import RecordError
from .messages import Event, Fact
from .recorder import Observer, Recorder, Result, sha256
from .records import RunFolder, environment
from .server import Journal, Transport, serve
from .transports.replay import ReplayTransport
from .transports.simulated import SimulatedTransport


def run(config: Config, out: str | Path | None = None, observer: Observer | None = None) -> Result:
    """Run an experiment.

    Args:
        config: what to run.
        out: the run folder to write; None keeps no records.
        observer: is told how it goes.

    Raises:
        ConfigError, DataError, MissingExtra: before anything is computed.
        RecordError: when `out` already holds a run.
        Stalled: when nothing is left to wait for.
        Interrupted: after Ctrl-C, with the run ready to be resumed.
    """
    if out is not None and config.records.tensorboard:
        tensorboard.require()
    setup = prepare(config)
    folder = None
    if out is not None:
        folder = RunFolder.create(Path(out), config.to_toml(), _environment(setup))
    return _drive(setup, Recorder(setup, folder, observer), _simulated(setup))


def resume(run_dir: str | Path, observer: Observer | None = None) -> Result:
    """Continue a stopped run from its last checkpoint; of a finished one, give its result again.

    The result equals that of a run that never stopped, bit for bit, on the same machine and versions.

    Raises:
        RecordError: when the folder holds no run that can be read.
    """
    with contextlib.closing(RunFolder.open(Path(run_dir))) as folder:
        folder.lock()
        if (result := Result.of(folder)) is not None:
            folder.drop_checkpoints()  # it may have been killed just before it did so itself
            return result
        setup = prepare(Config.from_dict(read_toml(folder.path / "config.toml")))
        recorder = Recorder(setup, folder, observer)
        _warn_of_changes(folder, setup)
        checkpoint = folder.load_checkpoint(setup.config.experiment.device)
        if checkpoint is None:
            folder.forget_after(-1)  # killed before its first checkpoint: begin again
        else:
            recorder.restore(*checkpoint)
        return _drive(setup, recorder, _simulated(setup))


@dataclass(frozen=True)
class Replayed:
    """What a replay came to: the recomputed model's digest, the recorded one, and whether they are equal."""

    model_sha256: str
    recorded_sha256: str
    matches: bool
    updates: int
    versions: int


def replay(run_dir: str | Path, observer: Observer | None = None) -> Replayed:
    """Recompute a finished run's model from its recorded events.

    Raises:
        RecordError: when the folder holds no finished run, or its record does not fit.
    """
    with contextlib.closing(RunFolder.open(Path(run_dir))) as folder:
        summary = folder.summary()
        if summary is None:
            raise RecordError(f"{run_dir} is not finished; `fedecho resume {run_dir}` finishes it")
        setup = prepare(Config.from_dict(read_toml(folder.path / "config.toml")))
        recorder = _Silent(setup, observer)
        if observer is not None:
            observer.started(setup)
        with contextlib.closing(setup.executor), contextlib.closing(folder.inbox()) as inbox:
            serve(setup.server, ReplayTransport(inbox, setup.executor), recorder)
    digest, recorded = sha256(setup.server.output), str(summary["model_sha256"])
    ledger = setup.server.ledger
    return Replayed(digest, recorded, digest == recorded, ledger.updates, ledger.model.version)


class _Silent:
    """A journal that keeps nothing."""

    def __init__(self, setup: Setup, observer: Observer | None) -> None:
        self._setup, self._observer = setup, observer

    def accept(self, event: Event) -> None: ...

    def commit(self, facts: Sequence[Fact]) -> None:
        if self._observer is not None:
            self._observer.progressed(self._setup)


def _environment(setup: Setup) -> dict[str, Any]:
    memory_format = "channels_last" if setup.learner.channels_last else "contiguous"
    return environment(setup.config.experiment.device, setup.config.executor.threads, memory_format)


def _warn_of_changes(folder: RunFolder, setup: Setup) -> None:
    """Say so when something that decides the bits is not what it was when the run began."""
    then, now = json.loads((folder.path / "environment.json").read_text(encoding="utf-8")), _environment(setup)
    changed = [f"{name} {then.get(name)} is now {value}" for name, value in now.items() if then.get(name) != value]
    if changed:
        warnings.warn(f"{folder.path}: {'; '.join(changed)}: the bits may differ from here on", stacklevel=3)


def _simulated(setup: Setup) -> Transport:
    ledger, data = setup.server.ledger, setup.data
    predicting = any(stage.needs_predictions for stage in setup.config.refine)
    model = setup.server.model
    down = 4 * (model.weights.numel() + model.buffers.numel())
    return SimulatedTransport(
        setup.population,
        setup.executor,
        down_bytes=down,
        up_bytes=down + (4 * len(data.unlabeled) * data.classes if predicting else 0),
        now_s=ledger.event_s,
        away=ledger.away,
        ends_at_s=math.inf if (limit := setup.config.experiment.virtual_time_s) is None else limit,
    )


def _drive(setup: Setup, recorder: Recorder, transport: Transport) -> Result:
    """Serve until the end, then write it down."""
    folder, observer = recorder.folder, recorder.observer
    if observer is not None:
        observer.started(setup)
    journal: Journal = recorder
    try:
        with _graceful(recorder):
            serve(setup.server, transport, journal)
        result = recorder.result()
        if folder is not None:
            folder.flush()
            folder.save_model(setup.learner.state_dict(setup.server.output))
            folder.save_summary(result.to_dict())
            folder.drop_checkpoints()
        return result
    finally:
        setup.executor.close()
        recorder.close()
        if folder is not None:
            folder.close()


@contextlib.contextmanager
def _graceful(recorder: Recorder) -> Iterator[None]:
    """Ctrl-C asks the run to stop after the event it is at; a second one stops it where it is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: Any) -> None:
        if recorder.stop_requested:
            raise KeyboardInterrupt
        recorder.stop_requested = True

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder that goes away."""
    return tempfile.TemporaryDirectory(prefix="fedecho-")
