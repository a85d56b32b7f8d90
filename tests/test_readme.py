"""What the README shows is run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedecho import Config, replay, run
from fedecho.cli.main import main

HERE = Path(__file__).parents[1]
README = (HERE / "README.md").read_text(encoding="utf-8")
EXPERIMENT, ALGORITHM, SERVER = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_a_whole_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(EXPERIMENT, names)
    accuracy, slow, digest = capsys.readouterr().out.split()
    assert 0.85 < float(accuracy) < 1
    assert 0.8 < float(slow) < 1
    same = run(Config.load(HERE / "configs" / "digits_large.toml", "fedecho"))
    assert digest == same.model_sha256, "it is that configuration's FedEcho, seed 0"


def test_a_whole_algorithm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text(ALGORITHM, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    config = str(HERE / "configs" / "digits_large.toml")
    assert main(["run", config, "--set", "algorithm.name=mine:MyFedBuff", "--set", "experiment.updates=100"]) == 0
    assert "my_fedbuff+echo on digits, seed 0" in capsys.readouterr().out


def test_a_live_federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("flwr", reason="Flower needs Python 3.11 or later")
    from flwr.app import ArrayRecord

    from flower_nodes import LocalGrid, Net, unlabeled

    monkeypatch.chdir(tmp_path)
    names = {"Net": Net, "public_images": unlabeled(), "grid": LocalGrid(3), "ArrayRecord": ArrayRecord}
    exec(SERVER, names)
    assert replay(tmp_path / "state").matches


def test_the_examples_pass_a_strict_type_check(tmp_path: Path) -> None:
    """Of what a user writes against the public names; Flower's own part needs names that the page does not define."""
    for name, text in (("experiment", EXPERIMENT), ("algorithm", ALGORITHM)):
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    files = [str(tmp_path / f"{name}.py") for name in ("experiment", "algorithm")]
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--follow-imports=silent", *files]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
