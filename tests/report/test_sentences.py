"""The sentences of the page are true: verdicts, remarks, and which runs are compared at all."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from pages import TABLES, Reader, figures_of, tables_of, words

from fedecho import Config, run
from fedecho.core.errors import Interrupted
from fedecho.report import data as room
from fedecho.report import write_report
from fedecho.report.comparison import every_pair, to_reference
from fedecho.report.data import collect
from fedecho.report.headline import headline
from fedecho.report.remarks import remarks
from fedecho.report.settings import environment_differences
from fedecho.studies.runs import Run


class Stopper:
    """Stops a run after so many evaluations, as Ctrl-C would."""

    def __init__(self, evaluations: int) -> None:
        self.left = evaluations

    def started(self, setup: object) -> None: ...

    def progressed(self, setup: object) -> None:
        if self.left <= 0:
            raise Interrupted("stopped")

    def evaluated(self, row: object) -> None:
        self.left -= 1


def with_values(
    monkeypatch: pytest.MonkeyPatch, comparison: Path, values: dict[str, list[float]], **changes: Any
) -> room.Group:
    """The group as it would be with these final values of the judged metric, seed by seed."""

    def changed(one: Run) -> Run:
        assert one.result is not None
        finals = dict(one.result.metrics)
        finals["accuracy"] = dataclasses.replace(finals["accuracy"], last_5_mean=values[one.label][one.seed])
        info = [{**one.metric_info[0], **changes}, *one.metric_info[1:]]
        return dataclasses.replace(one, metric_info=info, result=dataclasses.replace(one.result, metrics=finals))

    runs = [changed(one) for one in room.find_runs([comparison]) if one.seed < len(values.get(one.label, []))]
    monkeypatch.setattr(room, "find_runs", lambda paths: runs)
    (group,) = collect([comparison]).groups
    return group


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {
                "fedecho": [0.90, 0.92, 0.94, 0.92],
                "fedbuff": [0.80, 0.83, 0.83, 0.82],
                "fadas": [0.93, 0.90, 0.92, 0.89],
            },
            "After 60 updates on digits, fedecho has the highest mean accuracy, 92.0 %: ahead of fedbuff by 10.0 "
            "points (8.7 to 11.3); in a tie with fadas (1.0 point apart, −3.3 to 5.3). Differences are paired over 4 "
            "seeds, with 95 % intervals.",
        ),
        (
            {"fedecho": [0.90, 0.92, 0.94], "fedbuff": [0.80, 0.83, 0.83]},
            "has the highest mean accuracy, 92.0 %. Too few seeds to judge fedbuff (−10.0 points over 3 seeds); it "
            "takes four.",
        ),
        ({"fedecho": [0.9], "fedbuff": [0.8]}, "Too few seeds to judge fedbuff (−10.0 points over 1 seed)"),
        (
            {"fedecho": [0.92, 0.94]},
            "fedecho has an accuracy of 93.0 ± 12.7 % (95 % interval) on average over 2 seeds.",
        ),
        (
            {"fedecho": [0.9, 0.8, 0.7, 0.8], "fedbuff": [0.9, 0.8, 0.7, 0.8]},
            "has the highest mean accuracy, 80.0 %: in a tie with fedecho (0.0 points apart, 0.0 to 0.0).",
        ),
    ],
)
def test_headlines(
    comparison: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, list[float]], sentence: str
) -> None:
    assert sentence in headline(with_values(monkeypatch, comparison, values)).replace("\u00a0", " ")


def test_a_metric_of_which_less_is_better(comparison: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing on the page knows which metric it is."""
    values = {
        "fedecho": [12.0, 12.2, 12.1, 12.4],
        "fedbuff": [15.0, 15.3, 15.1, 15.2],
        "fadas": [12.1, 12.1, 12.2, 12.2],
    }
    changes = {"label": "perplexity", "share": False, "higher_is_better": False, "decimals": 2, "axis": "log"}
    group = with_values(monkeypatch, comparison, values, **changes)
    metric = group.judged
    assert metric is not None
    sentence = headline(group).replace("\u00a0", " ")
    assert "fadas has the lowest mean perplexity, 12.15: ahead of fedbuff by 3.00 (" in sentence
    assert "in a tie with fedecho (0.03 apart, " in sentence
    assert {label: one.verdict for label, one in to_reference(group, group.ranked[0], metric).items()} == {
        "fedbuff": "behind", "fedecho": "tie"
    }  # fmt: skip
    pairs = every_pair(group, metric)
    assert pairs["fadas", "fedbuff"].verdict == "ahead"
    assert pairs["fedbuff", "fadas"].verdict == "behind"
    assert pairs["fadas", "fedbuff"].difference.mean == -pairs["fedbuff", "fadas"].difference.mean
    page = write_report([comparison], comparison / "perplexity.html").read_text(encoding="utf-8")
    time_figure = figures_of(page)["time"]["accuracy"]["layout"]["yaxis"]
    assert time_figure["type"] == "log"
    assert "tickformat" not in time_figure or "%" not in time_figure["tickformat"]
    assert "12.15 ± 0.09" in words(page)
    assert "two standard errors" not in page


def test_a_method_that_diverged_is_not_compared(comparison: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"fedecho": [0.9, 0.9, 0.8, 0.9], "fedbuff": [0.99, 0.99, 0.99, float("nan")]}
    group = with_values(monkeypatch, comparison, values)
    assert [method.label for method in group.ranked] == ["fedecho"]
    assert "fedbuff diverged on seed 3" in " ".join(remarks(group))
    page = write_report([comparison], comparison / "diverged.html").read_text(encoding="utf-8")
    assert "| failed |" in tables_of(page)["t-accuracy"]["md"]


