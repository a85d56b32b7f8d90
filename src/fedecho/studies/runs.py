"""Finding and reading run folders. No class of a method is needed: tables, summary and evaluations are plain data."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..config.config import Config
from ..core.errors import ConfigError, RecordError
from ..experiment.result import Result
from ..objectives.base import Metric
from ..runs.folder import RunFolder

Metrics = Sequence[Mapping[str, Any]]
"""A run's evaluations in order. Of each metric NAME there are the columns NAME, slow_client_NAME and fast_client_NAME;
beside them lie updates, version, virtual_time_s, wall_s and others."""

COMPARISON = "comparison.json"
"""The file that marks a comparison's folder: its methods in order, its seeds, its reference."""


@dataclass(frozen=True)
class LearningTask:
    """What runs must have in common if their numbers are to be compared.

    Attributes:
        dataset: name of the data set.
        objective: name of the objective.
        evaluate: the part of the data that judges the model, "test" or "validation".
    """

    dataset: str
    objective: str
    evaluate: str = "test"

    def __str__(self) -> str:
        part = "" if self.evaluate == "test" else f" on the {self.evaluate} part"
        return f"{self.dataset} ({self.objective}{part})"


@dataclass(frozen=True)
class Run:
    """One run folder, finished or not.

    Attributes:
        path: the folder.
        label: the method's name: in a comparison's folder the name it has there, else that of the configuration.
        seed: of the run.
        tables: the configuration as plain tables.
        result: its final numbers; None while it is not finished.
        metrics: its evaluations.
        objective: name of the objective; "" where the run has not begun.
        metric_info: the fields of each `Metric` it is judged by, the first one first.
    """

    path: Path
    label: str
    seed: int
    tables: Mapping[str, Any]
    result: Result | None
    metrics: list[dict[str, Any]]
    objective: str = ""
    metric_info: Sequence[Mapping[str, Any]] = ()

    @cached_property
    def config(self) -> Config:
        """The configuration as objects.

        Raises:
            ConfigError: when this version cannot read it, or a class of the user's cannot be imported here.
        """
        return Config.from_dict(self.tables)

    def setting(self, table: str, name: str, default: Any = None) -> Any:
        """One setting as it stands in the configuration's file; `default` where it is not there."""
        settings = self.tables.get(table)
        return settings.get(name, default) if isinstance(settings, Mapping) else default

    @property
    def live(self) -> bool:
        """Whether it ran on a live federation: its times are real seconds, its delays are those of real clients."""
        return bool(self.setting("transport", "name", "simulated") != "simulated")

    @property
    def task(self) -> LearningTask:
        """What it learned."""
        dataset = self.result.dataset if self.result is not None else str(self.setting("data", "dataset", ""))
        return LearningTask(dataset, self.objective, str(self.setting("experiment", "evaluate", "test")))


def read_run(path: str | Path, label: str | None = None) -> Run:
    """One run folder.

    Raises:
        RecordError: when there is no run that can be read.
    """
    with contextlib.closing(RunFolder.open(Path(path))) as folder:
        tables = folder.tables()
        result = Result.of(folder)
        metrics = folder.metrics()
        objective = folder.noted("objective") or ""
        metric_info = folder.metric_info()
    if label is None:
        label = _method(tables) if result is None else result.algorithm
    seed = int(tables.get("experiment", {}).get("seed", 0))
    return Run(folder.path, label, seed, tables, result, metrics, objective, metric_info)


def _method(tables: Mapping[str, Any]) -> str:
    """The method's name, such as "fedbuff+echo"; where its classes cannot be imported, the names in the tables."""
    try:
        return Config.from_dict(tables).method
    except ConfigError:
        stages = tables.get("stages", [])
        parts = [tables.get("algorithm", {}), *([stages] if isinstance(stages, Mapping) else stages)]
        return "+".join(str(part.get("name", "?")).rpartition(":")[2] for part in parts)


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
        files = sorted(path.rglob("config.toml"), key=str)
        if not files:
            raise RecordError(f"{path} holds no run; give the folder of a run (--out of `fedecho run`) or a comparison")
        order = {name: place for place, name in enumerate(comparison(path).get("folders", []))}
        below = [read_run(file.parent, _label(file.parent, path)) for file in files]
        below.sort(key=lambda run: (order.get(run.path.parent.name, len(order)), run.label, run.seed))
        for run in below:
            runs.setdefault(run.path.resolve(), run)
    return list(runs.values())


def by_task(runs: Iterable[Run]) -> dict[LearningTask, list[Run]]:
    """The runs in groups that can be compared: one data set, one objective, judged by one part."""
    groups: dict[LearningTask, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.task, []).append(run)
    return groups


def require_one_task(runs: Iterable[Run]) -> None:
    """Refuse to compare runs that learned different things.

    Raises:
        ConfigError: naming the tasks and a method of each.
    """
    groups = by_task(run for run in runs if run.result is not None)
    if len(groups) > 1:
        examples = " and ".join(f"{group[0].label} learned {task}" for task, group in groups.items())
        raise ConfigError(
            f"runs of different data sets or objectives cannot be compared: {examples}; compare each alone"
        )


def metrics_of(runs: Iterable[Run]) -> list[Metric]:
    """The metrics that the runs are judged by, each once, in the objective's order."""
    metrics: dict[str, Metric] = {}
    for run in runs:
        for described in run.metric_info:
            metric = Metric.from_dict(described)
            metrics.setdefault(metric.name, metric)
    return list(metrics.values())


def comparison(path: Path) -> dict[str, Any]:
    """What the manifest in a comparison's folder says; empty in other folders."""
    try:
        manifest = json.loads((path / COMPARISON).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _label(path: Path, root: Path) -> str | None:
    """In a comparison OUT/METHOD/seed-N, the method; `root` is OUT or above, or OUT/METHOD."""
    below = path.parent != root or root.name in comparison(root.parent).get("folders", [])
    return path.parent.name if path.name.startswith("seed-") and below else None
