"""Paired t verdicts, Holm's correction, and how often each rule names a false winner."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from fedecho.core.errors import ConfigError
from fedecho.studies.statistics import FEWEST, Paired, holm, mean_interval, paired, verdicts

TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
"""Student's t for 95 %, two-sided, by degrees of freedom, as printed tables give it."""


def comparison(p_value: float, mean: float = 1.0, pairs: int = 5) -> Paired:
    """A comparison with a given p-value; its interval plays no part in a verdict."""
    return Paired(mean, 1.0, (mean - 1, mean + 1), pairs - 1, p_value, pairs, 0.95, True)


@pytest.mark.parametrize(
    ("differences", "mean", "standard_error"),
    [
        ([1.0, 3.0], 2.0, 1.0),  # variance 2
        ([1.0, 2.0, 3.0], 2.0, 1 / math.sqrt(3)),  # variance 1
        ([1.0, 3.0, 5.0, 7.0], 4.0, math.sqrt(20 / 3 / 4)),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 3.0, math.sqrt(0.5)),  # variance 2.5
    ],
)
def test_the_interval_agrees_with_a_hand_computed_one(
    differences: list[float], mean: float, standard_error: float
) -> None:
    result = paired(differences)
    half_width = TABLE[len(differences) - 1] * standard_error
    assert result.mean == mean
    assert result.half_width == pytest.approx(half_width, rel=2e-4)  # the table has three decimals
    assert result.interval == pytest.approx((mean - half_width, mean + half_width), abs=1e-3)
    assert (result.degrees_of_freedom, result.pairs) == (len(differences) - 1, len(differences))
    assert mean_interval(differences) == (result.mean, result.half_width)


@pytest.mark.parametrize("pairs", [2, 3, 4, 5, 10, 40])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_numbers_agree_with_scipy(pairs: int, level: float) -> None:
    rng = np.random.default_rng(pairs)
    first, second = rng.normal(0.7, 0.05, pairs), rng.normal(0.68, 0.05, pairs)
    expected = stats.ttest_rel(first, second)
    low, high = expected.confidence_interval(level)
    result = paired(list(first - second), level=level)
    assert result.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert result.interval == pytest.approx((low, high), rel=1e-9)
    assert result.degrees_of_freedom == expected.df


@pytest.mark.parametrize("shift", [-3.0, -1.0, 0.0, 1.0, 3.0])
def test_a_winner_is_called_where_the_interval_leaves_out_zero(shift: float) -> None:
    differences = [shift + step for step in (-1.0, -0.5, 0.0, 0.5, 1.0)]  # half-width 0.98
    result = paired(differences)
    assert result.interval is not None
    outside = result.interval[0] > 0 or result.interval[1] < 0
    assert outside == (shift != 0)
    expected = "tie" if shift == 0 else "ahead" if shift > 0 else "behind"
    assert result.verdict == expected
    opposite = {"ahead": "behind", "behind": "ahead", "tie": "tie"}[expected]
    assert paired(differences, higher_is_better=False).verdict == opposite


def test_the_level_decides() -> None:
    differences = [0.0, 1.0, 2.0, 3.0]  # t = 2.32, p = 0.10
    assert paired(differences).verdict == "tie"
    assert paired(differences, level=0.8).verdict == "ahead"


def test_few_pairs_have_numbers_but_no_winner() -> None:
    single = paired([0.3])
    assert (single.mean, single.half_width, single.interval, single.p_value) == (0.3, None, None, None)
    assert (single.degrees_of_freedom, single.pairs, single.verdict) == (0, 1, "too few seeds")
    assert mean_interval([0.3]) == (0.3, None)
    for pairs in (2, 3):
        few = paired([10.0 + 0.001 * seed for seed in range(pairs)])
        assert few.interval is not None
        assert few.interval[0] > 9.9
        assert few.p_value is not None
        assert few.p_value < 0.001
        assert few.verdict == "too few seeds"
    assert paired([10.0 + 0.001 * seed for seed in range(FEWEST)]).verdict == "ahead"


@pytest.mark.parametrize("pairs", [4, 5, 7])
def test_equal_differences(pairs: int) -> None:
    """0.1 has no exact binary form: a plain sum would leave a standard error of rounding alone."""
    same = paired([0.0] * pairs)
    assert (same.mean, same.interval, same.p_value, same.verdict) == (0.0, (0.0, 0.0), 1.0, "tie")
    for value, verdict in ((0.1, "ahead"), (-0.1, "behind")):
        constant = paired([value] * pairs)
        assert (constant.mean, constant.interval) == (value, (value, value))
        assert (constant.half_width, constant.p_value, constant.verdict) == (0.0, 0.0, verdict)
    assert paired([0.0] * 3).verdict == paired([0.1] * 3).verdict == "too few seeds"


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e170, 1e300])
def test_very_large_and_very_small_values_stay_in_range(scale: float) -> None:
    """The perplexity of a poor model can be larger than the root of the largest float."""
    plain, scaled = paired([1.0, 2.0, 3.0, 5.0]), paired([scale, 2 * scale, 3 * scale, 5 * scale])
    assert scaled.p_value == pytest.approx(plain.p_value, rel=1e-9)
    assert plain.half_width is not None
    assert scaled.half_width == pytest.approx(plain.half_width * scale, rel=1e-9)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ConfigError, match=rf"not finite, got {value}; .*leave this method out"):
        paired([0.1, value, 0.2, 0.3])
    with pytest.raises(ConfigError, match="not finite"):
        mean_interval([value])


