"""Numbers that follow from one run's curve."""

from __future__ import annotations

import math
from itertools import pairwise

from .runs import Metrics


def area(metrics: Metrics, until_s: float, name: str = "accuracy") -> float:
    """The mean of a metric over virtual time from the first evaluation to `until_s` (trapezoids): the area under its
    curve divided by the time. NaN where there is no stretch of time."""
    points = [(float(row["virtual_time_s"]), float(row[name])) for row in metrics if row[name] is not None]
    total, first = 0.0, points[0][0] if points else math.nan
    for (a, left), (b, right) in pairwise(points):
        end = min(b, until_s)
        if end <= a:
            break
        at_end = left + (right - left) * (end - a) / (b - a)
        total += (end - a) * (left + at_end) / 2
    last = min(points[-1][0], until_s) if points else math.nan
    return total / (last - first) if points and last > first else math.nan


def reached(metrics: Metrics, target: float) -> tuple[int, float] | None:
    """Updates and virtual seconds at the first evaluation with an accuracy of at least `target`; None without one."""
    for row in metrics:
        if row["accuracy"] is not None and row["accuracy"] >= target:
            return int(row["updates"]), float(row["virtual_time_s"])
    return None
