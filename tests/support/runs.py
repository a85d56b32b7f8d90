"""Runs that are stopped, and what they leave behind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedecho import Result
from fedecho.experiment.setup import Setup
from fedecho.runs.folder import RunFolder

LOSSY = {"name": "mild", "dropout": 0.1, "available_fraction": 0.8, "day_s": 60.0, "latency_s": 0.01}


def records(path: Path) -> dict[str, Any]:
    """All that a run leaves behind and that must not depend on how often it was stopped."""
    folder = RunFolder.open(path)
    rows = [{name: value for name, value in row.items() if name != "wall_s"} for row in folder.metrics()]
    found = {"metrics": rows, "events": list(folder.events()), "inbox": list(folder.inbox())}
    folder.close()
    return {**found, "model": (path / "model.safetensors").read_bytes()}


def numbers(result: Result) -> dict[str, Any]:
    timed = ("wall_s", "server_s", "profile_s", "peak_memory_mb", "run_dir")
    return {name: value for name, value in result.to_dict().items() if name not in timed}


class Stop:
    """An observer that stops a run after so many events, as a crash of its own process would."""

    def __init__(self, events: int, folder: Path) -> None:
        self.left, self.folder = events, folder

    def started(self, setup: Setup) -> None: ...

    def progressed(self, setup: Setup) -> None:
        assert len(list(self.folder.glob("checkpoint-*"))) <= 2
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def evaluated(self, row: Mapping[str, float]) -> None: ...
