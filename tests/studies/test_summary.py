"""What is read off a run's curve, and what differences between methods are worth."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedecho.config.config import Config
from fedecho.core.errors import RecordError
from fedecho.experiment.result import Result
from fedecho.studies.compare import Failure, gather, plan, run_jobs, write_manifest
from fedecho.studies.curves import area, reached
from fedecho.studies.runs import Run, find_runs
from fedecho.studies.summary import Spread, summarize

CONFIG = Config.from_dict({"experiment": {"updates": 10}})


def curve(*points: tuple[float, float]) -> list[dict[str, Any]]:
    """(virtual seconds, accuracy); ten updates a point."""
    return [{"virtual_time_s": at_s, "accuracy": a, "updates": 10 * i} for i, (at_s, a) in enumerate(points)]


def a_run(label: str, seed: int, final: float, slow: float | None = None, metrics: Any = None) -> Run:
    costs = {"train_s": 9.0, "infer_s": 1.0, "distill_s": 2.0, "aggregate_s": 4.0, "evaluate_s": 8.0}
    result = Result(label, seed, "digits", 2, 10, 7.0, 30.0, final, final, slow, None, costs, 100.0, "", 0, 0)
    return Run(Path(label), label, seed, CONFIG, result, metrics or curve((0.0, 0.1), (10.0, final)))


def test_the_area_is_the_mean_over_virtual_time() -> None:
    assert area(curve((0, 0.0), (10, 1.0)), 10) == pytest.approx(0.5)
    assert area(curve((0, 0.0), (10, 1.0)), 5) == pytest.approx(0.25), "up to half way the mean is a quarter"
    assert area(curve((0, 0.0), (10, 1.0), (40, 1.0)), 40) == pytest.approx((5 + 30) / 40)
    assert area(curve((2, 0.4), (4, 0.6)), 4) == pytest.approx(0.5), "from the first evaluation, not from zero"
    assert area(curve((0, 0.0), (10, 1.0)), 1000) == pytest.approx(0.5), "nothing is assumed beyond the last"
    assert math.isnan(area(curve((0, 0.5)), 10))


def test_the_target_is_reached_at_the_first_evaluation_at_or_above_it() -> None:
    points = curve((0, 0.1), (3, 0.8), (5, 0.7), (9, 0.9))
    assert reached(points, 0.8) == (10, 3.0)
    assert reached(points, 0.81) == (30, 9.0)
    assert reached(points, 0.95) is None


def test_differences_are_paired_by_seed_and_judged_by_two_standard_errors() -> None:
    # by hand: mine − theirs = .02, .04 → mean .03, std .01414, standard error .01
    runs = [a_run("a", 0, 0.72, 0.6), a_run("a", 1, 0.94, 0.7), a_run("b", 0, 0.70, 0.5), a_run("b", 1, 0.90, 0.9)]
    first, second = summarize(runs).rows
    assert first.difference is not None
    assert first.difference.mean == pytest.approx(0.03)
    assert first.difference.standard_error == pytest.approx(0.01)
    assert first.verdict == "ahead"
    assert second.difference is None
    assert summarize(runs, reference="a").rows[1].verdict == "behind"
    assert first.slow_difference is not None
    assert first.slow_difference.mean == pytest.approx((0.1 - 0.2) / 2)
    assert first.slow_difference.verdict == "tie"
    assert first.server == Spread(7.0, 0.0, 2), "training and judging are not the server's work"
    assert Spread.of([0.1]).verdict == "one seed"


def test_the_default_target_is_95_percent_of_the_best_mean_rounded_down() -> None:
    runs = [a_run("a", 0, 0.80), a_run("b", 0, 0.90, metrics=curve((0, 0.1), (6.0, 0.84), (10.0, 0.9)))]
    table = summarize(runs)
    assert table.target == pytest.approx(0.85)
    assert [row.reached for row in table.rows] == [0, 1]
    assert table.rows[1].target_s == Spread(10.0, 0.0, 1)
    lower = summarize(runs, target=0.8)
    assert [row.target_s.mean for row in lower.rows if row.target_s] == [10.0, 6.0]
    assert lower.rows[0].target_s_difference == Spread(4.0, 0.0, 1)


def test_a_method_that_failed_on_a_seed_is_not_compared() -> None:
    runs = [a_run("a", 0, 0.9), a_run("b", 0, 0.8), a_run("b", 1, 0.8)]
    rows = summarize(runs, "b", failures={"a": ["seed 1: diverged"], "c": ["seed 0: diverged"]}).rows
    assert [(row.label, row.verdict) for row in rows] == [("a", "failed"), ("b", ""), ("c", "failed")]
    assert rows[2].final is None


def test_unfinished_runs_are_left_out_of_the_rows() -> None:
    runs = [a_run("a", 0, 0.9), replace(a_run("a", 1, 0.1), result=None)]
    assert summarize(runs).rows[0].final == Spread(0.9, 0.0, 1)


TABLES = {
    "experiment": {"updates": 20, "eval_every": 10},
    "data": {"clients": 6, "unlabeled_size": 30},
    "server": {"concurrency": 4, "buffer_size": 2},
    "variants": {"wild": {"method": "fedbuff", "client": {"lr": 1e30}}},
}


def test_a_comparison_is_found_again_in_its_order_and_a_failed_run_fails_alone(tmp_path: Path) -> None:
    methods = ["fedecho", "wild", "fedasync"]
    jobs = plan(TABLES, methods, [0, 1], [], tmp_path)
    write_manifest(tmp_path, methods, [0, 1], "fedasync")
    results = run_jobs(jobs, 2)
    runs, failures = gather(jobs, results)
    assert list(failures) == ["wild"]
    assert len(failures["wild"]) == 2
    assert all(isinstance(result, Failure) == (job.label == "wild") for job, result in zip(jobs, results, strict=True))
    found = find_runs([tmp_path])
    assert [(run.label, run.seed) for run in found if run.result] == [(m, s) for m in methods[::2] for s in (0, 1)]
    assert found[0].metrics == runs[0].metrics
    assert found[0].result == runs[0].result
    assert len(find_runs([tmp_path, tmp_path / "fedecho" / "seed-0"])) == len(found), "nothing twice"
    assert find_runs([tmp_path / "fedecho" / "seed-0"])[0].label == "fedbuff+echo"
    assert {run.label for run in find_runs([tmp_path / "fedecho", tmp_path / "fedasync"])} == {"fedecho", "fedasync"}
    write_manifest(tmp_path, ["fedbuff"], [7], "fedbuff")
    about = json.loads((tmp_path / "comparison.json").read_text())
    assert about["methods"] == [*methods, "fedbuff"]
    assert about["seeds"] == [0, 1, 7]


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"holds no run; give the folder of a run"):
        find_runs([tmp_path])
