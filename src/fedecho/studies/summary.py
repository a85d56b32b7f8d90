"""Many runs as one table: means over seeds, paired differences between methods, and what these are worth."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal

from ..experiment.result import Result
from ..objectives.base import Metric
from .curves import area, default_target, reached
from .runs import Run, metrics_of, require_one_task
from .statistics import Paired, Verdict, paired, verdicts

LEVEL = 0.95
"""Confidence level of intervals and verdicts."""

SERVER_KINDS = ("infer_s", "distill_s", "aggregate_s")
"""The kinds of work in `Result.server_s` that are the server's own."""


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of n values; `std` is None for one value."""

    mean: float
    std: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


@dataclass(frozen=True)
class MetricSpreads:
    """One metric of one method over the seeds. Each is None where no run has it.

    Attributes:
        last_5_mean: the mean of a run's last evaluations, five at most.
        averaged: the fewest and the most evaluations in these means.
        last: the last evaluation.
        best: the best evaluation.
        slow_clients: like `last_5_mean`, on the slow clients' data.
        fast_clients: likewise on the fast clients' data.
    """

    last_5_mean: Spread | None
    averaged: tuple[int, int]
    last: Spread | None
    best: Spread | None
    slow_clients: Spread | None
    fast_clients: Spread | None

    @classmethod
    def of(cls, name: str, results: Iterable[Result]) -> MetricSpreads:
        values = [result.metrics[name] for result in results if name in result.metrics]
        averaged = [value.averaged for value in values if value.averaged]
        return cls(
            last_5_mean=_spread(value.last_5_mean for value in values),
            averaged=(min(averaged, default=0), max(averaged, default=0)),
            last=_spread(value.last for value in values),
            best=_spread(value.best for value in values),
            slow_clients=_spread(value.slow_clients for value in values),
            fast_clients=_spread(value.fast_clients for value in values),
        )


@dataclass(frozen=True)
class Difference:
    """A method minus the reference, paired by seed, and its verdict among all rows of the table."""

    paired: Paired
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self.paired), "verdict": self.verdict}


@dataclass(frozen=True)
class Row:
    """One method: spreads over seeds, and differences to the reference method. None where nothing is known.

    Attributes:
        label: the method.
        seeds: those with a result.
        metrics: by the metric's name, in the table's order.
        area: mean of the judged metric over virtual time, up to the end of the comparison's shortest run.
        reached: runs that reached the target.
        target_s: virtual seconds to the target, of the runs that reached it.
        target_updates: updates to it.
        wall_s: real seconds a run.
        server_s: of these, the server's own: predictions on U, distillation and aggregation.
        memory_mb: peak memory of a run's process, MiB.
        updates: accepted in all runs together.
        refused: updates refused in all runs together.
        refused_by_kind: likewise, for each kind of reason, the most frequent first.
        lost: tasks lost in all runs together.
        warnings: what the runs warn of, with their seeds.
        difference: the judged metric minus the reference's.
        slow_difference: the judged metric on the slow clients' data, minus the reference's.
        target_s_difference: seconds to the target minus the reference's, over the seeds on which both reached it. It
            has no verdict: those seeds are chosen by the result.
        failed: why runs have no result, one reason each ("seed 3: diverged", …).
    """

    label: str
    seeds: tuple[int, ...]
    metrics: dict[str, MetricSpreads]
    area: Spread | None
    reached: int
    target_s: Spread | None
    target_updates: Spread | None
    wall_s: Spread | None
    server_s: Spread | None
    memory_mb: Spread | None
    updates: int
    refused: int
    refused_by_kind: dict[str, int]
    lost: int
    warnings: tuple[str, ...] = ()
    difference: Difference | None = None
    slow_difference: Difference | None = None
    target_s_difference: Paired | None = None
    failed: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict | Literal["failed", ""]:
        """Of the judged metric; "failed" if a run has no result, "" for the reference."""
        if self.failed:
            return "failed"
        return self.difference.verdict if self.difference is not None else ""

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        differences = (self.difference, self.slow_difference)
        difference, slow_difference = (one.to_dict() if one is not None else None for one in differences)
        return {
            **dataclasses.asdict(self),
            "difference": difference,
            "slow_difference": slow_difference,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Table:
    """A comparison's rows, and what they refer to.

    Attributes:
        rows: one per method.
        metrics: by which the runs are judged, the first one first; empty where nobody judged.
        reference: the method that differences are taken to.
        target: the value of the judged metric whose time is taken; None where there is none.
        until_s: the virtual time that every finished run has reached.
        seeds: all seeds in it.
        level: confidence level of intervals and verdicts.
    """

    rows: list[Row]
    metrics: list[Metric]
    reference: str
    target: float | None
    until_s: float
    seeds: list[int]
    level: float = LEVEL

    @property
    def judged(self) -> Metric | None:
        """The metric by which methods are ranked."""
        return self.metrics[0] if self.metrics else None

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {**dataclasses.asdict(self), "rows": [row.to_dict() for row in self.rows]}


def summarize(
    runs: Sequence[Run],
    reference: str | None = None,
    target: float | None = None,
    failures: Mapping[str, Sequence[str]] | None = None,
) -> Table:
    """One row per method, in the order in which they first appear.

    Args:
        runs: unfinished ones are left out.
        reference: the method that the others are compared with; by default the last.
        target: a value of the judged metric; by default 5 % short of the best method's mean.
        failures: method to the reasons of its runs that ended without a result.

    Raises:
        ConfigError: when the runs are of different data sets or objectives.
    """
    require_one_task(runs)
    metrics = metrics_of(runs)
    judged = metrics[0] if metrics else None
    methods: dict[str, dict[int, Run]] = {label: {} for label in dict.fromkeys(run.label for run in runs)}
    methods.update({label: {} for label in failures or () if label not in methods})
    reasons = {label: list((failures or {}).get(label, ())) for label in methods}
    for run in runs:
        if run.result is None:
            continue
        if (value := _judged_value(run.result, judged)) is not None and not math.isfinite(value):
            reasons[run.label].append(f"seed {run.seed}: {judged.label if judged else ''} is {value}")
        else:
            methods[run.label][run.seed] = run
    reference = list(methods)[-1] if reference is None else reference
    finished = [run for by_seed in methods.values() for run in by_seed.values()]
    if target is None and judged is not None:
        target = _default_target(judged, methods.values())
    until_s = min((run.metrics[-1]["virtual_time_s"] for run in finished if run.metrics), default=0.0)
    rows = [_row(label, runs_of, metrics, target, until_s, reasons[label]) for label, runs_of in methods.items()]
    if judged is not None:
        rows = _compared(rows, methods, reference, judged, target)
    return Table(rows, metrics, reference, target, until_s, sorted({run.seed for run in finished}))


def _judged_value(result: Result, judged: Metric | None) -> float | None:
    values = result.metrics.get(judged.name) if judged is not None else None
    return None if values is None else values.last_5_mean


def _default_target(judged: Metric, methods: Iterable[Mapping[int, Run]]) -> float | None:
    finals = [
        _spread(_judged_value(run.result, judged) for run in by_seed.values() if run.result is not None)
        for by_seed in methods
    ]
    best = judged.best(final.mean for final in finals if final is not None)
    return None if best is None else default_target(judged, best)


def _row(
    label: str,
    by_seed: Mapping[int, Run],
    metrics: Sequence[Metric],
    target: float | None,
    until_s: float,
    failed: Sequence[str],
) -> Row:
    """A method's row without its differences."""
    results = {seed: run.result for seed, run in by_seed.items() if run.result is not None}
    arrived = _arrivals(by_seed, metrics[0] if metrics else None, target).values()
    kinds: Counter[str] = Counter()
    for result in results.values():
        kinds.update(result.refused_by_kind)
    return Row(
        label=label,
        seeds=tuple(sorted(results)),
        metrics={metric.name: MetricSpreads.of(metric.name, results.values()) for metric in metrics},
        area=_spread(area(run.metrics, until_s, metrics[0].name) for run in by_seed.values()) if metrics else None,
        reached=len(arrived),
        target_s=_spread(at_s for _, at_s in arrived),
        target_updates=_spread(updates for updates, _ in arrived),
        wall_s=_spread(result.wall_s for result in results.values()),
        server_s=_spread(sum(result.server_s.get(kind, 0.0) for kind in SERVER_KINDS) for result in results.values()),
        memory_mb=_spread(result.peak_memory_mb for result in results.values()),
        updates=sum(result.updates for result in results.values()),
        refused=sum(result.refused for result in results.values()),
        refused_by_kind=dict(kinds.most_common()),
        lost=sum(result.lost for result in results.values()),
        warnings=tuple(f"seed {seed}: {text}" for seed, result in results.items() for text in result.warnings),
        failed=tuple(failed),
    )


