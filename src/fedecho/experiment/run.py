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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..config.config import Config
from ..core.errors import RecordError
from ..runs import tensorboard
from ..runs.folder import RunFolder
from ..server.loop import Journal, Transport, serve
from ..simulation.transport import SimulatedTransport
from .build import prepare
from .observer import Observer
from .recorder import Recorder
from .result import Result
from .setup import Setup, Simulation


def run(config: Config, out: str | Path | None = None, observer: Observer | None = None) -> Result:
    """Run an experiment.

    Args:
        config: what to run.
        out: the run folder to write; None keeps no records.
        observer: follows the run.

    Raises:
        ConfigError, DataError, MissingExtra: before anything is computed.
        RecordError: when `out` already holds a run.
        Stalled: when nothing is left to wait for.
        Interrupted: after Ctrl-C, with the run ready to be resumed.
    """
    if out is not None:
        RunFolder.check_free(Path(out))  # before the data are loaded
        if config.records.tensorboard:
            tensorboard.require()
    with threads_restored():
        setup = prepare(config)
        folder = None
        if out is not None:
            folder = RunFolder.create(Path(out), config.to_toml(), setup.environment())
        return drive(setup, Recorder(setup, folder, observer), _simulated(setup))


def resume(run_dir: str | Path, observer: Observer | None = None) -> Result:
    """Continue a stopped run from its last checkpoint; of a finished one, give its result again.

    The result equals that of a run that never stopped, bit for bit, on the same machine and versions.

    Raises:
        RecordError: when the folder holds no run that can be read.
    """
    with contextlib.closing(RunFolder.open(Path(run_dir))) as folder, threads_restored():
        if folder.tables().get("transport", {}).get("name", "simulated") != "simulated":
            raise RecordError(f"{run_dir} is a run on a live federation; start its ServerApp again: it continues there")
        if (result := Result.of(folder)) is not None and not any(folder.path.glob("checkpoint-*")):
            return result
        folder.lock()
        if result is not None:
            folder.drop_checkpoints()  # it was killed just before it did so itself
            return result
        setup = prepare(Config.from_dict(folder.tables()))
        recorder = Recorder(setup, folder, observer)
        warn_of_changes(folder, setup)
        checkpoint = folder.load_checkpoint(setup.config.experiment.device)
        if checkpoint is None:
            folder.forget_after(-1)  # killed before its first checkpoint: begin again
        else:
            recorder.restore(*checkpoint)
        return drive(setup, recorder, _simulated(setup))


@contextlib.contextmanager
def threads_restored() -> Iterator[None]:
    """Run with the configuration's number of torch threads, and give the process its own back."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def warn_of_changes(folder: RunFolder, setup: Setup) -> None:
    """Say so when something that decides the bits is not what it was when the run began."""
    before, now = json.loads((folder.path / "environment.json").read_text(encoding="utf-8")), setup.environment()
    changed = [f"{name} {before.get(name)} is now {value}" for name, value in now.items() if before.get(name) != value]
    if changed:
        warnings.warn(f"{folder.path}: {'; '.join(changed)}: the bits may differ from here on", stacklevel=3)


def _simulated(setup: Simulation) -> Transport:
    state, sizes = setup.server.state, setup.sizes
    return SimulatedTransport(
        setup.population,
        setup.executor,
        down_bytes=sizes.down_bytes,
        up_bytes=sizes.up_bytes,
        now_s=state.event_s,
        away=state.away,
        ends_at_s=math.inf if (limit := setup.config.experiment.virtual_time_s) is None else limit,
    )


def drive(setup: Setup, recorder: Recorder, transport: Transport) -> Result:
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
            folder.save_model(setup.export(setup.server.output))
            folder.save_summary(result.to_dict())
            recorder.finish()
        return result
    finally:
        setup.close()
        recorder.close()
        if folder is not None:
            folder.close()


@contextlib.contextmanager
def _graceful(recorder: Recorder) -> Iterator[None]:
    """Ctrl-C asks the run to stop after the present event; a second one stops it at once."""
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
    """A folder that is removed at the end."""
    return tempfile.TemporaryDirectory(prefix="fedecho-")
