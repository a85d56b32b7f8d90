"""Recomputing a finished run from its records."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ..config.config import Config
from ..core.errors import ConfigError, RecordError
from ..core.imports import import_object
from ..core.messages import Event, LogEntry, Model
from ..runs.folder import RunFolder
from ..server.loop import Transport, serve
from ..simulation.replay import KeptTransport, ReplayTransport
from .build import prepare
from .live import prepare_live
from .observer import Observer
from .result import sha256
from .run import threads_restored
from .setup import Setup


@dataclass(frozen=True)
class Replayed:
    """The outcome of a replay.

    Attributes:
        model_sha256: of the recomputed model.
        recorded_sha256: of the recorded one.
        matches: whether they are equal.
        updates: accepted in the whole run.
        versions: made in the whole run.
        from_version: where the replay began: 0, or the version of the last checkpoint of a live run that kept no
            more.
    """

    model_sha256: str
    recorded_sha256: str
    matches: bool
    updates: int
    versions: int
    from_version: int = 0


def replay(
    run_dir: str | Path, observer: Observer | None = None, model: Callable[[], nn.Module] | None = None
) -> Replayed:
    """Recompute a finished run's model from its recorded events.

    Args:
        run_dir: the run's folder.
        observer: follows the replay.
        model: builds the module of a live run whose server learned, where it cannot be imported by its recorded name.

    Raises:
        RecordError: when the folder holds no finished run, or its record does not fit.
        ConfigError: when the module of a live run cannot be built here.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(threads_restored())
        folder = stack.enter_context(contextlib.closing(RunFolder.open(Path(run_dir))))
        summary = folder.summary()
        config = Config.from_dict(folder.tables())
        live = config.transport.name != "simulated"
        if summary is None:
            how = "start its ServerApp again to finish it" if live else f"`fedecho resume {run_dir}` finishes it"
            raise RecordError(f"{run_dir} is not finished; {how}")
        began = 0
        if live:
            setup, transport, began = _kept(folder, config, model)
        else:
            simulation = prepare(config)
            inbox = stack.enter_context(contextlib.closing(folder.inbox()))
            setup, transport = simulation, ReplayTransport(inbox, simulation.executor)
        recorder = _Silent(setup, observer)
        if observer is not None:
            observer.started(setup)
        stack.enter_context(contextlib.closing(setup))
        serve(setup.server, transport, recorder)
    digest, recorded = sha256(setup.server.output), str(summary["model_sha256"])
    state = setup.server.state
    return Replayed(digest, recorded, digest == recorded, state.updates, state.model.version, began)


def _kept(folder: RunFolder, config: Config, model: Callable[[], nn.Module] | None) -> tuple[Setup, Transport, int]:
    """The parts of a live run as it began, or as they were at its last checkpoint; what was heard from then on."""
    start = folder.load_start()
    if any(stage.needs_compute for stage in config.stages) and model is None:
        if not config.model.name:
            raise ConfigError(
                f"{folder.path} does not say how its model is built (the ServerApp gave a function that has no name to "
                "import it by); replay it from Python with fedecho.replay(run_dir, model=...)"
            )
        model = import_object(config.model.name, "model")
    setup = prepare_live(
        config,
        lambda learner: Model(0, start["weights"], start["buffers"]),
        model,
        start.get("unlabeled"),
        lambda judged: {},
        lambda learner, kept: {},
    )
    after = 0
    if config.records.keep == "checkpoint":
        checkpoint = folder.load_checkpoint(config.experiment.device)
        if checkpoint is None:
            raise RecordError(f'{folder.path} has no checkpoint to replay from; keep = "all" keeps the whole run')
        after, state = checkpoint
        setup.server.restore(state["server"])
    return setup, KeptTransport(folder.again(after)), setup.server.model.version


class _Silent:
    """A journal that keeps nothing."""

    def __init__(self, setup: Setup, observer: Observer | None) -> None:
        self._setup, self._observer = setup, observer

    def accept(self, event: Event) -> None: ...

    def commit(self, log: Sequence[LogEntry]) -> None:
        if self._observer is not None:
            self._observer.progressed(self._setup)
