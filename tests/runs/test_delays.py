"""Delays of recorded runs: what is read of them, and the populations that are fitted to it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from fedecho import Config, run
from fedecho.cli.main import main
from fedecho.config.toml import resolve
from fedecho.core.errors import ConfigError
from fedecho.core.keys import Key
from fedecho.core.messages import Arrived, Event, LogEntry, Lost, Rejected, TrainResult
from fedecho.report import events as facts
from fedecho.report import write_report
from fedecho.runs import delays as observed
from fedecho.runs.folder import RunFolder
from fedecho.simulation.build import build
from fedecho.simulation.population import Population
from fedecho.simulation.settings import PopulationConfig
from fedecho.studies.runs import read_run

SOURCE: dict[str, Any] = {
    "experiment": {"updates": 400, "eval_every": 400},
    "data": {"clients": 12, "unlabeled_size": 20},
    "model": {"hidden": [4]},
    "client": {"epochs": 1},
    "server": {"concurrency": 8, "buffer_size": 4},
    "population": {"name": "mild", "class_counts": [6, 4, 2], "dropout": 0.2},
}

Job = tuple[int, float, float | None, str]
"""Client, when it began, when the server heard of it (None: never), and of what."""


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run in which these jobs were dispatched, one task each."""

    def write(jobs: Sequence[Job], last_s: float = 100.0, cancelled: dict[int, float] | None = None) -> Path:
        folder = RunFolder.create(tmp_path / f"recorded-{len(list(tmp_path.iterdir()))}", "", {})
        for task, (client, began_s, heard_s, what) in enumerate(jobs):
            folder.add_log_entry(task, LogEntry("dispatch", began_s, client=client, task=task, version=0))
            if heard_s is not None:
                folder.add_inbox(task + 1, heard(task, heard_s, what))
        for task, at_s in (cancelled or {}).items():
            folder.add_log_entry(task, LogEntry("cancel", at_s, task=task))
        folder.add_log_entry(len(jobs) + 1, LogEntry("aggregate", last_s, version=1))
        folder.close()
        return folder.path

    return write


def heard(task: int, at_s: float, what: str) -> Event:
    if what == "arrived":
        return Arrived(at_s, TrainResult(task, torch.zeros(1), torch.zeros(0), 1))
    return Rejected(at_s, task, "unreadable") if what == "rejected" else Lost(at_s, task, what)


def fitted(path: Path, clients: int, seed: int = 0, **settings: Any) -> Population:
    return build(clients, Key(seed), name=f"run:{path}", **settings)


def times_s(people: Population, client: int, tasks: int = 300) -> set[float]:
    return {round(people.plan(client, task, 0.0, 0, 0).ends_at_s, 6) for task in range(tasks)}


def answers(client: int, *durations_s: float) -> list[Job]:
    return [(client, 10.0 * place, 10.0 * place + s, "arrived") for place, s in enumerate(durations_s)]


# ---------------------------------------------------------------------------------------------------- what is recorded


def test_what_became_of_the_jobs(record: Callable[..., Path]) -> None:
    jobs: list[Job] = [
        (0, 0.0, 5.0, "arrived"),
        (0, 5.0, 8.0, "rejected"),  # it took its time, whatever became of it
        (0, 8.0, 20.0, "no answer within 12 s"),
        (0, 20.0, None, ""),  # at work at the end
        (1, 0.0, 30.0, "server restarted"),
        (1, 30.0, None, ""),  # cancelled
        (1, 40.0, 47.0, "arrived"),  # cancelled, and answered all the same
        (2, 9.0, 9.0, "arrived"),  # the clock was set back
    ]
    seen = observed.read(record(jobs, cancelled={5: 36.0, 6: 41.0}))
    assert seen[0] == observed.RecordedDelays([5.0, 3.0], [80.0], [12.0])
    assert seen[1] == observed.RecordedDelays([7.0], [30.0, 6.0], [])
    assert seen[2] == observed.RecordedDelays()
    assert seen[0].times_s == [5.0, 3.0, 80.0]
    assert seen[1].times_s == [7.0, 30.0], "6 s are no news of a client that takes 7"


