"""Verdicts on paired differences between two methods over the same seeds.

Two methods that share a seed share the data, the clients and the delays; only the difference within a seed counts.
The test is Student's t on these differences (Student, *The Probable Error of a Mean*, Biometrika 6, 1908), two-sided.
A rule of "two standard errors" is too generous with few seeds: of two equal methods with normal results it calls one
the winner in 18 % of comparisons over 3 seeds, and in 12 % over 5. The t interval keeps its level at any number of
seeds. A table of many comparisons needs one more step, because each has its own chance of a false winner: `verdicts`
corrects the p-values (Holm, *A Simple Sequentially Rejective Multiple Test Procedure*, Scand. J. Statist. 6, 1979).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ..core.errors import ConfigError

__all__ = ["FEWEST", "MeanInterval", "Paired", "Verdict", "holm", "mean_interval", "paired", "verdicts"]

Verdict = Literal["ahead", "behind", "tie", "too few seeds"]

FEWEST = 4
"""Below this number of pairs no winner is called."""


class MeanInterval(NamedTuple):
    """The mean of one method's seeds, and the half-width of its t interval (None for a single value)."""

    mean: float
    half_width: float | None


@dataclass(frozen=True)
class Paired:
    """One method against another over the same seeds.

    Attributes:
        mean: mean difference, first method minus second, in the unit of the metric.
        half_width: half-width of the t interval around the mean; None with a single pair.
        interval: (low, high), which is mean ± half_width; None with a single pair.
        degrees_of_freedom: pairs - 1.
        p_value: two-sided, of the hypothesis that the true mean difference is 0; None with a single pair.
        pairs: number of seeds that both methods have.
        level: confidence level of the interval and of `verdict`, between 0 and 1.
        higher_is_better: whether a positive difference favours the first method.
    """

    mean: float
    half_width: float | None
    interval: tuple[float, float] | None
    degrees_of_freedom: int
    p_value: float | None
    pairs: int
    level: float
    higher_is_better: bool

    @property
    def verdict(self) -> Verdict:
        """What this comparison says of the first method, taken alone; see `verdicts` for one of many."""
        return _verdict(self, self.p_value, self.level)


def paired(differences: Sequence[float], *, higher_is_better: bool = True, level: float = 0.95) -> Paired:
    """Compare two methods by their differences, first minus second, one per seed that both have.

    Below `FEWEST` pairs the verdict is "too few seeds", whatever the differences are.
    If all differences are the same number, the standard error is 0 and the interval is that one point: differences
    of 0 are a tie with p = 1; any other number makes t infinite, so p = 0 and the method is ahead or behind.

    Raises:
        ConfigError: no difference, one that is not finite, or a level outside (0, 1). A result that is not finite is
            not dropped here: without the seeds on which it diverges, a method looks better than it is. The caller
            leaves out a seed only if one of the two methods has no run of it.
    """
    _check_level(level)
    mean, standard_error = _mean_and_standard_error(differences)
    pairs = len(differences)
    if standard_error is None:
        return Paired(mean, None, None, pairs - 1, None, pairs, level, higher_is_better)
    half_width = _quantile(level, pairs - 1) * standard_error
    interval = (mean - half_width, mean + half_width)
    p_value = _p_value(mean, standard_error, pairs - 1)
    return Paired(mean, half_width, interval, pairs - 1, p_value, pairs, level, higher_is_better)


def mean_interval(values: Sequence[float], level: float = 0.95) -> MeanInterval:
    """The mean of one method's results, one per seed, and the half-width of its t interval.

    Two such intervals may overlap although the paired difference is clear: use `paired` to compare methods.

    Raises:
        ConfigError: no value, one that is not finite, or a level outside (0, 1).
    """
    _check_level(level)
    mean, standard_error = _mean_and_standard_error(values)
    if standard_error is None:
        return MeanInterval(mean, None)
    return MeanInterval(mean, _quantile(level, len(values) - 1) * standard_error)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values, in the order given.

    The i-th smallest of m p-values is multiplied by m - i + 1, then raised to the largest product before it, and
    capped at 1. Rejecting every adjusted value below α keeps the chance of one false rejection or more at α or less,
    whether or not the comparisons depend on each other. A None stays None and does not count in m.

    Raises:
        ConfigError: a p-value outside [0, 1].
    """
    ranked: list[tuple[float, int]] = []
    for position, p_value in enumerate(p_values):
        if p_value is None:
            continue
        if not 0 <= p_value <= 1:
            raise ConfigError(f"a p-value lies between 0 and 1, got {p_value}; give None where there is no test")
        ranked.append((float(p_value), position))
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p_value, position) in enumerate(sorted(ranked)):
        largest = max(largest, min(1.0, (len(ranked) - rank) * p_value))
        adjusted[position] = largest
    return adjusted


def verdicts(comparisons: Sequence[Paired], level: float = 0.95) -> list[Verdict]:
    """The verdicts of all comparisons in one table, corrected with Holm's method.

    The chance that a table names one false winner or more is at most 1 - `level`. Comparisons with fewer than
    `FEWEST` pairs name no winner, so they do not count in the correction. The intervals stay those of single
    comparisons: one that leaves out 0 may still come with the verdict "tie".

    Raises:
        ConfigError: a level outside (0, 1).
    """
    _check_level(level)
    adjusted = holm([one.p_value if one.pairs >= FEWEST else None for one in comparisons])
    return [_verdict(one, p_value, level) for one, p_value in zip(comparisons, adjusted, strict=True)]


def _verdict(comparison: Paired, p_value: float | None, level: float) -> Verdict:
    if p_value is None or comparison.pairs < FEWEST:
        return "too few seeds"
    if not p_value < 1 - level:
        return "tie"
    return "ahead" if (comparison.mean > 0) == comparison.higher_is_better else "behind"


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ConfigError(f"a confidence level lies between 0 and 1, got {level}; give 0.95 for 95 %")


def _mean_and_standard_error(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean and its standard error (None for a single value).

    The standard library sums exactly, so equal values have a standard error of exactly 0. The values are scaled by
    a power of two, which loses nothing, because Python 3.10 rounds the variance to a float: the squares of very
    large or very small values would leave its range.
    """
    if len(values) == 0:
        raise ConfigError("no result to compute a mean over; run at least one seed (for a comparison: of both methods)")
    numbers = [float(value) for value in values]
    for number in numbers:
        if not math.isfinite(number):
            raise ConfigError(
                f"a result over seeds is not finite, got {number}; the run diverged or recorded no value: "
                "find out why, or leave this method out"
            )
    largest = max(abs(number) for number in numbers)
    if largest == 0:
        return 0.0, (0.0 if len(numbers) > 1 else None)
    scale = 2.0 ** (math.frexp(largest)[1] - 1)
    scaled = [number / scale for number in numbers]
    mean = statistics.mean(scaled) * scale
    if len(numbers) == 1:
        return mean, None
    return mean, statistics.stdev(scaled) / math.sqrt(len(numbers)) * scale


def _quantile(level: float, degrees_of_freedom: int) -> float:
    """The t that holds `level` of Student's distribution between -t and t."""
    from scipy.special import stdtrit  # type: ignore[import-untyped]  # slow to import, and rarely needed

    return float(stdtrit(degrees_of_freedom, (1 + level) / 2))


def _p_value(mean: float, standard_error: float, degrees_of_freedom: int) -> float:
    """The two-sided p-value of t = mean / standard_error."""
    from scipy.special import stdtr

    if standard_error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stdtr(degrees_of_freedom, -abs(mean / standard_error)))
