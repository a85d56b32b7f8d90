"""A table of methods: means over seeds, paired differences, and what they are worth."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from fedecho.core.errors import ConfigError
from fedecho.studies.runs import Run
from fedecho.studies.statistics import Verdict
from fedecho.studies.summary import Spread, Table, summarize
from studies.results import ACCURACY, LOSS, PERPLEXITY, a_result, a_run, curve, values


def runs_of(label: str, finals: list[float], slow: list[float] | None = None) -> list[Run]:
    """A finished run of a classifier for each final value."""
    return [
        a_run(a_result(label, seed, {ACCURACY: values(final, slow[seed] if slow else None), LOSS: values(1 - final)}))
        for seed, final in enumerate(finals)
    ]


def verdict_of(table: Table, label: str) -> Verdict | str:
    return next(row.verdict for row in table.rows if row.label == label)


def test_differences_are_paired_by_seed_with_an_interval_of_students_t() -> None:
    # by hand: a - b = .02, .03, .04, .03 → mean .03, std .0081650, standard error .0040825; t(.975, 3) = 3.1824
    runs = runs_of("a", [0.72, 0.93, 0.84, 0.63], [0.6, 0.7, 0.5, 0.6])
    runs += runs_of("b", [0.70, 0.90, 0.80, 0.60], [0.5, 0.9, 0.5, 0.6])
    table = summarize(runs)
    first, second = table.rows
    assert table.reference == "b"
    assert first.difference is not None
    assert first.difference.paired.mean == pytest.approx(0.03)
    assert first.difference.paired.half_width == pytest.approx(3.18245 * 0.00408248, rel=1e-4)
    assert first.verdict == "ahead"
    assert second.difference is None
    assert second.verdict == ""
    assert verdict_of(summarize(runs, reference="a"), "b") == "behind"
    assert first.slow_difference is not None
    assert first.slow_difference.paired.mean == pytest.approx((0.1 - 0.2) / 4)
    assert first.slow_difference.verdict == "tie"
    assert first.server_s == Spread(7.0, 0.0, 4), "training and judging are not the server's work"


def test_every_metric_is_summarized() -> None:
    table = summarize(runs_of("a", [0.7, 0.9]))
    assert [metric.name for metric in table.metrics] == ["accuracy", "loss"]
    row = table.rows[0]
    assert row.metrics["accuracy"].last_5_mean == Spread(pytest.approx(0.8), pytest.approx(0.1414214), 2)
    assert row.metrics["loss"].last_5_mean == Spread(pytest.approx(0.2), pytest.approx(0.1414214), 2)
    assert row.metrics["loss"].slow_clients is None
    json.dumps(table.to_dict(), allow_nan=False)


def test_a_lower_perplexity_is_ahead_and_reaches_the_target_from_above() -> None:
    def runs(label: str, finals: list[float]) -> list[Run]:
        results = [
            a_result(label, seed, {PERPLEXITY: values(final)}, "text", "language") for seed, final in enumerate(finals)
        ]
        return [
            a_run(result, curve((0, 90.0), (5, final + 1), (9, final), name="perplexity"))
            for result, final in zip(results, finals, strict=True)
        ]

    table = summarize(runs("low", [10.0, 10.2, 10.1, 9.9]) + runs("high", [12.0, 12.1, 12.2, 11.8]))
    assert verdict_of(table, "low") == "ahead"
    assert table.target == pytest.approx(10.6), "5 % above the lowest mean, 10.05, rounded up"
    assert [row.reached for row in table.rows] == [4, 0]
    assert table.rows[0].target_s == Spread(9.0, 0.0, 4)


def test_methods_with_the_same_bits_are_a_tie() -> None:
    runs = runs_of("a", [0.7, 0.8, 0.9, 0.6]) + runs_of("b", [0.7, 0.8, 0.9, 0.6])
    assert verdict_of(summarize(runs), "a") == "tie"


@pytest.mark.parametrize(("seeds", "verdict"), [(1, "too few seeds"), (3, "too few seeds"), (4, "ahead")])
def test_a_verdict_needs_four_seeds(seeds: int, verdict: str) -> None:
    a, b = [0.9, 0.91, 0.9, 0.92][:seeds], [0.5, 0.5, 0.51, 0.5][:seeds]
    assert verdict_of(summarize(runs_of("a", a) + runs_of("b", b)), "a") == verdict


def test_one_seed_has_no_spread() -> None:
    row = summarize(runs_of("a", [0.9]) + runs_of("b", [0.5])).rows[0]
    assert row.metrics["accuracy"].last_5_mean == Spread(0.9, None, 1)
    assert row.difference is not None
    assert row.difference.paired.half_width is None


def test_the_verdicts_of_a_table_are_corrected_together() -> None:
    """A difference with p = 0.03 is ahead alone, and a tie beside another method that is compared."""
    reference = [0.5, 0.5, 0.5, 0.5]
    runs = runs_of("a", [0.52, 0.53, 0.51, 0.505])  # t = 3.0 with 3 degrees of freedom, p = 0.0575
    clear = runs_of("a", [0.53, 0.52, 0.51, 0.515])  # t = 4.4, p = 0.022
    alone = summarize(clear + runs_of("ref", reference))
    assert verdict_of(alone, "a") == "ahead"
    assert verdict_of(summarize(runs + runs_of("ref", reference)), "a") == "tie"
    beside = [*clear, *runs_of("b", [0.6, 0.4, 0.55, 0.45]), *runs_of("c", [0.4, 0.6, 0.45, 0.55])]
    assert verdict_of(summarize(beside + runs_of("ref", reference)), "a") == "tie", "3 × 0.022 is above 0.05"


def test_the_default_target_is_short_of_the_best_mean() -> None:
    runs = [
        a_run(a_result("a", 0, {ACCURACY: values(0.80)})),
        a_run(a_result("b", 0, {ACCURACY: values(0.90)}), curve((0, 0.1), (6.0, 0.84), (10.0, 0.9))),
    ]
    table = summarize(runs)
    assert table.target == pytest.approx(0.85)
    assert [row.reached for row in table.rows] == [0, 1]
    assert table.rows[1].target_s == Spread(10.0, None, 1)
    lower = summarize(runs, target=0.8)
    assert [row.target_s.mean for row in lower.rows if row.target_s] == [10.0, 6.0]
    assert lower.rows[0].target_s_difference is not None
    assert lower.rows[0].target_s_difference.mean == 4.0


def test_a_method_that_failed_on_a_seed_is_not_compared() -> None:
    runs = [*runs_of("a", [0.9]), *runs_of("b", [0.8, 0.8])]
    rows = summarize(runs, "b", failures={"a": ["seed 1: diverged"], "c": ["seed 0: diverged"]}).rows
    assert [(row.label, row.verdict) for row in rows] == [("a", "failed"), ("b", ""), ("c", "failed")]
    assert rows[0].difference is None
    assert rows[2].metrics["accuracy"].last_5_mean is None


def test_a_run_whose_final_value_is_not_finite_failed() -> None:
    runs = [*runs_of("a", [0.9, 0.8]), *runs_of("b", [0.8, 0.8])]
    assert runs[1].result is not None
    broken = replace(runs[1].result, metrics={"accuracy": values(math.nan)})
    runs[1] = replace(runs[1], result=broken)
    row = summarize(runs).rows[0]
    assert (row.seeds, row.verdict, row.failed) == ((0,), "failed", ("seed 1: accuracy is nan",))


def test_unfinished_runs_are_left_out() -> None:
    runs = [*runs_of("a", [0.9]), replace(runs_of("a", [0.5, 0.1])[1], result=None)]
    assert summarize(runs).rows[0].metrics["accuracy"].last_5_mean == Spread(0.9, None, 1)


@pytest.mark.parametrize("different", ["dataset", "objective", "evaluate"])
def test_runs_of_different_tasks_are_not_compared(different: str) -> None:
    one = a_run(a_result("a", 0, {ACCURACY: values(0.9)}))
    changes = {different: "other"} if different != "evaluate" else {}
    other = a_run(
        a_result("b", 0, {ACCURACY: values(0.5)}, **changes), evaluate="validation" if not changes else "test"
    )
    with pytest.raises(ConfigError, match=r"a learned digits \(classification\) and b learned .*; compare each alone"):
        summarize([one, other])


def test_refusals_and_losses_are_added_up() -> None:
    results = [
        a_result("a", 0, {ACCURACY: values(0.9)}, refused=3, refused_by_kind={"norm": 2, "stale": 1}, lost=1),
        a_result(
            "a", 1, {ACCURACY: values(0.9)}, refused=30, refused_by_kind={"stale": 30}, warnings=["most were refused"]
        ),
    ]
    row = summarize([a_run(result) for result in results]).rows[0]
    assert (row.updates, row.refused, row.lost) == (20, 33, 1)
    assert list(row.refused_by_kind.items()) == [("stale", 31), ("norm", 2)]
    assert row.warnings == ("seed 1: most were refused",)


def test_runs_that_nobody_judged_have_a_row() -> None:
    table = summarize([a_run(a_result("a", 0, {})), a_run(a_result("b", 0, {}))])
    assert (table.judged, table.target) == (None, None)
    assert [(row.label, row.verdict) for row in table.rows] == [("a", ""), ("b", "")]
