"""Comparing methods: the runs of methods × seeds, and the folder that holds them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config.config import Config
from ..config.toml import resolve
from ..core.errors import ConfigError
from ..experiment.result import Result
from .jobs import Failure, Job
from .runs import COMPARISON, Run, comparison, read_run


def plan(
    tables: Mapping[str, Any], methods: Sequence[str], seeds: Sequence[int], overrides: Sequence[str], out: Path
) -> list[Job]:
    """The jobs of methods × seeds; every configuration is checked before anything runs.

    Raises:
        ConfigError: with the faults of the first method that has any, or when the methods learn from different data.
    """
    jobs = []
    for method in methods:
        for seed in seeds:
            config = Config.from_dict(resolve(tables, method, [*overrides, f"experiment.seed={seed}"]))
            jobs.append(Job(method, seed, config, out / folder_of(method) / f"seed-{seed}"))
    datasets = {job.config.data.dataset: job.label for job in jobs}
    if len(datasets) > 1:
        examples = ", ".join(f"{label} {name!r}" for name, label in datasets.items())
        raise ConfigError(f"methods are compared on one data set; data.dataset is of {examples}: compare each alone")
    return sorted(jobs, key=lambda job: list(seeds).index(job.seed))


def folder_of(method: str) -> str:
    """The name of a method's folder in a comparison's."""
    return method.replace(":", "_").replace("/", "_")


def write_manifest(out: Path, methods: Sequence[str], seeds: Sequence[int], reference: str) -> None:
    """Write what a comparison is into its folder, for later readers. Methods of an earlier call stay in it."""
    before = comparison(out)
    methods = list(dict.fromkeys([*before.get("methods", []), *methods]))
    manifest = {
        "methods": methods,
        "folders": [folder_of(method) for method in methods],
        "seeds": sorted({*before.get("seeds", []), *seeds}),
        "reference": reference,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / COMPARISON).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def collect(jobs: Sequence[Job], results: Sequence[Result | Failure]) -> tuple[list[Run], dict[str, list[str]]]:
    """The runs of a comparison with their curves, method by method, and the reasons of those that failed."""
    runs: list[Run] = []
    failures: dict[str, list[str]] = {}
    order = {label: place for place, label in enumerate(dict.fromkeys(job.label for job in jobs))}
    for job, result in sorted(zip(jobs, results, strict=True), key=lambda pair: (order[pair[0].label], pair[0].seed)):
        if isinstance(result, Failure):
            failures.setdefault(job.label, []).append(f"seed {job.seed}: {result.reason}")
        else:
            runs.append(read_run(job.out, job.label))
    return runs, failures
