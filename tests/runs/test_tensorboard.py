"""TensorBoard shows what the records hold, each step once, however often a run was stopped."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from fedecho import Config
from fedecho import MissingExtra
from fedecho import resume
from fedecho import run
from fedecho.experiment.setup import Setup
from fedecho.core.errors import Interrupted
from fedecho.runs.schema import METRICS
from fedecho.runs.folder import RunFolder

TABLES: dict[str, Any] = {
    "experiment": {"updates": 60, "eval_every": 10},
    "data": {"clients": 12, "unlabeled_size": 60},
    "model": {"hidden": [16]},
    "client": {"epochs": 1, "batch_size": 20},
    "server": {"concurrency": 6, "buffer_size": 3},
    "stages": {"name": "echo", "steps": 2},
    "records": {"tensorboard": True},
}


class Stopper:
    """Stops a run in the middle, without a last checkpoint, as a kill would."""

    def __init__(self, updates: int) -> None:
        self.updates = updates

    def started(self, setup: Setup) -> None: ...

    def progressed(self, setup: Setup) -> None:
        if setup.server.state.updates >= self.updates:
            raise Interrupted("killed")

    def evaluated(self, row: object) -> None: ...


def scalars(path: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(path / "tensorboard"), size_guidance={"scalars": 0})
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def agrees(path: Path) -> None:
    """All that the records hold, and nothing else."""
    folder = RunFolder.open(path)
    rows, events = folder.metrics(), list(folder.events())
    folder.close()
    shown = scalars(path)
    assert {tag.removeprefix("metrics/") for tag in shown if tag.startswith("metrics/")} == set(METRICS) - {
        name for name in METRICS if all(row[name] is None for row in rows)
    }
    for name in ("accuracy", "loss", "virtual_time_s"):
        want = [(int(row["updates"]), row[name]) for row in rows]
        assert [step for step, _ in shown[f"metrics/{name}"]] == [step for step, _ in want]
        assert [v for _, v in shown[f"metrics/{name}"]] == pytest.approx([v for _, v in want])
    refined = [event["detail"]["alpha"] for event in events if event["kind"] == "stage"]
    assert [step for step, _ in shown["stages/echo/alpha"]] == list(range(3, 61, 3))
    assert [value for _, value in shown["stages/echo/alpha"]] == pytest.approx(refined)


def test_a_whole_run(tmp_path: Path) -> None:
    run(Config.from_dict(TABLES), tmp_path / "run")
    agrees(tmp_path / "run")


@pytest.mark.parametrize("checkpoint_every_s", [1e-6, 0.05, 100.0], ids=["always", "at times", "never"])
def test_stopped_and_resumed(tmp_path: Path, checkpoint_every_s: float) -> None:
    records = {"tensorboard": True, "checkpoint_every_s": checkpoint_every_s}
    config = Config.from_dict({**TABLES, "records": records})
    with pytest.raises(Interrupted):
        run(config, tmp_path / "run", Stopper(21))
    with pytest.raises(Interrupted):
        resume(tmp_path / "run", Stopper(45))
    stopped = resume(tmp_path / "run")
    agrees(tmp_path / "run")
    made = [file.name.split(".")[3] for file in (tmp_path / "run" / "tensorboard").iterdir()]
    assert len(set(made)) == len(made) >= 3  # the order of their names is that of their making
    assert stopped.model_sha256 == run(Config.from_dict({**TABLES, "records": {}})).model_sha256


def test_nothing_where_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(Config.from_dict(TABLES))
    run(Config.from_dict({**TABLES, "records": {}}), tmp_path / "plain")
    assert not list(tmp_path.rglob("*tfevents*"))


def test_without_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name == "tensorboard":
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"pip install 'fedecho\[tensorboard\]'"):
        run(Config.from_dict(TABLES), tmp_path / "run")
    assert not (tmp_path / "run").exists()
