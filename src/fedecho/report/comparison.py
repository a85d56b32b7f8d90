"""What the differences between methods are worth: Student's t on paired differences, corrected for many claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ..objectives.base import Metric
from ..studies.curves import area
from ..studies.runs import Run
from ..studies.statistics import MeanInterval, Paired, Verdict, mean_interval, paired, verdicts
from .data import Group, Method

Key = TypeVar("Key")

LEVEL = 95
"""Confidence of intervals and verdicts, in percent."""


@dataclass(frozen=True)
class Judged:
    """One method's paired difference to another, and its verdict among all that its table claims."""

    difference: Paired
    verdict: Verdict


def interval(values: Sequence[float]) -> MeanInterval | None:
    """The mean over seeds and its interval; None without a value."""
    return mean_interval(values) if values else None


def difference(one: Method, other: Method, metric: Metric) -> Paired | None:
    """Final value of one method minus the other's, paired by seed.

    None without a seed that both have, and for a method that diverged on a seed: without that seed it would look better
    than it is.
    """
    ours, others = one.values(metric), other.values(metric)
    differences = [ours[seed] - others[seed] for seed in sorted(ours) if seed in others]
    if not differences or one.label == other.label or one.failed(metric) or other.failed(metric):
        return None
    return paired(differences, higher_is_better=metric.higher_is_better, level=LEVEL / 100)


def to_reference(group: Group, reference: Method, metric: Metric) -> dict[str, Judged]:
    """By label, every method of the group that has a difference to the reference, with the verdicts of one table."""
    differences = {method.label: difference(method, reference, metric) for method in group.methods}
    known = {label: one for label, one in differences.items() if one is not None}
    return _judged(known)


def every_pair(group: Group, metric: Metric) -> dict[tuple[str, str], Judged]:
    """By (row, column), each pair of ranked methods, with the verdicts of one table."""
    ranked = group.ranked
    upper = {
        (one.label, other.label): gap
        for place, one in enumerate(ranked)
        for other in ranked[place + 1 :]
        if (gap := difference(one, other, metric)) is not None
    }
    judged = _judged(upper)
    for (row, column), one in list(judged.items()):
        judged[column, row] = _turned(one)
    return judged


def _judged(differences: Mapping[Key, Paired]) -> dict[Key, Judged]:
    decided = verdicts(list(differences.values()), LEVEL / 100)
    return {key: Judged(gap, verdict) for (key, gap), verdict in zip(differences.items(), decided, strict=True)}


def _turned(judged: Judged) -> Judged:
    """The same comparison seen from the other method."""
    gap = judged.difference
    bounds = None if gap.interval is None else (-gap.interval[1], -gap.interval[0])
    turned = replace(gap, mean=-gap.mean, interval=bounds)
    opposite: dict[Verdict, Verdict] = {"ahead": "behind", "behind": "ahead"}
    return Judged(turned, opposite.get(judged.verdict, judged.verdict))


# -- numbers that follow from the curves


def mean_over_time(method: Method, metric: Metric, until_s: float) -> MeanInterval | None:
    """The area under the curve up to `until_s`, divided by that time."""
    areas = [area(run.metrics, until_s, metric.name) for run in method.finished if _known(run, metric)]
    return interval([value for value in areas if value == value])


def _known(run: Run, metric: Metric) -> bool:
    return any(row.get(metric.name) is not None for row in run.metrics)
