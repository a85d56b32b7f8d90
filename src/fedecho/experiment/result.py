"""The final numbers of a run."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import RecordError
from ..core.messages import Model
from ..objectives.base import Metric
from ..runs.folder import RunFolder

AVERAGED = 5
"""Evaluations that the final value of a metric is the mean of, at most."""


@dataclass(frozen=True)
class MetricResult:
    """One metric over a run. The evaluation at update 0 counts only where it is the only one.

    Attributes:
        last_5_mean: mean of the last evaluations, five at most; None where nothing was judged.
        averaged: how many evaluations that mean holds.
        last: the last evaluation.
        best: the best evaluation.
        slow_clients: like `last_5_mean`, on the slow clients' data; None where no client is slow or nothing is known.
        fast_clients: likewise on the fast clients' data.
    """

    last_5_mean: float | None
    averaged: int
    last: float | None
    best: float | None
    slow_clients: float | None
    fast_clients: float | None

    @classmethod
    def of(cls, metric: Metric, rows: Sequence[Mapping[str, Any]]) -> MetricResult:
        """The metric over these evaluation rows, which have the keys `updates`, `NAME`, `slow_client_NAME` and
        `fast_client_NAME`."""
        trained = [row for row in rows if row["updates"] > 0] or list(rows)

        def values(name: str) -> list[float]:
            return [row[name] for row in trained[-AVERAGED:] if row.get(name) is not None]

        def mean(name: str) -> float | None:
            numbers = values(name)
            return sum(numbers) / len(numbers) if numbers else None

        return cls(
            last_5_mean=mean(metric.name),
            averaged=len(values(metric.name)),
            last=trained[-1].get(metric.name) if trained else None,
            best=metric.best(row.get(metric.name) for row in trained),
            slow_clients=mean(f"slow_client_{metric.name}"),
            fast_clients=mean(f"fast_client_{metric.name}"),
        )


@dataclass(frozen=True)
class Result:
    """The final numbers of a run.

    Attributes:
        algorithm: the method, e.g. "fedbuff+echo".
        seed: of the run.
        dataset: name.
        objective: name of the objective.
        metrics: the value of each metric, in the objective's order; the first is the one that is judged.
        metric_info: the fields of each `Metric`, in the same order, so that readers need no classes.
        versions: model versions made.
        updates: updates accepted.
        refused: updates refused.
        refused_by_kind: how many updates were refused for each kind of reason, the most frequent first.
        lost: tasks lost.
        warnings: what a reader of the numbers should know, one sentence each.
        virtual_time_s: the transport's clock at the end.
        wall_s: real seconds, set-up not included.
        server_s: seconds of work by kind, in all processes: train_s, infer_s (predictions on U), distill_s, aggregate_s
            (the rest of what the server does with an event), evaluate_s.
        profile_s: where this process's time went since it started the run or resumed it, by kind: setup_s, the kinds of
            `server_s`, records_s, wait_s (for workers), engine_s (all else: the clock, handing jobs over).
        peak_memory_mb: the process's largest resident size, MiB.
        model_sha256: of the final weights' bytes.
        run_dir: where the records are, or None.
    """

    algorithm: str
    seed: int
    dataset: str
    objective: str
    metrics: dict[str, MetricResult]
    metric_info: list[dict[str, Any]]
    versions: int
    updates: int
    refused: int
    lost: int
    virtual_time_s: float
    wall_s: float
    server_s: dict[str, float]
    peak_memory_mb: float
    model_sha256: str
    refused_by_kind: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    profile_s: dict[str, float] = field(default_factory=dict)
    run_dir: str | None = None

    @property
    def judged(self) -> MetricResult | None:
        """The values of the metric that is judged; None where there are no metrics."""
        return next(iter(self.metrics.values()), None)

    @property
    def judged_metric(self) -> Metric | None:
        """The metric that is judged; None where there are no metrics."""
        return Metric.from_dict(self.metric_info[0]) if self.metric_info else None

    @classmethod
    def from_dict(cls, summary: Mapping[str, Any]) -> Result:
        """The result that `to_dict` wrote; keys of later versions are ignored.

        Raises:
            TypeError: when a key is missing.
        """
        known = {part.name for part in dataclasses.fields(cls)}
        parts = {name: value for name, value in summary.items() if name in known}
        fields = {part.name for part in dataclasses.fields(MetricResult)}
        parts["metrics"] = {
            name: MetricResult(**{key: value for key, value in values.items() if key in fields})
            for name, values in summary.get("metrics", {}).items()
        }
        return cls(**parts)

    @classmethod
    def of(cls, folder: RunFolder) -> Result | None:
        """The result of a finished run's folder; None while it is not finished.

        Raises:
            RecordError: when its summary lacks a number.
        """
        summary = folder.summary()
        if summary is None:
            return None
        try:
            return cls.from_dict({**summary, "run_dir": str(folder.path)})
        except (TypeError, AttributeError) as fault:
            raise RecordError(
                f"{folder.path / 'summary.json'} is not the summary of a run ({fault}); remove it and resume the run"
            ) from fault

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return dataclasses.asdict(self)


def sha256(model: Model) -> str:
    """Hash of the weights' bytes."""
    return hashlib.sha256(model.weights.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
