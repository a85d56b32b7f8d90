"""The same search for every method, decided by the validation part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedecho.cli.main import main
from fedecho.config.config import Config
from fedecho.config.toml import read_toml, resolve
from fedecho.core.errors import ConfigError
from fedecho.experiment.result import Result
from fedecho.studies import tune
from fedecho.studies.jobs import Failure
from studies.results import ACCURACY, PERPLEXITY, a_result, values

TABLES: dict[str, Any] = {
    "experiment": {"updates": 20, "eval_every": 10},
    "data": {"clients": 6, "unlabeled_size": 30, "validation": 100},
    "server": {"concurrency": 4, "buffer_size": 2},
    "stages": [{"name": "echo", "steps": 2}],
    "variants": {"calm": {"method": "fedbuff", "server": {"ema": 0.5}}},
}


def result(accuracy: float) -> Result:
    return a_result("m", 0, {ACCURACY: values(accuracy)})


def test_every_method_brings_four_values_of_its_own_step() -> None:
    grids = {
        method: tune.own_grid(TABLES, method) for method in ("fedbuff", "calm", "fedasync", "fedecho", "ca2fl+echo")
    }
    assert {method: [*grid] for method, grid in grids.items()} == {
        "fedbuff": ["algorithm.lr"],
        "calm": ["algorithm.lr"],
        "fedasync": ["algorithm.mixing"],
        "fedecho": ["stages.lr"],
        "ca2fl+echo": ["stages.lr"],
    }
    assert {len(values) for grid in grids.values() for values in grid.values()} == {4}


def test_a_plan_holds_every_combination_on_every_seed_and_judges_by_the_validation_part(tmp_path: Path) -> None:
    grid = {"algorithm.lr": (0.5, 1.0), "client.lr": (0.1, 0.2, 0.3)}
    jobs = tune.plan(TABLES, {"fedbuff": grid}, [100, 101], ["client.epochs=1"], tmp_path)
    assert len(jobs) == 2 * 3 * 2
    assert len({job.out for job in jobs}) == len(jobs)
    assert {job.config.experiment.evaluate for job in jobs} == {"validation"}
    assert {job.config.client.epochs for job in jobs} == {1}
    assert [job.config.client.lr for job in jobs[:6:2]] == [0.1, 0.2, 0.3]
    without = {**TABLES, "data": {**TABLES["data"], "validation": 0}}
    with pytest.raises(ConfigError, match=r"data.validation is 0; keep some examples"):
        tune.plan(without, {"fedbuff": grid}, [100], [], tmp_path)


def test_the_best_mean_over_seeds_wins_and_an_edge_is_told() -> None:
    grids = {"a": {"algorithm.lr": (0.1, 0.2, 0.3)}, "b": {"algorithm.lr": (0.1, 0.2, 0.3)}}
    scores = [0.5, 0.6, 0.8, 0.7, 0.9, 0.4, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4]
    a, b = tune.choose(grids, [0, 1], [result(score) for score in scores])
    assert a.best.settings == {"algorithm.lr": 0.2}
    assert a.best.score is not None
    assert a.best.score.mean == pytest.approx(0.75)
    assert a.at_edge == ()
    assert b.best.settings == {"algorithm.lr": 0.3}
    assert b.at_edge == ("algorithm.lr",)


def test_a_candidate_that_failed_on_any_seed_comes_last() -> None:
    grid = {"a": {"algorithm.lr": (0.1, 0.2, 0.3)}}
    results = [result(0.1), result(0.1), result(0.99), Failure("diverged"), Failure("diverged"), Failure("diverged")]
    (choice,) = tune.choose(grid, [0, 1], results)
    assert choice.best.settings == {"algorithm.lr": 0.1}
    assert choice.candidates[1].failed == ("diverged",)


def test_the_lowest_perplexity_wins_and_one_that_is_infinite_comes_last() -> None:
    perplexities = [9.0, 4.0, float("inf"), 5.0]
    results = [a_result("m", 0, {PERPLEXITY: values(value)}, "text", "language") for value in perplexities]
    (choice,) = tune.choose({"a": {"algorithm.lr": (0.1, 0.2, 0.3, 0.4)}}, [0], results)
    assert choice.best.settings == {"algorithm.lr": 0.2}
    assert choice.candidates[2].failed == ("perplexity is inf",)
    assert tune.to_dict(choice)["metric"] == "perplexity"


def test_the_tuned_tables_are_the_old_ones_with_the_choices_as_variants() -> None:
    grids = {"calm": {"algorithm.lr": (0.1, 0.2)}, "fedecho": {"stages.lr": (0.1, 0.2)}}
    choices = tune.choose(grids, [0], [result(0.1), result(0.2), result(0.4), result(0.3)])
    tables = tune.tuned(TABLES, choices)
    assert TABLES["variants"] == {"calm": {"method": "fedbuff", "server": {"ema": 0.5}}}, (
        "the given ones are left alone"
    )
    calm = Config.from_dict(resolve(tables, "calm"))
    assert (calm.algorithm.lr, calm.server.ema) == (0.2, 0.5)  # type: ignore[attr-defined]
    echo = Config.from_dict(resolve(tables, "fedecho")).stages[0]
    assert (echo.lr, echo.steps) == (0.1, 2)  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["algorithm.lr", "lr=0.1", "algorithm.lr=", "algorithm.lr=0.1,0.1"])
def test_a_grid_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--grid"):
        tune.read_grid(text)


def test_the_command_searches_writes_what_compare_takes_and_continues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.toml"
    config.write_text(Config.from_dict({**TABLES, "algorithm": {"name": "fedbuff"}}).to_toml())
    command = ["tune", str(config), "--algorithm", "fedbuff", "--grid", "algorithm.lr=0.0001,1.0", "--jobs", "2"]
    out = tmp_path / "out"
    assert main([*command, "--seeds", "5,6", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert text.count("seed 5") == 2
    assert "algorithm.lr=1.0" in next(line for line in text.splitlines() if line.endswith("best"))
    note = "on the validation part, mean of the last evaluations, mean ± standard deviation over 2 seeds"
    assert note in " ".join(text.split())
    chosen = read_toml(out / "tuned.toml")
    assert chosen["variants"]["fedbuff"] == {"algorithm": {"lr": 1.0}}
    assert chosen["experiment"] == {
        **TABLES["experiment"],
        "seed": 0,
        "name": "experiment",
        "evaluate": "test",
        "device": "cpu",
        "continuations": 0,
    }
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("summary.json")}
    assert main([*command, "--seeds", "5,6", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["choices"][0]["best"] == {"algorithm.lr": 1.0}
    assert {path: path.stat().st_mtime_ns for path in out.rglob("summary.json")} == stamps, "nothing ran again"
    assert main(["compare", str(out / "tuned.toml"), "--algorithms", "fedbuff", "--seeds", "0"]) == 0
    assert main(["tune", str(config), "--algorithms", "fedbuff,ca2fl", "--grid", "algorithm.lr=1.0"]) == 2
    assert "--grid is for one method" in capsys.readouterr().err
