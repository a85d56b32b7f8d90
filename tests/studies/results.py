"""Results and runs with chosen numbers, for tests of what is computed from them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from fedecho.experiment.result import MetricResult, Result
from fedecho.objectives.base import Metric
from fedecho.studies.runs import Run

ACCURACY = Metric("accuracy", "accuracy", "share of the examples whose class is right", True, 4, True)
LOSS = Metric("loss", "loss", "mean cross-entropy", False, 4, unit="nats")
PERPLEXITY = Metric("perplexity", "perplexity", "exp of the mean cross-entropy", False, 3, axis="log")


def values(final: float | None, slow: float | None = None, averaged: int = 5) -> MetricResult:
    return MetricResult(final, averaged, final, final, slow, None)


def a_result(
    label: str,
    seed: int,
    metrics: dict[Metric, MetricResult],
    dataset: str = "digits",
    objective: str = "classification",
    **changes: Any,
) -> Result:
    costs = {"train_s": 9.0, "infer_s": 1.0, "distill_s": 2.0, "aggregate_s": 4.0, "evaluate_s": 8.0}
    result = Result(
        algorithm=label,
        seed=seed,
        dataset=dataset,
        objective=objective,
        metrics={metric.name: value for metric, value in metrics.items()},
        metric_info=[dataclasses.asdict(metric) for metric in metrics],
        versions=2,
        updates=10,
        refused=0,
        lost=0,
        virtual_time_s=7.0,
        wall_s=30.0,
        server_s=costs,
        peak_memory_mb=100.0,
        model_sha256="",
    )
    return dataclasses.replace(result, **changes)


def curve(*points: tuple[float, float], name: str = "accuracy") -> list[dict[str, Any]]:
    """(virtual seconds, value); ten updates a point."""
    return [{"virtual_time_s": at_s, name: value, "updates": 10 * i} for i, (at_s, value) in enumerate(points)]


def a_run(result: Result, metrics: list[dict[str, Any]] | None = None, evaluate: str = "test") -> Run:
    """A finished run; by default its curve goes from 0.1 to its final value in ten seconds."""
    judged = result.judged_metric
    if metrics is None and judged is not None and result.judged is not None:
        final = result.judged.last_5_mean
        metrics = curve((0.0, 0.1), (10.0, 0.0 if final is None else final), name=judged.name)
    tables = {"experiment": {"updates": 10, "evaluate": evaluate}, "data": {"dataset": result.dataset}}
    path, label = Path(result.algorithm), result.algorithm
    return Run(path, label, result.seed, tables, result, metrics or [], result.objective, result.metric_info)