def test_unfinished_runs_are_shown_as_far_as_they_got(tmp_path: Path) -> None:
    config = Config.from_dict({**TABLES, "records": {"checkpoint_every_s": 1e-6}})
    with pytest.raises(Interrupted):
        run(config, tmp_path / "half", Stopper(4))
    text = write_report([tmp_path / "half"]).read_text(encoding="utf-8").replace("\u00a0", " ")
    assert "No run on digits is finished yet" in text
    assert "seed 0 is not finished: it is drawn as far as it got, 30 of 60 updates" in text
    line = figures_of(text)["updates"]["accuracy"]["data"][-1]
    assert line["x"] == [0, 10, 20, 30]
    with pytest.raises(Interrupted):
        run(config, tmp_path / "none", Stopper(0))
    assert "0 of 60 updates" in words(write_report([tmp_path / "none"]).read_text(encoding="utf-8"))
    both = write_report([tmp_path], tmp_path / "both.html").read_text(
        encoding="utf-8"
    )  # the same method and seed twice
    assert "fedbuff+echo (half)" in both
    assert "fedbuff+echo (none)" in both


def test_other_settings_are_named(comparison: Path, tmp_path: Path) -> None:
    changed = {**TABLES, "client": {"epochs": 2}, "experiment": {"updates": 12, "seed": 7}}
    run(Config.from_dict(changed), tmp_path / "other")
    (group,) = collect([comparison / "fadas", tmp_path / "other"]).groups
    assert [method.label for method in group.methods] == ["fadas", "fedbuff+echo"]
    sentences = " ".join(remarks(group))
    assert "The methods differ in more than the method (experiment.name, experiment.updates" in sentences
    assert "different seeds" in sentences
    assert "no seed in common" in headline(group)


def test_runs_of_different_data_are_not_compared(comparison: Path, tmp_path: Path) -> None:
    """Digits and another data set, or other clients' data: two groups, and nothing is paired between them."""
    other = {**TABLES, "data": {**TABLES["data"], "alpha": 0.5}, "experiment": {"updates": 12, "name": "second"}}
    run(Config.from_dict(other), tmp_path / "other")
    report = collect([comparison, tmp_path / "other"])
    assert [len(group.methods) for group in report.groups] == [3, 1]
    assert [group.title for group in report.groups] == ["digits, alpha\u00a00.1", "digits, alpha\u00a00.5"]
    text = write_report([comparison, tmp_path / "other"], tmp_path / "both.html").read_text(encoding="utf-8")
    tables = tables_of(text)
    assert "g1-t-accuracy" in tables
    assert "fedbuff+echo" not in tables["g1-t-accuracy"]["md"]
    assert "verdict" not in tables["g2-t-accuracy"]["md"]
    assert Reader(text).text.count("has the highest mean accuracy") == 1
    relabeled = [
        dataclasses.replace(one, tables={**one.tables, "data": {**one.tables["data"], "dataset": "moons"}},
                            result=one.result and dataclasses.replace(one.result, dataset="moons"))
        if one.label == "fadas" else one
        for one in room.find_runs([comparison])
    ]  # fmt: skip
    patch = pytest.MonkeyPatch()
    patch.setattr(room, "find_runs", lambda paths: relabeled)
    groups = collect([comparison]).groups
    patch.undo()
    assert {group.title: [m.label for m in group.methods] for group in groups} == {
        "digits": ["fedbuff", "fedecho"], "moons": ["fadas"]
    }  # fmt: skip


def test_a_memory_format_that_follows_from_the_model_is_no_other_environment(comparison: Path) -> None:
    group = collect([comparison]).groups[0]
    assert environment_differences(group) == []
    file = group.runs[0].path / "environment.json"
    before = file.read_text(encoding="utf-8")
    try:
        file.write_text(re.sub(r'("memory_format": )"\w+"', r'\1"other"', before), encoding="utf-8")
        assert environment_differences(group) == ["memory_format"], "the same model, so that it matters"
        models = {one.path: {**one.tables, "model": {"name": f"model-{i == 0}"}} for i, one in enumerate(group.runs)}
        runs = tuple(dataclasses.replace(one, tables=models[one.path]) for one in group.runs)
        methods = (dataclasses.replace(group.methods[0], runs=runs),)
        assert environment_differences(dataclasses.replace(group, methods=methods)) == []
        file.write_text(re.sub(r'("torch": )"[^"]+"', r'\1"1.0"', before), encoding="utf-8")
        assert environment_differences(group) == ["torch"]
        assert "different environments (torch)" in " ".join(remarks(group))
    finally:
        file.write_text(before, encoding="utf-8")


def test_mostly_refused_runs_and_their_warnings_are_named_first(comparison: Path) -> None:
    group = collect([comparison / "fadas" / "seed-0"]).groups[0]
    (method,) = group.methods
    assert method.runs[0].result is not None
    result = dataclasses.replace(method.runs[0].result, refused=3619, warnings=["lower client.lr"])
    changed = dataclasses.replace(method, runs=(dataclasses.replace(method.runs[0], result=result),))
    sentences = remarks(dataclasses.replace(group, methods=(changed,)))
    assert any("Most answers were refused in fadas, seed 0 (3,619 of 3,679)" in one for one in sentences)
    assert "fadas, seed 0: lower client.lr" in sentences