def test_the_first_answer_counts(record: Callable[..., Path]) -> None:
    path = record([(0, 0.0, 5.0, "no answer within 5 s")])
    with sqlite3.connect(path / "records.sqlite") as db:
        db.execute("insert into inbox values (9, 50.0, 'arrived', 0, '')")
    db.close()
    assert observed.read(path)[0] == observed.RecordedDelays(lost_s=[5.0])


def test_the_word_for_a_restart_is_the_transports() -> None:
    pytest.importorskip("flwr")
    from fedecho.flower import transport as flower

    assert flower.RESTARTED == observed.RESTARTED


# ------------------------------------------------------------------------------------------------------- what is fitted


def test_a_client_with_enough_jobs_has_its_own_times(record: Callable[..., Path]) -> None:
    people = fitted(record([*answers(0, 1, 2, 3, 4, 5), *answers(1, 10, 20, 30, 40, 50)]), 2)
    assert times_s(people, 0) == {1, 2, 3, 4, 5}
    assert people.expected_time_s(1) == 30
    assert people.groups == ("fast", "medium")


def test_one_with_fewer_keeps_its_mean_and_has_the_others_spread(record: Callable[..., Path]) -> None:
    jobs = [*answers(0, 1, 2, 3, 4, 5), *answers(1, 100), *answers(2, 4, 8), *answers(3, 2, 2, 2, 2, 2)]
    people = fitted(record(jobs, last_s=20.0), 4)
    spread = (1 / 3, 2 / 3, 1, 4 / 3, 5 / 3)
    assert times_s(people, 1) == {round(100 * factor, 6) for factor in spread}, "a straggler stays one"
    assert times_s(people, 2) == {round(6 * factor, 6) for factor in spread}
    assert [people.expected_time_s(c) for c in range(4)] == [3, 100, 6, 2]
    assert people.groups == ("fast", "slow", "medium", "fast")


def test_where_nobody_has_enough_two_jobs_tell_the_spread_and_one_none(record: Callable[..., Path]) -> None:
    people = fitted(record([*answers(0, 5, 15), *answers(1, 40)], last_s=30.0), 2)
    assert times_s(people, 1) == {20, 60}
    assert times_s(fitted(record([*answers(0, 5), *answers(1, 40)], last_s=30.0), 2), 1) == {40}


def test_a_client_that_never_answered_takes_at_least_as_long_as_it_was_waited_for(
    record: Callable[..., Path],
) -> None:
    known = [*answers(0, 10), *answers(1, 60), *answers(2, 70)]
    path = record([*known, (3, 0.0, None, ""), (4, 60.0, None, ""), (5, 99.0, None, "")])
    assert observed.expected_s(observed.read(path)) == {0: 10, 1: 60, 2: 70, 3: 100}
    drawn = [fitted(path, 6, seed) for seed in range(60)]
    assert {people.expected_time_s(3) for people in drawn} == {100}
    assert {people.expected_time_s(4) for people in drawn} == {60, 70, 100}, "like one of those that take over 40 s"
    assert {people.expected_time_s(5) for people in drawn} == {10, 60, 70, 100}, "of 1 s nothing can be told"


def test_clients_beyond_the_recorded_are_drawn_by_key(record: Callable[..., Path]) -> None:
    path = record([*answers(0, 10), *answers(1, 20), *answers(7, 70)])
    people = fitted(path, 300)
    assert [people.expected_time_s(c) for c in (0, 1, 7)] == [10, 20, 70]
    drawn = [people.expected_time_s(c) for c in range(8, 300)]
    assert {share: drawn.count(share) > 60 for share in set(drawn)} == {10: True, 20: True, 70: True}
    assert [fitted(path, 300).expected_time_s(c) for c in range(300)] == [people.expected_time_s(c) for c in range(300)]
    assert drawn != [fitted(path, 300, 1).expected_time_s(c) for c in range(8, 300)]


