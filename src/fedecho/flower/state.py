"""The state of a live run: its folder, new or as a server that ended left it, and where to go on from."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..config.config import Config
from ..config.toml import read_toml
from ..core.errors import ConfigError, RecordError
from ..core.messages import Event
from ..experiment.live_recorder import LiveRecorder
from ..experiment.run import warn_of_changes
from ..experiment.setup import Setup
from ..runs.folder import RunFolder
from .arguments import differences

log = logging.getLogger("flwr")

BEGAN = "began_at"
"""The key under which a run's folder holds when it began, in seconds since the epoch."""
STOPPED = "stopped_of"
"""The key under which it holds the versions that a run was started for which `stop_when` ended earlier."""


def open_folder(
    path: Path | None, tables: dict[str, Any], fixed_seed: bool, count_nodes: Callable[[], int]
) -> tuple[RunFolder | None, Config]:
    """The run's folder and what is run; the folder is locked.

    Args:
        path: of the folder; None keeps nothing.
        tables: the configuration's tables, with a drawn seed where none was given.
        fixed_seed: whether the seed was given.
        count_nodes: waits for the first nodes of a new run and counts them.

    Raises:
        ConfigError: when the folder holds a run with other settings.
        RecordError: when the folder cannot be read.
    """
    folder = None
    if path is not None and (path / "config.toml").is_file():
        folder = RunFolder.open(path)
        folder.lock()
    if folder is not None and folder.noted(BEGAN) is not None:
        return folder, _continued(folder, tables, fixed_seed)
    tables["data"]["clients"] = count_nodes()
    config = Config.from_dict(tables)
    if folder is not None:  # of a start that failed before any node was given work
        folder.rewrite(config.to_toml())
    elif path is not None:
        folder = RunFolder.create(path, config.to_toml(), {})
    return folder, config


def _continued(folder: RunFolder, tables: dict[str, Any], fixed_seed: bool) -> Config:
    """The configuration of a run that goes on: as it was, but for its end."""
    before = read_toml(folder.path / "config.toml")
    if folder.noted(STOPPED) == str(tables["experiment"]["versions"]):  # the same run: it ends where it was stopped
        tables["experiment"]["versions"] = before["experiment"]["versions"]
    tables["data"]["clients"] = before["data"]["clients"]
    if not fixed_seed:
        tables["experiment"]["seed"] = before["experiment"]["seed"]
    config = Config.from_dict(tables)
    changed = differences(before, config.to_dict())
    later_end = changed.pop("experiment.versions", None)
    if changed:
        folder.close()
        raise ConfigError(
            [
                f"{folder.path} holds another run: {text}; give the same settings, or another run_dir"
                for text in changed.values()
            ]
        )
    if later_end:
        folder.rewrite(config.to_toml())
    return config


def note_stop(folder: RunFolder, config: Config, version: int) -> None:
    """Write down that the run ends with this version, earlier than it was started for: a replay ends there too, and so
    does the run when it is started again with the same number of versions."""
    if config.experiment.versions == version:
        return
    folder.note(STOPPED, str(config.experiment.versions))
    tables = config.to_dict()
    tables["experiment"]["versions"] = version
    folder.rewrite(Config.from_dict(tables).to_toml())


def restore(
    folder: RunFolder, setup: Setup, journal: LiveRecorder, start: Mapping[str, Tensor]
) -> tuple[float, Iterator[Event] | None]:
    """Bring server and journal to the last checkpoint, or write down what a new run starts from.

    Args:
        folder: the run's.
        setup: its parts.
        journal: its journal.
        start: what a new run starts from: weights, buffers, and U where the server has one.

    Returns:
        when the run began, in seconds since the epoch, and what was heard since the checkpoint; None for a new run.

    Raises:
        RecordError: when there are events and no checkpoint that can be read.
    """
    began_at = float(folder.noted(BEGAN) or time.time())
    checkpoint = folder.load_checkpoint(setup.config.experiment.device)
    if checkpoint is not None:
        warn_of_changes(folder, setup)
        journal.restore(*checkpoint)
        version = setup.server.model.version
        log.info("Going on at version %s and what was heard after it (%s)", version, folder.path)
        return began_at, folder.again(checkpoint[0])
    if folder.heard:
        raise RecordError(
            f"{folder.path} has heard {folder.heard} events, and no checkpoint of it can be read: nothing is "
            "thrown away; restore a checkpoint, or give another run_dir"
        )
    folder.forget_after(-1)  # new, or killed before any node was given work
    folder.save_environment(setup.environment())
    folder.save_start(start)
    folder.note(BEGAN, repr(began_at))
    return began_at, None
