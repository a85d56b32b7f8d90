"""The final numbers of a run, and what readers of a run need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fedecho import Config, RecordError, Result, resume, run
from fedecho.experiment import build
from fedecho.experiment.recorder import _warnings
from fedecho.experiment.result import MetricResult
from fedecho.objectives.base import Metric
from fedecho.runs.folder import RunFolder

UP = Metric("x", "x", "", True)
DOWN = Metric("x", "x", "", False)

TABLES: dict[str, Any] = {
    "experiment": {"updates": 20, "eval_every": 5},
    "data": {"clients": 8, "unlabeled_size": 40},
    "model": {"hidden": [8]},
    "client": {"epochs": 1},
    "server": {"concurrency": 4, "buffer_size": 2},
}


def rows(*values: float | None, slow: float | None = None) -> list[dict[str, Any]]:
    return [{"updates": 10 * i, "x": value, "slow_client_x": slow} for i, value in enumerate(values)]


def test_the_mean_of_the_last_five_by_hand() -> None:
    result = MetricResult.of(UP, rows(9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, slow=0.5))
    assert result == MetricResult(4.0, 5, 6.0, 6.0, 0.5, None)
    assert MetricResult.of(DOWN, rows(0.0, 1.0, 2.0)) == MetricResult(1.5, 2, 2.0, 1.0, None, None)
    assert MetricResult.of(UP, rows(9.0)) == MetricResult(9.0, 1, 9.0, 9.0, None, None), "there is no other"
    assert MetricResult.of(UP, rows(9.0, None, 2.0, None)) == MetricResult(2.0, 1, None, 2.0, None, None)
    assert MetricResult.of(UP, []) == MetricResult(None, 0, None, None, None, None)


def test_a_summary_of_a_later_version_and_a_rule_that_is_gone(tmp_path: Path) -> None:
    """Readers need neither its keys nor its classes."""
    expected = run(Config.from_dict(TABLES), tmp_path / "run")
    summary, config = tmp_path / "run" / "summary.json", tmp_path / "run" / "config.toml"
    values = json.loads(summary.read_text())
    values["of_a_later_version"] = 1
    values["metrics"]["accuracy"]["of_a_later_version"] = 2
    values["metric_info"][0]["of_a_later_version"] = 3
    summary.write_text(json.dumps(values))
    config.write_text(config.read_text().replace('name = "fedbuff"', 'name = "no_such_module:Rule"'))
    folder = RunFolder.open(tmp_path / "run")
    result, tables = Result.of(folder), folder.tables()
    folder.close()
    assert result is not None
    assert result.metrics == expected.metrics
    assert result.judged_metric == Metric.from_dict(expected.metric_info[0])
    assert tables["algorithm"]["name"] == "no_such_module:Rule"
    assert resume(tmp_path / "run").metrics == expected.metrics, "of a finished run it only reads"


def test_a_summary_that_lacks_a_number(tmp_path: Path) -> None:
    run(Config.from_dict(TABLES), tmp_path / "run")
    summary = tmp_path / "run" / "summary.json"
    values = json.loads(summary.read_text())
    del values["model_sha256"]
    summary.write_text(json.dumps(values))
    with pytest.raises(RecordError, match=r"is not the summary of a run .*model_sha256"):
        resume(tmp_path / "run")


def test_the_process_has_its_threads_back() -> None:
    torch.set_num_threads(2)
    try:
        run(Config.from_dict(TABLES))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_a_taken_folder_is_told_before_data_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(Config.from_dict(TABLES), tmp_path / "run")

    def load(*arguments: Any) -> None:
        raise AssertionError("data are loaded")

    monkeypatch.setattr(build, "federation", load)
    with pytest.raises(RecordError, match="already holds a run"):
        run(Config.from_dict(TABLES), tmp_path / "run")


def test_a_fault_in_a_users_module_keeps_its_traceback() -> None:
    config = Config.from_dict({**TABLES, "model": {"name": "test_result:broken"}})
    with pytest.raises(Exception, match="cannot be built") as fault:
        build.prepare(config)
    assert isinstance(fault.value.__cause__, TypeError)
    assert str(fault.value.__cause__) == "inside"


def broken(shape: Any, classes: int) -> None:
    raise TypeError("inside")


def test_refusals_are_told_by_kind() -> None:
    """Few updates of a rule that refuses stale ones."""
    tables = {
        **TABLES,
        "server": {"concurrency": 8, "buffer_size": 1},
        "algorithm": {"name": "fedbuff", "max_staleness": 1},
        "population": {"name": "large"},
    }
    result = run(Config.from_dict(tables))
    assert result.refused > result.updates
    assert result.refused_by_kind == {"late": result.refused}
    assert (
        f"{result.refused} of {result.refused + 20} updates were refused (late: {result.refused})" in result.warnings[0]
    )
    assert not run(Config.from_dict(TABLES)).warnings
    assert not _warnings(10, 10, {"late": 10})