def test_losses(record: Callable[..., Path]) -> None:
    jobs: list[Job] = [
        *answers(0, *[2.0] * 9),
        *[(1, 10.0 * i, 10.0 * i + 2.0, "arrived") for i in range(5)],
        *[(1, 10.0 * i, 10.0 * i + 7.0, "error 3: died") for i in range(5, 10)],
        *[(2, 10.0 * i, 10.0 * i + 1.0, "server restarted") for i in range(9)],
    ]
    path = record(jobs)
    people = fitted(path, 3)
    usual = 5 / 19
    for client, rate in ((0, usual / 10), (1, (5 + usual) / 11), (2, usual)):
        plans = [people.plan(client, task, 0.0, 0, 0) for task in range(4000)]
        assert sum(plan.lost == "dropout" for plan in plans) / 4000 == pytest.approx(rate, abs=0.025)
        assert {plan.ends_at_s for plan in plans if plan.lost} == {7.0}, "until it is heard of"
        assert {plan.ends_at_s for plan in plans if not plan.lost} == {2.0}
    two = fitted(record([*jobs, *[(3, 0.0, 60.0, "no answer within 60 s")] * 9]), 4)
    heard_s = [{plan.ends_at_s for t in range(500) if (plan := two.plan(c, t, 0.0, 0, 0)).lost} for c in range(4)]
    assert heard_s == [{7.0, 60.0}, {7.0}, {7.0, 60.0}, {60.0}], "its own where it lost any, else anybody's"
    assert all(people.present(c, at_s) for c in range(3) for at_s in (0.0, 50.0, 1e6))
    worse = fitted(path, 3, dropout=0.5)
    plans = [worse.plan(0, task, 0.0, 0, 0) for task in range(4000)]
    assert sum(plan.lost is not None for plan in plans) / 4000 == pytest.approx(0.5 + 0.5 * usual / 10, abs=0.03)


def test_a_plan_is_a_function_of_its_job_alone(record: Callable[..., Path]) -> None:
    path = record([*answers(0, 1, 2, 3, 4, 5), *answers(1, 9), (0, 60.0, 63.0, "error 3: died")])
    one, other = fitted(path, 5), fitted(path, 5)
    jobs = [(task % 5, task) for task in range(500)]
    plans = {(client, task): one.plan(client, task, 7.0, 0, 0) for client, task in jobs}
    assert {job: other.plan(*job, 7.0, 0, 0) for job in reversed(jobs)} == plans
    assert any(plan.lost for plan in plans.values())


