"""Methods × seeds in processes, and the folder that holds them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from fedecho.core.errors import ConfigError, RecordError
from fedecho.experiment.result import Result
from fedecho.studies.compare import collect, plan, write_manifest
from fedecho.studies.jobs import Failure, Job, run_jobs
from fedecho.studies.progress import Progress
from fedecho.studies.runs import by_task, find_runs, read_run

TABLES = {
    "experiment": {"updates": 20, "eval_every": 10},
    "data": {"clients": 6, "unlabeled_size": 30},
    "server": {"concurrency": 4, "buffer_size": 2},
    "variants": {"wild": {"method": "fedbuff", "client": {"lr": 1e30}}},
}


class Watching:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.states: list[list[Progress]] = []
        self.ended: list[tuple[str, int]] = []

    def progressed(self, states: Sequence[Progress]) -> None:
        self.states.append(list(states))

    def finished(self, job: Job, result: Result | Failure) -> None:
        self.ended.append((job.label, job.seed))


def test_a_comparison_is_found_again_in_its_order_and_a_failed_run_fails_alone(tmp_path: Path) -> None:
    methods, watcher = ["fedecho", "wild", "fedasync"], Watching()
    jobs = plan(TABLES, methods, [0, 1], [], tmp_path)
    write_manifest(tmp_path, methods, [0, 1], "fedasync")
    results = run_jobs(jobs, 2, watcher)
    assert sorted(watcher.ended) == sorted((method, seed) for method in methods for seed in (0, 1))
    last = watcher.states[-1]
    assert [state.share for state, job in zip(last, jobs, strict=True) if job.label != "wild"] == [1.0] * 4
    assert [state.updates for state, job in zip(last, jobs, strict=True) if job.label != "wild"] == [20] * 4
    assert all(state.warning is not None for state, job in zip(last, jobs, strict=True) if job.label == "wild")
    runs, failures = collect(jobs, results)
    assert list(failures) == ["wild"]
    assert len(failures["wild"]) == 2
    assert all(isinstance(result, Failure) == (job.label == "wild") for job, result in zip(jobs, results, strict=True))
    read = find_runs([tmp_path])
    assert [(run.label, run.seed) for run in read if run.result] == [(m, s) for m in methods[::2] for s in (0, 1)]
    assert read[0].metrics == runs[0].metrics
    assert read[0].result == runs[0].result
    assert [str(task) for task in by_task(read)] == ["digits (classification)"]
    assert len(find_runs([tmp_path, tmp_path / "fedecho" / "seed-0"])) == len(read), "nothing twice"
    assert find_runs([tmp_path / "fedecho" / "seed-0"])[0].label == "fedbuff+echo"
    assert {run.label for run in find_runs([tmp_path / "fedecho", tmp_path / "fedasync"])} == {"fedecho", "fedasync"}
    write_manifest(tmp_path, ["fedbuff"], [7], "fedbuff")
    manifest = json.loads((tmp_path / "comparison.json").read_text())
    assert manifest["methods"] == [*methods, "fedbuff"]
    assert manifest["seeds"] == [0, 1, 7]


def test_a_run_is_read_without_its_classes_and_with_keys_of_a_later_version(tmp_path: Path) -> None:
    (job,) = plan(TABLES, ["fedbuff"], [3], [], tmp_path)
    (result,) = run_jobs([job], 1)
    assert isinstance(result, Result)
    config, summary = job.out / "config.toml", job.out / "summary.json"
    text = config.read_text().replace('name = "fedbuff"', 'name = "gone_module:Rule"\nnew_setting = 1')
    config.write_text(re.sub(r"(?m)^\[server\]$", "[future]\nx = 1\n\n[server]", text))
    summary.write_text(json.dumps({**json.loads(summary.read_text()), "new_number": 1}))
    run = read_run(job.out)
    assert (run.label, run.seed, run.live) == ("fedbuff", 3, False)
    assert run.result is not None
    assert run.result.judged == result.judged
    assert run.setting("data", "clients") == 6
    assert run.setting("data", "nothing", 5) == 5
    with pytest.raises(ConfigError, match="gone_module"):
        _ = run.config
    summary.unlink()
    unfinished = read_run(job.out)
    assert (unfinished.label, unfinished.result, str(unfinished.task)) == ("Rule", None, "digits (classification)")


def test_methods_on_different_data_are_not_planned(tmp_path: Path) -> None:
    tables = {**TABLES, "variants": {"other": {"method": "fedbuff", "data": {"dataset": "mnist"}}}}
    with pytest.raises(ConfigError, match=r"data.dataset is of fedbuff 'digits', other 'mnist': compare each alone"):
        plan(tables, ["fedbuff", "other"], [0], [], tmp_path)


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"holds no run; give the folder of a run"):
        find_runs([tmp_path])


@pytest.mark.parametrize(
    ("updates", "refused", "warned"),
    [(0, 19, False), (0, 20, True), (20, 20, False), (20, 21, True), (500, 100, False)],
)
def test_a_run_in_which_most_updates_are_refused_is_warned_of(updates: int, refused: int, warned: bool) -> None:
    warning = Progress(0.1, updates, refused).warning
    assert (warning is not None) == warned
    assert warning is None or warning.startswith(f"{refused} of {updates + refused} updates are refused so far; ")
