"""A stopped run loses nothing: killed at any moment, any number of times, it ends as if it had never been stopped."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fedecho import Config, RecordError, Result, resume, run
from fedecho.runs.folder import RunFolder
from support.runs import LOSSY, Stop, numbers, records

METHODS: dict[str, dict[str, Any]] = {
    "fedbuff+echo": {"stages": {"name": "echo", "steps": 2}, "population": LOSSY},
    "fedbuff+balanced_echo": {
        "stages": {"name": "balanced_echo", "steps": 2, "top_k": 3, "target": "mean", "max_rows": 9},
        "population": LOSSY,
        "records": {"bank": "mapped"},
    },
    "fedbuff+calibrated_echo": {
        "stages": {"name": "calibrated_echo", "steps": 2, "max_rows": 9},
        "population": LOSSY,
    },
    "ca2fl": {"algorithm": {"name": "ca2fl", "buffer_size": 3}, "population": LOSSY},
    "fedac": {"algorithm": {"name": "fedac"}, "population": LOSSY},
    "fadas_da": {"algorithm": {"name": "fadas_da", "lr": 0.003}, "population": LOSSY, "server": {"refill": "batch"}},
    "fedavg": {
        "algorithm": {"name": "fedavg", "cohort": 6, "over_selection": 0.5, "round_deadline_s": 4.0},
        "population": LOSSY,
        "server": {"schedule": {"name": "cosine"}},
    },
}


def configuration(method: str, updates: int = 300, checkpoint_every_s: float = 0.03) -> Config:
    tables: dict[str, Any] = {
        "experiment": {"updates": updates, "eval_every": 20},
        "data": {"clients": 15, "unlabeled_size": 60},
        "model": {"hidden": [16]},
        "client": {"epochs": 1, "batch_size": 20},
        **METHODS[method],
    }
    tables["records"] = {"checkpoint_every_s": checkpoint_every_s, **tables.get("records", {})}
    tables["server"] = {"concurrency": 10, "buffer_size": 4, **tables.get("server", {})}
    return Config.from_dict(tables)


@pytest.fixture(scope="module")
def unstopped(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[Path, Result]]:
    """Each method's run that was never stopped."""
    place = tmp_path_factory.mktemp("unstopped")
    return {m: (place / m, run(configuration(m, checkpoint_every_s=1e9), place / m)) for m in METHODS}


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A `fedecho` process; returns when it has written a checkpoint, or has ended."""
    there = newest(folder)
    command = [sys.executable, "-W", "error", "-m", "fedecho", *arguments]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    while newest(folder) == there and child.poll() is None:
        time.sleep(0.002)
    return child


def newest(folder: Path) -> str | None:
    return max((path.name for path in folder.glob("checkpoint-*.safetensors")), default=None)


def stopped(method: str, folder: Path, events: int, every_s: float = 0.03) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(configuration(method, checkpoint_every_s=every_s), folder, Stop(events, folder))


@pytest.mark.parametrize("method", ["fedbuff+echo", "fadas_da", "fedavg"])
def test_killed_again_and_again(method: str, tmp_path: Path, unstopped: Mapping[str, tuple[Path, Result]]) -> None:
    path, expected = unstopped[method]
    folder, config = tmp_path / "run", tmp_path / "config.toml"
    config.write_text(configuration(method).to_toml())
    kills = 0
    for _ in range(3):
        arguments = ["resume", str(folder)] if folder.exists() else ["run", str(config), "--out", str(folder)]
        child = start(folder, *arguments)
        time.sleep(random.uniform(0, 0.4 * expected.wall_s))
        child.kill()
        _, errors = child.communicate()
        assert child.returncode in (0, -signal.SIGKILL), errors
        kills += child.returncode == -signal.SIGKILL
        assert len(list(folder.glob("checkpoint-*.safetensors"))) <= 3  # killed before the third was deleted
        print(f"{method}: killed with the checkpoint {newest(folder)}")
    assert kills >= 2
    result = resume(folder)
    assert numbers(result) == numbers(expected)
    assert records(folder) == records(path)
    assert not list(folder.glob("checkpoint-*"))


def test_stopped_at_many_places(tmp_path: Path, unstopped: Mapping[str, tuple[Path, Result]]) -> None:
    """Before the first checkpoint (then the run begins anew), just after it, anywhere, and before the summary."""
    for method, (path, expected) in unstopped.items():
        last = len(records(path)["inbox"])
        for events in {1, 2, random.randint(3, last), last + 1}:
            folder = tmp_path / f"{method}-{events}"
            stopped(method, folder, events)
            assert numbers(resume(folder)) == numbers(expected), (method, events)
            assert records(folder) == records(path), (method, events)


def test_control_c(tmp_path: Path, unstopped: Mapping[str, tuple[Path, Result]]) -> None:
    path, expected = unstopped["ca2fl"]
    folder, config = tmp_path / "run", tmp_path / "config.toml"
    config.write_text(configuration("ca2fl").to_toml())
    child = start(folder, "run", str(config), "--out", str(folder), "--json")
    child.send_signal(signal.SIGINT)
    output, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert output == ""
    assert errors.startswith("fedecho: stopped at ")
    assert f"fedecho resume {folder}" in errors
    assert errors.count("\n") == 1
    assert numbers(resume(folder)) == numbers(expected)
    assert records(folder) == records(path)


def test_a_torn_checkpoint(tmp_path: Path, unstopped: Mapping[str, tuple[Path, Result]]) -> None:
    path, expected = unstopped["ca2fl"]
    stopped("ca2fl", tmp_path / "run", 50, 1e-9)
    older, newer = sorted((tmp_path / "run").glob("checkpoint-*"))
    assert (older.name, newer.name) == ("checkpoint-000000047.safetensors", "checkpoint-000000048.safetensors")
    for torn in ([newer], [older, newer]):
        folder = tmp_path / f"{len(torn)} torn"
        shutil.copytree(tmp_path / "run", folder)
        (folder / "checkpoint-000000049.safetensors.part").write_bytes(b"cut sho")
        config = (folder / "config.toml").read_text()
        (folder / "config.toml").write_text(config.replace("checkpoint_every_s = 1e-09", "checkpoint_every_s = 1.0"))
        for file in torn:
            whole = file.read_bytes()
            (folder / file.name).write_bytes(whole[: len(whole) // 2])
        opened = RunFolder.open(folder)
        checkpoint = opened.load_checkpoint()
        opened.close()
        assert (checkpoint and checkpoint[0]) == (47 if len(torn) == 1 else None)
        assert numbers(resume(folder)) == numbers(expected)
        assert records(folder) == records(path)
        assert not list(folder.glob("checkpoint-*"))


def test_killed_while_the_folder_was_made(tmp_path: Path, unstopped: Mapping[str, tuple[Path, Result]]) -> None:
    """Without config.toml, which is written last, a folder is no run yet: the same command begins again."""
    folder = tmp_path / "run"
    RunFolder.create(folder, "", {}).close()
    (folder / "config.toml").unlink()
    with pytest.raises(RecordError, match="is not a run folder"):
        resume(folder)
    assert numbers(run(configuration("ca2fl"), folder)) == numbers(unstopped["ca2fl"][1])
    (folder / "config.toml").unlink()
    with pytest.raises(RecordError, match="holds part of a run; remove it"):
        run(configuration("ca2fl"), folder)


def test_a_finished_run(tmp_path: Path, unstopped: Mapping[str, tuple[Path, Result]]) -> None:
    path, expected = unstopped["fedbuff+echo"]
    before = records(path)
    assert resume(path) == expected
    assert records(path) == before
    with pytest.raises(RecordError, match="already holds a run; resume it"):
        run(configuration("fedbuff+echo"), path)
    moved = tmp_path / "moved"
    shutil.copytree(path, moved)
    (moved / "checkpoint-000000300.safetensors").write_bytes(b"killed just before this was deleted")
    assert resume(moved).run_dir == str(moved)
    assert not list(moved.glob("checkpoint-*"))


def test_one_process_at_a_time(tmp_path: Path) -> None:
    folder, config = tmp_path / "run", tmp_path / "config.toml"
    config.write_text(configuration("ca2fl", updates=100_000).to_toml())
    child = start(folder, "run", str(config), "--out", str(folder))
    with pytest.raises(RecordError, match="is being worked on by another process"):
        resume(folder)
    child.kill()
    child.communicate()
    assert child.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "summary.json").write_text("{"), "summary.json cannot be read"),
        (lambda f: (f / "records.sqlite").write_bytes(b"not a database" * 99), "records.sqlite cannot be read"),
        (lambda f: (f / "records.sqlite").unlink(), "was written with schema none"),
        (lambda f: (f / "config.toml").unlink(), "is not a run folder"),
    ],
)
def test_damaged_folders(
    damage: Any, message: str, tmp_path: Path, unstopped: Mapping[str, tuple[Path, Result]]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(unstopped["ca2fl"][0], folder)
    damage(folder)
    with pytest.raises(RecordError, match=message):
        resume(folder)


def test_disk(unstopped: Mapping[str, tuple[Path, Result]]) -> None:
    """What a run leaves on the disk: the model, and some hundred bytes of records an update."""
    for method, (path, result) in unstopped.items():
        folder = RunFolder(path)
        size, model = folder.size_bytes(), (path / "model.safetensors").stat().st_size
        each = (size - model) / result.updates
        print(
            f"{method}: {size / 1000:.0f} kB for {result.updates} updates, {each:.0f} bytes an update without the model"
        )
        assert {p.name for p in path.iterdir()} == {
            "config.toml", "environment.json", "model.safetensors", "records.sqlite", "summary.json",
        }  # fmt: skip
        assert each < 700


def test_says_when_something_that_decides_the_bits_has_changed(tmp_path: Path) -> None:
    stopped("fedbuff+echo", tmp_path / "run", 60)
    about = tmp_path / "run" / "environment.json"
    about.write_text(about.read_text().replace('"threads": 1', '"threads": 2'))
    with pytest.warns(UserWarning, match="threads 2 is now 1: the bits may differ"):
        resume(tmp_path / "run")
