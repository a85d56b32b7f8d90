"""Finding and reading run folders."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.config import Config
from ..config.toml import read_toml
from ..core.errors import RecordError
from ..experiment.result import Result
from ..runs.folder import RunFolder

Metrics = Sequence[Mapping[str, Any]]
"""A run's evaluations in order, each with the keys of `fedecho.runs.schema.METRICS`."""


COMPARISON = "comparison.json"
"""What a comparison's folder is known by: its methods in order, its seeds, its reference."""


@dataclass(frozen=True)
class Run:
    """One run folder, finished or not.

    Attributes:
        path: the folder.
        label: the method as it was called: in a comparison's folder by its name there, else the configuration's.
        seed: of the run.
        config: what was run.
        result: its final numbers; None while it is not finished.
        metrics: its evaluations.
    """

    path: Path
    label: str
    seed: int
    config: Config
    result: Result | None
    metrics: list[dict[str, Any]]

    @property
    def live(self) -> bool:
        """Whether it ran on a live federation: its times are real seconds, its clients' delays their own."""
        return self.config.transport.name != "simulated"


def read_run(path: str | Path, label: str | None = None) -> Run:
    """One run folder.

    Raises:
        RecordError: when there is no run that can be read.
    """
    with contextlib.closing(RunFolder.open(Path(path))) as folder:
        config = Config.from_dict(read_toml(folder.path / "config.toml"))
        result = Result.of(folder)
        return Run(folder.path, label or config.method, config.experiment.seed, config, result, folder.metrics())


def find_runs(paths: Iterable[str | Path]) -> list[Run]:
    """The runs in these folders: each a run's own, a comparison's, or one that holds such folders.

    In a comparison's folder the methods come in the comparison's order, elsewhere by name; then by seed.

    Raises:
        RecordError: naming a folder in which there is no run.
    """
    runs: dict[Path, Run] = {}
    for path in map(Path, paths):
        if (path / "config.toml").is_file():
            runs.setdefault(path.resolve(), read_run(path))
            continue
        found = sorted(path.rglob("config.toml"), key=str)
        if not found:
            raise RecordError(f"{path} holds no run; give the folder of a run (--out of `fedecho run`) or a comparison")
        order = {name: place for place, name in enumerate(comparison(path).get("folders", []))}
        here = [read_run(file.parent, _label(file.parent, path)) for file in found]
        here.sort(key=lambda run: (order.get(run.path.parent.name, len(order)), run.label, run.seed))
        for run in here:
            runs.setdefault(run.path.resolve(), run)
    return list(runs.values())


def comparison(path: Path) -> dict[str, Any]:
    """What a comparison noted about itself in its folder; empty elsewhere."""
    try:
        found: dict[str, Any] = json.loads((path / COMPARISON).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _label(path: Path, root: Path) -> str | None:
    """In a comparison OUT/METHOD/seed-N, the method; `root` is OUT or above, or OUT/METHOD."""
    below = path.parent != root or root.name in comparison(root.parent).get("folders", [])
    return path.parent.name if path.name.startswith("seed-") and below else None
