"""The same search for every method: each gets as many candidates, and the validation part decides."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from ..config.config import Config
from ..config.toml import resolve, value_of
from ..core.errors import ConfigError
from ..experiment.result import Result
from ..objectives.base import Metric
from .compare import folder_of
from .jobs import Failure, Job
from .summary import Spread

Grid = Mapping[str, Sequence[Any]]
"""Setting, as in `algorithm.lr`, to its candidates; every combination is tried."""


@dataclass(frozen=True)
class Candidate:
    """One point of a grid.

    Attributes:
        settings: of the point.
        score: the judged metric on the validation part, the mean of a run's last evaluations, over the seeds that have
            a finite one; None without any.
        metric: the metric that is judged; None without a result.
        failed: reasons of the runs that ended without a result.
        refused: updates refused in all runs together.
        updates: updates accepted in all runs together.
    """

    settings: dict[str, Any]
    score: Spread | None
    metric: Metric | None
    failed: tuple[str, ...] = ()
    refused: int = 0
    updates: int = 0

    @classmethod
    def of(cls, settings: dict[str, Any], runs: Sequence[Result | Failure]) -> Candidate:
        """The candidate with these settings, of its runs on all seeds."""
        results = [run for run in runs if isinstance(run, Result)]
        metric = next((run.judged_metric for run in results if run.judged_metric is not None), None)
        values = [run.judged.last_5_mean for run in results if run.judged is not None]
        scores = [value for value in values if value is not None and math.isfinite(value)]
        failed = [run.reason for run in runs if isinstance(run, Failure)]
        if metric is not None:
            failed += [
                f"{metric.label} is {value}" for value in values if value is not None and not math.isfinite(value)
            ]
        return cls(
            settings,
            Spread.of(scores) if scores else None,
            metric,
            tuple(failed),
            sum(run.refused for run in results),
            sum(run.updates for run in results),
        )

    @property
    def value(self) -> float:
        """The number it is ranked by, higher is better; a candidate that failed on any seed comes last."""
        if self.failed or self.score is None or self.metric is None:
            return -math.inf
        return self.metric.gain(self.score.mean, 0.0)


@dataclass(frozen=True)
class Choice:
    """The outcome of a search for one method: its candidates in the grid's order, and the best of them.

    Attributes:
        method: the method.
        candidates: all.
        best: the first with the highest value.
        at_edge: settings whose best value is the lowest or the highest of at least three tried: the best one may lie
            beyond.
    """

    method: str
    candidates: list[Candidate]
    best: Candidate
    at_edge: tuple[str, ...]


def own_grid(tables: Mapping[str, Any], method: str) -> dict[str, tuple[float, ...]]:
    """The grid that a method brings: its stage's step where it has a stage, else its rule's own.

    Raises:
        ConfigError: when its class names none.
    """
    config = Config.from_dict(resolve(tables, method))
    owner, table = (config.stages[-1], "stages") if config.stages else (config.algorithm, "algorithm")
    if not owner.grid:
        raise ConfigError(f"{method} brings no grid of its own; give one with --grid {table}.KEY=v1,v2,…")
    return {f"{table}.{name}": values for name, values in owner.grid.items()}


def plan(
    tables: Mapping[str, Any],
    grids: Mapping[str, Grid],
    seeds: Sequence[int],
    overrides: Sequence[str],
    out: Path,
) -> list[Job]:
    """The jobs of a search; every configuration is checked before anything runs.

    Raises:
        ConfigError: when a candidate is no valid configuration, or there is no validation part to judge by.
    """
    fixed = [*overrides, "experiment.evaluate=validation"]
    jobs = []
    for method, grid in grids.items():
        for settings in points(grid):
            for seed in seeds:
                assignments = [f"{key}={_toml_text(value)}" for key, value in settings.items()]
                config = Config.from_dict(resolve(tables, method, [*fixed, *assignments, f"experiment.seed={seed}"]))
                folder = out / folder_of(method) / ",".join(assignments) / f"seed-{seed}"
                jobs.append(Job(" ".join([method, *assignments]), seed, config, folder))
    return jobs


def points(grid: Grid) -> list[dict[str, Any]]:
    """Every combination of a grid's values."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def choose(grids: Mapping[str, Grid], seeds: Sequence[int], results: Sequence[Result | Failure]) -> list[Choice]:
    """The best candidate of every method; `results` are those of `plan`'s jobs, in their order."""
    remaining = iter(results)
    choices = []
    for method, grid in grids.items():
        candidates = [Candidate.of(settings, [next(remaining) for _ in seeds]) for settings in points(grid)]
        best = max(candidates, key=lambda candidate: candidate.value)
        edges = [
            key for key, values in grid.items() if len(values) > 2 and best.settings[key] in (min(values), max(values))
        ]
        choices.append(Choice(method, candidates, best, tuple(edges)))
    return choices


def tuned(tables: Mapping[str, Any], choices: Sequence[Choice]) -> dict[str, Any]:
    """The configuration's tables with every method's best settings as its variant: what `compare` is to be given."""
    variants = {name: dict(table) for name, table in tables.get("variants", {}).items()}
    for choice in choices:
        variant = variants.setdefault(choice.method, {})
        for key, value in choice.best.settings.items():
            node = variant
            *path, last = key.split(".")
            for name in path:
                node[name] = dict(node.get(name, {}))
                node = node[name]
            node[last] = value
    return {**tables, "variants": variants}


def write(out: Path, tables: Mapping[str, Any], choices: Sequence[Choice]) -> Path:
    """OUT/tuned.toml and OUT/tuning.json; the path of the first."""
    path = out / "tuned.toml"
    path.write_text(tomli_w.dumps(tuned(tables, choices)), encoding="utf-8")
    (out / "tuning.json").write_text(json.dumps([to_dict(choice) for choice in choices], indent=2) + "\n")
    return path


def to_dict(choice: Choice) -> dict[str, Any]:
    """A choice, ready for JSON."""
    candidates = [
        {
            "settings": candidate.settings,
            "mean": None if candidate.score is None else candidate.score.mean,
            "std": None if candidate.score is None else candidate.score.std,
            "failed": list(candidate.failed),
            "updates": candidate.updates,
            "refused": candidate.refused,
        }
        for candidate in choice.candidates
    ]
    metric = choice.best.metric
    return {
        "method": choice.method,
        "metric": None if metric is None else metric.name,
        "best": choice.best.settings,
        "at_edge": list(choice.at_edge),
        "candidates": candidates,
    }


def _toml_text(value: Any) -> str:
    """A value as an override writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else repr(value)


def read_grid(text: str) -> tuple[str, list[Any]]:
    """`key=v1,v2,…` as the command line gives it.

    Raises:
        ConfigError: when it is not of this form.
    """
    key, equals, values = text.partition("=")
    read = [value_of(value.strip()) for value in values.split(",") if value.strip()]
    if not equals or "." not in key or not read:
        raise ConfigError(f"--grid {text!r} is not `table.key=v1,v2,…`, for example algorithm.lr=0.1,0.3,1.0")
    if len({repr(value) for value in read}) != len(read):
        raise ConfigError(f"--grid {text!r} names a value twice; give different ones")
    return key.strip(), read
