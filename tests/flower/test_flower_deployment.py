"""A deployment of real processes on this machine: a SuperLink, SuperNodes, TLS and node keys, and the example's app."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fedecho import replay
from fedecho.data.sources import load

pytest.importorskip("flwr", reason="Flower needs Python 3.11 or later")

APP = Path(__file__).parents[2] / "examples" / "flower"

sys.path.insert(0, str(APP))
from deploy import Deployment, free_port, make_node_key  # noqa: E402

pytestmark = pytest.mark.timeout(900)
STRAGGLER_S = 120.0  # longer than a version takes on a machine that does much else


def rows(folder: Path, statement: str) -> list[tuple[Any, ...]]:
    if not (folder / "start.safetensors").exists():  # the server has not begun, and may be making its tables
        return []
    with closing(sqlite3.connect(folder / "records.sqlite")) as database:
        return database.execute(statement).fetchall()


def until(what: Any, seconds: float, why: str) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"{why} did not happen within {seconds:g} s"
        time.sleep(0.2)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """For a deployment; what it logged is shown when the test fails."""
    load("fashion_mnist")  # fetched once, not by every client
    yield tmp_path
    for log in sorted(tmp_path.glob("*.log")):
        print(f"---- {log.name}\n{log.read_text(errors='replace')[-3000:]}")


def test_a_straggler_a_killed_node_and_a_stranger(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for the straggler or the killed node, a key that nobody registered stays outside, and the recorded
    run is recomputed to the bit."""
    state = folder / "state"
    with Deployment(folder) as deployment:
        for number in range(4):
            deployment.start_node(number, 4)
        deployment.start_node(4, 5, registered=False)
        settings = {"num-versions": 5, "buffer-size": 2, "run-dir": state, "straggler-s": STRAGGLER_S}
        process = deployment.run(settings=settings)
        until(lambda: len(rows(state, "select * from inbox where kind = 'joined'")) >= 4, 120, "four nodes")
        time.sleep(3)
        deployment.kill("node1")  # at its first job
        assert process.wait(400) == 0
    log = (folder / "run.log").read_text()
    assert "Done: 5 versions" in log
    nodes = rows(state, "select number, reason from inbox where kind = 'joined'")
    assert len({name for _, name in nodes}) == 4
    accepted = rows(state, "select client, at_s from events where kind = 'accept' order by id")
    assert len(accepted) >= 10
    per_client = [sum(client == one for client, _ in accepted) for one in range(4)]
    assert sorted(per_client)[0] == 0  # the killed one
    assert sorted(per_client)[1] <= 3  # the straggler
    times = [0.0, *(at_s for (at_s,) in rows(state, "select at_s from events where kind = 'aggregate' order by id"))]
    assert len(times) == 6
    assert max(later - earlier for earlier, later in pairwise(times)) < STRAGGLER_S
    assert "Failed to activate SuperNode" in (folder / "node4.log").read_text(errors="replace")
    assert "Attempted to register SuperNode with public key" in (folder / "superlink.log").read_text(errors="replace")
    monkeypatch.chdir(APP)  # where the app's modules are
    found = replay(state)
    assert found.matches
    assert (found.versions, found.from_version) == (5, 0)
    summary = json.loads((state / "summary.json").read_text())
    assert found.model_sha256 == summary["model_sha256"]
    assert summary["metrics"]["accuracy"]["last_5_mean"] > 0.2