# ------------------------------------------------------------------------------------------------------ a whole run


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated run, whose population is known."""
    path = tmp_path_factory.mktemp("source") / "run"
    run(Config.from_dict(SOURCE), path)
    return path


def test_the_population_of_a_simulated_run_is_found_again(source: Path) -> None:
    true = build(12, Key(0), **SOURCE["population"])
    people = fitted(source, 12, class_counts=(6, 4, 2))
    assert people.members("slow") == true.members("slow")
    for client in range(12):
        assert people.expected_time_s(client) == pytest.approx(true.expected_time_s(client), rel=0.2)
    plans = [people.plan(task % 12, task, 0.0, 0, 0) for task in range(6000)]
    lost = share_lost(source)
    assert sum(plan.lost is not None for plan in plans) / 6000 == pytest.approx(lost, abs=0.03)
    assert lost == pytest.approx(0.2, abs=0.06)


def share_lost(path: Path) -> float:
    seen = observed.read(path).values()
    lost, answered = sum(len(jobs.lost_s) for jobs in seen), sum(len(jobs.answered_s) for jobs in seen)
    return lost / (lost + answered)


def test_a_run_on_recorded_delays(source: Path, tmp_path: Path) -> None:
    """It takes as long as the recorded one took, repeats, and leaves that as it is."""
    before = {file: file.read_bytes() for file in source.glob("*.[tsj]*") if "sqlite-" not in file.name}
    config = Config.from_dict({**SOURCE, "population": {"from": str(source)}})
    first = run(config, tmp_path / "what-if")
    assert first.virtual_time_s == pytest.approx(run(Config.from_dict(SOURCE)).virtual_time_s, rel=0.15)
    assert run(Config.load(tmp_path / "what-if" / "config.toml")).model_sha256 == first.model_sha256
    assert {file: file.read_bytes() for file in before} == before
    again = fitted(tmp_path / "what-if", 12)
    assert again.members("slow") == fitted(source, 12).members("slow"), "of a what-if another can be made"


def test_a_report_does_not_need_what_the_delays_came_from(source: Path, tmp_path: Path) -> None:
    moved = tmp_path / "source"
    shutil.copytree(source, moved)
    config = Config.from_dict({**SOURCE, "experiment": {"updates": 20}, "population": {"from": str(moved)}})
    run(config, tmp_path / "what-if")
    assert len(facts.read(read_run(tmp_path / "what-if")).groups) == 12
    shutil.rmtree(moved)
    assert facts.read(read_run(tmp_path / "what-if")).groups == ()
    assert "what-if" in write_report([tmp_path / "what-if"], title="what-if").read_text(encoding="utf-8")


# ---------------------------------------------------------------------------------------------------- configurations


def test_from_is_a_way_to_say_the_name() -> None:
    tables = {"experiment": {"updates": 1}, "population": {"from": "some/run", "dropout": 0.1}}
    config = Config.from_dict(tables)
    assert config.population == PopulationConfig(name="run:some/run", dropout=0.1)
    assert config.to_dict()["population"]["name"] == "run:some/run"
    assert "from" not in config.to_dict()["population"]
    assert Config.from_dict(config.to_dict()) == config
    assert Config.from_dict({**tables, "population": {"from": "x", "name": "run:x"}}).population.name == "run:x"


def test_from_replaces_the_name_of_a_file_and_is_replaced() -> None:
    named: dict[str, Any] = {"population": {"name": "large", "dropout": 0.1}}
    for tables, method, overrides in (
        (named, None, ["population.from=2024"]),
        (named, None, ["population.from='2024'"]),
        ({"population": {"from": "other"}}, None, ["population.from=2024"]),
        ({**named, "variants": {"real": {"method": "fedbuff", "population": {"from": "2024"}}}}, "real", []),
        (named, None, ["population.name=mild", "population.from=2024"]),
    ):
        assert resolve(tables, method, overrides)["population"]["name"] == "run:2024", (tables, overrides)
        assert "from" not in resolve(tables, method, overrides)["population"]
    assert resolve({"population": {"from": "x"}}, None, ["population.name=mild"])["population"] == {"name": "mild"}
    assert resolve(named, None, ["population.from=x"])["population"]["dropout"] == 0.1


@pytest.mark.parametrize(
    ("people", "said"),
    [
        ({"from": "a", "name": "large"}, "population has `from` ('a') and `name` ('large'); leave one of them out"),
        ({"from": 3}, "population.from is 3; it must be a string, the folder of a recorded run"),
        ({"from": 3, "name": "large"}, "population.from is 3; it must be a string, the folder of a recorded run"),
    ],
)
def test_faults_of_the_table(people: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_dict({"experiment": {"updates": 1}, "population": people})
    assert caught.value.faults == (said,)


def test_a_folder_that_cannot_be_used_is_refused_in_one_line(
    record: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[experiment]\nupdates = 1\n[population]\nname = 'large'\n", encoding="utf-8")
    unanswered = record([(0, 0.0, None, ""), (1, 0.0, 5.0, "lost")])
    broken = record([*answers(0, 1)])
    (broken / "records.sqlite").write_bytes(b"no database" * 100)
    for folder, said in (
        (tmp_path / "none", "there is no folder at"),
        (config, "there is no folder at"),
        (tmp_path, "is no run's folder"),
        (unanswered, "no job of the run in"),
        (broken, "cannot be read"),
    ):
        assert main(["run", str(config), "--set", f"population.from={folder}"]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1), err
        assert str(folder) in err
        assert said in err


def test_it_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "populations"]) == 0
    assert "run:RUN_DIR" in capsys.readouterr().out
