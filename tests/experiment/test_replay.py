"""A run's record is enough to compute its model again, and a record that was tampered with is noticed."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fedecho import Config, RecordError, Result, replay, run
from fedecho.cli.main import main

RUNS: dict[str, dict[str, Any]] = {
    "plain": {"algorithm": {"name": "fedasync"}, "population": {"name": "mild"}},
    "echo": {"stages": {"name": "echo", "steps": 2}, "population": {"name": "large"}},
    "lossy": {
        "stages": {"name": "echo", "steps": 2},
        "population": {"name": "mild", "dropout": 0.2, "available_fraction": 0.7, "day_s": 50.0},
    },
    "controlled": {"algorithm": {"name": "fedac"}},
    "deadline": {
        "algorithm": {"name": "fedavg", "cohort": 5, "over_selection": 0.4, "round_deadline_s": 3.0},
        "population": {"name": "mild", "dropout": 0.2},
    },
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[Path, Result]]:
    found = {}
    for name, tables in RUNS.items():
        config = Config.from_dict(
            {
                "experiment": {"updates": 100, "eval_every": 50},
                "data": {"clients": 12, "unlabeled_size": 60},
                "model": {"hidden": [16]},
                "client": {"epochs": 1},
                "server": {"concurrency": 8, "buffer_size": 4},
                **tables,
            }
        )
        path = tmp_path_factory.mktemp("recorded") / name
        found[name] = path, run(config, path)
    return found


def copy_of(recorded: Mapping[str, tuple[Path, Result]], name: str, folder: Path) -> Path:
    shutil.copytree(recorded[name][0], folder)
    return folder


def edit(folder: Path, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(folder / "records.sqlite")) as database, database:
        assert database.execute(statement, values).rowcount == 1


def arrivals(folder: Path) -> list[tuple[int, int]]:
    with closing(sqlite3.connect(folder / "records.sqlite")) as database:
        return database.execute("select seq, number from inbox where kind = 'arrived' order by seq").fetchall()


@pytest.mark.parametrize("name", RUNS)
def test_matches(name: str, recorded: Mapping[str, tuple[Path, Result]]) -> None:
    path, result = recorded[name]
    with closing(sqlite3.connect(path / "records.sqlite")) as database:
        kinds = {kind for (kind,) in database.execute("select distinct kind from inbox")}
    expected = {"lossy": {"arrived", "lost", "joined", "left"}, "deadline": {"arrived", "lost", "wake"}}
    assert kinds == expected.get(name, {"arrived"})  # the record holds what this run is here for
    found = replay(path)
    assert found.matches
    assert found.model_sha256 == found.recorded_sha256 == result.model_sha256
    assert (found.updates, found.versions) == (result.updates, result.versions)


def test_leaves_the_record_alone(recorded: Mapping[str, tuple[Path, Result]]) -> None:
    path, _ = recorded["plain"]
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    replay(path)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_needs_no_population(recorded: Mapping[str, tuple[Path, Result]], tmp_path: Path) -> None:
    """When and whether answers come is read from the record, not drawn again."""
    folder = copy_of(recorded, "deadline", tmp_path / "run")
    text = (folder / "config.toml").read_text()
    worker_seconds = text.replace('name = "mild"', 'name = "lognormal"').replace("dropout = 0.2", "dropout = 0.9")
    assert worker_seconds != text
    (folder / "config.toml").write_text(worker_seconds)
    assert replay(folder).matches


@pytest.mark.parametrize("place", [0.1, 0.4, 0.7])
def test_swapped_arrivals(place: float, recorded: Mapping[str, tuple[Path, Result]], tmp_path: Path) -> None:
    folder = copy_of(recorded, "echo", tmp_path / "run")
    there = arrivals(folder)
    i = int(place * len(there))
    (first, task), (second, other) = there[i], there[i + 25]
    edit(folder, "update inbox set number = ? where seq = ?", other, first)
    edit(folder, "update inbox set number = ? where seq = ?", task, second)
    assert noticed(folder)


@pytest.mark.parametrize("place", [0, 50, -1])
@pytest.mark.parametrize("name", ["plain", "lossy"])
def test_a_removed_arrival(name: str, place: int, recorded: Mapping[str, tuple[Path, Result]], tmp_path: Path) -> None:
    folder = copy_of(recorded, name, tmp_path / "run")
    edit(folder, "delete from inbox where seq = ?", arrivals(folder)[place][0])
    assert noticed(folder)


def noticed(folder: Path) -> bool:
    try:
        return not replay(folder).matches
    except RecordError:
        return True


def test_what_a_record_error_says(recorded: Mapping[str, tuple[Path, Result]], tmp_path: Path) -> None:
    folder = copy_of(recorded, "plain", tmp_path / "run")
    edit(folder, "update inbox set number = 4321 where seq = 10")
    with pytest.raises(RecordError, match=r"an answer to task 4321 at \d+\.\d s, which was never sent"):
        replay(folder)
    folder = copy_of(recorded, "plain", tmp_path / "short")
    edit(folder, "delete from inbox where seq = ?", arrivals(folder)[-1][0])
    with pytest.raises(RecordError, match=r"the record ends at .* before the run is done"):
        replay(folder)


def test_command(
    recorded: Mapping[str, tuple[Path, Result]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, result = recorded["plain"]
    assert main(["replay", str(path)]) == 0
    assert capsys.readouterr().out == (
        f"100 updates replayed: the model matches the recorded one ({result.model_sha256[:12]})\n"
    )
    folder = copy_of(recorded, "plain", tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "model_sha256": "0" * 64}))
    assert main(["replay", str(folder), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "model_sha256": result.model_sha256,
        "recorded_sha256": "0" * 64,
        "matches": False,
        "updates": 100,
        "versions": 100,
        "from_version": 0,
    }
    assert main(["replay", str(folder)]) == 1
    assert "differs from the recorded 000000000000" in capsys.readouterr().out


def test_unfinished(
    recorded: Mapping[str, tuple[Path, Result]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of(recorded, "plain", tmp_path / "run")
    (folder / "summary.json").unlink()
    assert main(["replay", str(folder), "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"fedecho: {folder} is not finished; `fedecho resume {folder}` finishes it\n"
