"""The same search for every method: each gets as many candidates, and the validation part decides."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tomli_w

from ..config.config import Config
from ..config.toml import resolve, value_of
from ..core.errors import ConfigError
from ..experiment.result import Result
from .compare import Failure, Job, folder_of
from .summary import Spread

Grid = Mapping[str, Sequence[Any]]
"""Setting, as in `algorithm.lr`, to its candidates; every combination is tried."""


@dataclass(frozen=True)
class Candidate:
    """One point of a grid.

    Attributes:
        settings: of the point.
        score: final accuracy, or of a language model perplexity, on the validation part over the seeds that have a
            result; None without any.
        failed: reasons of the runs that ended without a result.
        measure: "accuracy", or "perplexity", of which less is better.
    """

    settings: dict[str, Any]
    score: Spread | None
    failed: tuple[str, ...] = ()
    measure: Literal["accuracy", "perplexity"] = "accuracy"

    @property
    def value(self) -> float:
        """What it is ranked by: a candidate that failed on any seed comes after all that did not."""
        if self.failed or self.score is None:
            return -math.inf
        return -self.score.mean if self.measure == "perplexity" else self.score.mean


@dataclass(frozen=True)
class Choice:
    """What a search came to for one method: its candidates in the grid's order, and the best of them.

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
                put = [f"{key}={_spelled(value)}" for key, value in settings.items()]
                config = Config.from_dict(resolve(tables, method, [*fixed, *put, f"experiment.seed={seed}"]))
                folder = out / folder_of(method) / ",".join(put) / f"seed-{seed}"
                jobs.append(Job(" ".join([method, *put]), seed, config, folder))
    return jobs


def points(grid: Grid) -> list[dict[str, Any]]:
    """Every combination of a grid's values."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def choose(grids: Mapping[str, Grid], seeds: Sequence[int], results: Sequence[Result | Failure]) -> list[Choice]:
    """The best candidate of every method; `results` are those of `plan`'s jobs, in their order."""
    left = iter(results)
    choices = []
    for method, grid in grids.items():
        candidates = []
        for settings in points(grid):
            runs = [next(left) for _ in seeds]
            done = [run for run in runs if isinstance(run, Result)]
            texts = [run.final_perplexity for run in done if run.final_perplexity is not None]
            scores = texts or [run.final_accuracy for run in done if run.final_accuracy is not None]
            failed = tuple(run.reason for run in runs if isinstance(run, Failure))
            measure: Literal["accuracy", "perplexity"] = "perplexity" if texts else "accuracy"
            candidates.append(Candidate(settings, Spread.of(scores) if scores else None, failed, measure))
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
            candidate.measure: None if candidate.score is None else candidate.score.mean,
            "std": None if candidate.score is None else candidate.score.std,
            "failed": list(candidate.failed),
        }
        for candidate in choice.candidates
    ]
    return {
        "method": choice.method,
        "best": choice.best.settings,
        "at_edge": list(choice.at_edge),
        "candidates": candidates,
    }


def _spelled(value: Any) -> str:
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