@pytest.mark.slow
def test_the_server_app_is_killed_five_times(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`kill -9` at five moments of a live deployment: no accepted update is lost or counted twice."""
    state = folder / "state"
    settings = {"num-versions": 14, "buffer-size": 2, "run-dir": state, "straggler-s": 0.0}
    arrivals = "select seq, number from inbox where kind = 'arrived' order by seq"
    arrived: list[tuple[Any, ...]] = []
    with Deployment(folder, secure=False) as deployment:
        for number in range(4):
            deployment.start_node(number, 4)
        for wait_s in (0.3, 6.0, 1.0, 3.0, 0.1):
            process = deployment.run(settings=settings)
            before = len(arrived)
            until(lambda before=before: len(rows(state, arrivals)) > before, 200, "an answer")
            time.sleep(wait_s)
            pid = deployment.server_app()
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            process.wait(120)
            kept = rows(state, arrivals)
            assert kept[: len(arrived)] == arrived
            arrived = kept
        assert deployment.run(settings=settings).wait(400) == 0
    accepted = [task for (task,) in rows(state, "select task from events where kind = 'accept' order by id")]
    assert len(accepted) == len(set(accepted)) == 28
    every = rows(state, arrivals)
    assert every[: len(arrived)] == arrived
    lost = rows(state, "select task, json_extract(detail, '$.reason') from events where kind = 'lost'")
    assert {reason for _, reason in lost} == {"server restarted"}
    assert not {task for task, _ in lost} & set(accepted)
    monkeypatch.chdir(APP)
    assert replay(state).matches


@pytest.mark.slow
def test_the_documented_loop_restarts_a_server_app_that_was_killed(folder: Path) -> None:
    """The line of docs/deployment.md as it stands there, in a shell; `kill -9` of the ServerApp three times."""
    page = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^    (until python -m fedecho status .*)$", page, flags=re.MULTILINE)
    state = folder / "state"
    settings = f'num-versions=12 buffer-size=2 run-dir="{state}" straggler-s=0.0'
    values = {
        "python": sys.executable,
        "RUN_DIR": state,
        "APP": APP,
        "CONNECTION": f"deployment --run-config '{settings}'",
    }
    for name, value in values.items():
        line, count = re.subn(rf"\b{name}\b", str(value).replace("\\", r"\\"), line, count=1)
        assert count == 1, f"{name} is not in the line"
    with Deployment(folder, secure=False) as deployment:
        for number in range(4):
            deployment.start_node(number, 4)
        with (folder / "loop.log").open("wb") as log:
            loop = subprocess.Popen(["bash", "-c", line], stdout=log, stderr=log, env=deployment.environment)
        try:
            for versions in (1, 3, 5):
                made = "select count(*) from events where kind = 'aggregate'"
                until(lambda made=made, least=versions: (rows(state, made) or [(0,)])[0][0] >= least, 300, "a version")
                pid = deployment.server_app()
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
            assert loop.wait(400) == 0, (folder / "loop.log").read_text()
        finally:
            if loop.poll() is None:
                loop.kill()
    assert (state / "summary.json").is_file()
    accepted = [task for (task,) in rows(state, "select task from events where kind = 'accept' order by id")]
    assert len(accepted) == len(set(accepted)) == 24


@pytest.mark.slow
def test_the_superlink_is_killed_and_comes_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its database is a file, and the ServerApp a process of its own: the run goes on by itself."""
    state = folder / "state"
    with Deployment(folder, secure=False, isolation="process") as deployment:
        deployment.start_executor()
        for number in range(3):
            deployment.start_node(number, 3)
        process = deployment.run(settings={"num-versions": 8, "buffer-size": 2, "run-dir": state})
        until(lambda: rows(state, "select * from events where kind = 'aggregate'"), 200, "a first version")
        deployment.kill("superlink")
        time.sleep(5)
        deployment.start_superlink()
        until(lambda: (state / "summary.json").exists(), 400, "the end of the run")
        process.terminate()
    assert len(rows(state, "select * from events where kind = 'aggregate'")) == 8
    monkeypatch.chdir(APP)
    assert replay(state).matches


@pytest.mark.slow
def test_the_examples_readme_to_the_letter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every shell block of it, in a copy of the folder: the simulation runtime, the deployment, replay and report."""
    app = folder / "examples" / "flower"
    shutil.copytree(APP, app, ignore=shutil.ignore_patterns("__pycache__", ".flwr", "run"))
    blocks = re.findall(r"```\n(.*?)```", (APP / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    simulated, deployed, after = blocks
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }

    def shell(text: str, name: str) -> None:
        with (folder / f"{name}.log").open("wb") as out:
            command = ["bash", "-e", "-c", text.replace("cd examples/flower", "").replace("8101", str(free_port()))]
            subprocess.run(command, cwd=app, env=environment, stdout=out, stderr=out, timeout=600, check=True)

    shell(simulated, "simulated")
    shell(after, "after-simulated")
    assert "the model matches the recorded one" in (folder / "after-simulated.log").read_text()
    assert (app / "run" / "report.html").stat().st_size > 1e6
    shutil.rmtree(app / "run")
    shell(deployed, "deployed")
    shell(after, "after-deployed")
    assert "the model matches the recorded one" in (folder / "after-deployed.log").read_text()


def test_keys_are_private(tmp_path: Path) -> None:
    make_node_key(tmp_path / "node")
    assert (tmp_path / "node").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "node.pub").read_text().startswith("ecdsa-sha2-nistp384 ")
