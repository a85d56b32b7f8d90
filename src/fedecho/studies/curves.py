"""Numbers that follow from one run's curve."""

from __future__ import annotations

import math
from itertools import pairwise

from ..objectives.base import Metric
from .runs import Metrics


def area(metrics: Metrics, until_s: float, name: str) -> float:
    """The mean of a metric over virtual time from the first evaluation to `until_s` (trapezoids): the area under its
    curve divided by the time. NaN where there is no stretch of time.

    The evaluation of the untrained model is the curve's beginning: without it the slow start of a slow method would
    not count.
    """
    points = [(float(row["virtual_time_s"]), float(row[name])) for row in metrics if row.get(name) is not None]
    total, first = 0.0, points[0][0] if points else math.nan
    for (a, left), (b, right) in pairwise(points):
        end = min(b, until_s)
        if end <= a:
            break
        at_end = left + (right - left) * (end - a) / (b - a)
        total += (end - a) * (left + at_end) / 2
    last = min(points[-1][0], until_s) if points else math.nan
    return total / (last - first) if points and last > first else math.nan


def reached(metrics: Metrics, target: float, metric: Metric) -> tuple[int, float] | None:
    """Updates and virtual seconds at the first evaluation at which the trained model is as good as `target`; None
    without one."""
    for row in metrics:
        value = row.get(metric.name)
        if value is not None and row["updates"] > 0 and metric.gain(value, target) >= 0:
            return int(row["updates"]), float(row["virtual_time_s"])
    return None


def default_target(metric: Metric, best_mean: float) -> float | None:
    """The value that is timed unless another is asked for: 5 % short of the best method's mean. A share is rounded down
    to a whole percent, other metrics to three digits, away from the best. None where that means nothing, as for a
    negative R²."""
    if not math.isfinite(best_mean) or best_mean <= 0:
        return None
    if metric.share and metric.higher_is_better:
        return math.floor(95 * best_mean) / 100
    value = best_mean * (0.95 if metric.higher_is_better else 1.05)
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    rounded = (math.floor if metric.higher_is_better else math.ceil)(round(value / unit, 9)) * unit
    return float(f"{rounded:.3g}")