def _arrivals(by_seed: Mapping[int, Run], judged: Metric | None, target: float | None) -> dict[int, tuple[int, float]]:
    """By seed, updates and virtual seconds to the target, of the runs that reached it."""
    if judged is None or target is None:
        return {}
    arrivals = {seed: reached(run.metrics, target, judged) for seed, run in by_seed.items()}
    return {seed: arrival for seed, arrival in arrivals.items() if arrival is not None}


def _compared(
    rows: Sequence[Row],
    methods: Mapping[str, Mapping[int, Run]],
    reference: str,
    judged: Metric,
    target: float | None,
) -> list[Row]:
    """The rows with their differences to the reference; the verdicts of one column are corrected together.

    A method that failed on a seed is not compared: without that seed it would look better than it is.
    """
    others = [row for row in rows if row.label != reference and not row.failed]

    def values(label: str, name: str) -> dict[int, float | None]:
        results = {seed: run.result for seed, run in methods.get(label, {}).items() if run.result is not None}
        return {
            seed: getattr(result.metrics[judged.name], name) if judged.name in result.metrics else None
            for seed, result in results.items()
        }

    def seconds(label: str) -> dict[int, float | None]:
        return {seed: at_s for seed, (_, at_s) in _arrivals(methods.get(label, {}), judged, target).items()}

    final = _differences(others, reference, lambda label: values(label, "last_5_mean"), judged.higher_is_better)
    slow = _differences(others, reference, lambda label: values(label, "slow_clients"), judged.higher_is_better)
    time = {row.label: _minus(seconds(row.label), seconds(reference), False) for row in others}
    return [
        dataclasses.replace(
            row,
            difference=final.get(row.label),
            slow_difference=slow.get(row.label),
            target_s_difference=time.get(row.label),
        )
        for row in rows
    ]


def _differences(
    rows: Sequence[Row],
    reference: str,
    values: Callable[[str], Mapping[int, float | None]],
    higher_is_better: bool,
) -> dict[str, Difference]:
    """By label, every method's difference to the reference, with the verdicts of one column."""
    pairs = {row.label: _minus(values(row.label), values(reference), higher_is_better) for row in rows}
    known = {label: pair for label, pair in pairs.items() if pair is not None}
    decided = verdicts(list(known.values()), LEVEL)
    return {label: Difference(pair, verdict) for (label, pair), verdict in zip(known.items(), decided, strict=True)}


def _minus(
    values: Mapping[int, float | None], reference: Mapping[int, float | None], higher_is_better: bool
) -> Paired | None:
    """Paired by seed, over the finite values of the seeds that both have; None without any."""
    gaps = []
    for seed in sorted(values.keys() & reference.keys()):
        left, right = values[seed], reference[seed]
        if left is not None and right is not None and math.isfinite(left) and math.isfinite(right):
            gaps.append(left - right)
    return paired(gaps, higher_is_better=higher_is_better, level=LEVEL) if gaps else None


def _spread(values: Iterable[float | None]) -> Spread | None:
    """Of the finite values; None if there is none."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return Spread.of(known) if known else None