def test_other_bad_input_is_refused() -> None:
    for compute in (paired, mean_interval):
        with pytest.raises(ConfigError, match="run at least one seed"):
            compute([])
    for level in (0.0, 1.0, 95.0, math.nan):
        for refused in (paired, mean_interval):
            with pytest.raises(ConfigError, match=r"confidence level .* give 0\.95"):
                refused([1.0, 2.0], level=level)
        with pytest.raises(ConfigError, match="confidence level"):
            verdicts([], level)
    for p_value in (-0.1, 1.1, math.nan):
        with pytest.raises(ConfigError, match="p-value lies between 0 and 1"):
            holm([0.5, p_value])


def test_holm_agrees_with_a_hand_computed_example() -> None:
    """Sorted: 0.005 × 4 = 0.02, 0.01 × 3 = 0.03, 0.03 × 2 = 0.06, and 0.04 × 1 raised to the 0.06 before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([0.0, 1.0, 0.0]) == [0.0, 1.0, 0.0]
    assert holm([0.02, 0.02]) == [0.04, 0.04]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_holm_leaves_out_what_has_no_p_value() -> None:
    assert holm([None, 0.01, None, 0.04]) == [None, 0.02, None, 0.04]
    assert holm([None]) == [None]


def test_verdicts_are_corrected() -> None:
    table = [comparison(0.01), comparison(0.04, mean=-1.0), comparison(0.03), comparison(0.005, mean=-1.0)]
    assert [one.verdict for one in table] == ["ahead", "behind", "ahead", "behind"]
    assert verdicts(table) == ["ahead", "tie", "tie", "behind"]
    assert verdicts(table, 0.99) == ["tie"] * 4
    assert verdicts([]) == []


def test_comparisons_with_too_few_seeds_do_not_count_in_the_correction() -> None:
    few = [comparison(0.5, pairs=3), paired([0.3])]
    assert verdicts([comparison(0.02), *few, comparison(0.04)]) == ["ahead", "too few seeds", "too few seeds", "ahead"]


@pytest.mark.parametrize(("seeds", "generous_rate"), [(4, 0.139), (5, 0.116)])
def test_equal_methods_are_told_apart_at_the_stated_rate_only(seeds: int, generous_rate: float) -> None:
    trials = 4000  # the standard error of a rate of 5 % is 0.34 %
    rng = np.random.default_rng(seeds)
    differences = rng.normal(0.7, 0.02, (trials, seeds)) - rng.normal(0.7, 0.02, (trials, seeds))
    winners = sum(paired(row).verdict != "tie" for row in differences.tolist())
    assert winners / trials == pytest.approx(0.05, abs=0.011)
    standard_errors = differences.std(axis=1, ddof=1) / math.sqrt(seeds)
    generous = float(np.mean(np.abs(differences.mean(axis=1)) > 2 * standard_errors))
    assert generous > 0.10
    assert generous == pytest.approx(generous_rate, abs=0.017)


def test_a_table_of_equal_methods_names_a_winner_at_the_stated_rate_only() -> None:
    tables, methods, seeds = 800, 8, 5
    results = np.random.default_rng(0).normal(0.7, 0.02, (tables, methods, seeds))
    corrected = alone = 0
    for table in results:
        comparisons = [paired((first - second).tolist()) for first, second in itertools.combinations(table, 2)]
        corrected += set(verdicts(comparisons)) != {"tie"}
        alone += any(one.verdict != "tie" for one in comparisons)
    assert corrected / tables <= 0.06
    assert alone / tables > 0.30  # 28 uncorrected comparisons


def test_a_large_difference_is_found_after_correction() -> None:
    """A rule that never names a winner would pass the tests above."""
    rng = np.random.default_rng(1)
    base, better = rng.normal(0.7, 0.01, (2, 5))
    equal = [paired(rng.normal(0, 0.01, 5).tolist()) for _ in range(6)]
    assert verdicts([paired((better + 0.2 - base).tolist()), *equal])[0] == "ahead"


def test_scipy_is_imported_only_for_a_quantile() -> None:
    code = (
        "import sys; from fedecho.studies.statistics import paired; "
        "assert 'scipy.special' not in sys.modules; paired([1, 2, 3, 5]); assert 'scipy.special' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
