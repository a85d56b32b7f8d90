"""Ray actors: the same bits as inline, a job done again when its actor dies, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fedecho import Config, MissingExtra, run
from fedecho.core.errors import ConfigError, WorkerLost
from fedecho.core.messages import Task
from fedecho.executors.queue import AHEAD
from fedecho.executors.ray import Parcel, Ray
from fedecho.experiment.build import prepare
from fedecho.server.loop import serve
from fedecho.simulation.transport import SimulatedTransport
from support.executors import MODEL, Workshop, check, configuration
from support.runs import numbers, records

ray = pytest.importorskip("ray")
pytestmark = [  # Ray leaves files open
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def raylets() -> set[int]:
    """Ray's own processes on this machine."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")[0]
            except OSError:
                continue
            if command.endswith((b"/raylet", b"/gcs_server")) or command.startswith(b"ray::"):
                found.add(int(entry.name))
    return found


def gone(processes: set[int]) -> bool:
    until = time.perf_counter() + 20
    while raylets() & processes and time.perf_counter() < until:
        time.sleep(0.1)
    return not raylets() & processes


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Two machines, as far as Ray can tell: two nodes of one core each, and their address."""
    from ray.cluster_utils import Cluster

    before = raylets()
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    yield nodes.address
    nodes.shutdown()
    assert gone(raylets() - before)


def make(shop: Workshop, cluster: str, wanted: float = 1e9, workers: int = 1) -> Ray:
    return Ray(shop, workers, lambda: wanted, cluster)


def submit(executor: Ray, task: int, at_s: float) -> None:
    executor.submit(Task(task, task % 3, 0, 0.0, {"v": torch.ones(3)}), MODEL, at_s)


def test_a_parcel_holds_what_was_put_into_it() -> None:
    pictures = torch.randn(3, 2, 5, 4).to(memory_format=torch.channels_last)
    value = {"pictures": pictures, "empty": torch.zeros(0, 3), "one": torch.tensor(2.5), "n": [1, "text"]}
    for copy in (True, False):
        found = Parcel.of(value).open(copy)
        assert torch.equal(found["pictures"], pictures)
        assert found["pictures"].stride() == pictures.stride()
        assert found["empty"].shape == (0, 3)
        assert float(found["one"]) == 2.5
        assert found["n"] == [1, "text"]
        assert found["pictures"].data_ptr() % 64 == 0


def test_jobs_ahead_cancelled_and_faulty(cluster: str, tmp_path: Path) -> None:
    shop = Workshop(tmp_path / "notes", plan=((1, "raise"), (7, "unportable")))
    executor = make(shop, cluster)
    try:
        for task in range(10):
            submit(executor, task, float(task))
        check(executor.result(0), 0)
        with pytest.raises(ConfigError, match="one fault\ntwo faults") as caught:
            executor.result(1)
        assert "Traceback" in str(caught.value.__cause__)
        executor.cancel(8)
        executor.cancel(77)
        check(executor.result(9), 9)
        assert len(shop.computed()) <= 3 + AHEAD
        for task in (2, 3, 4, 5, 6):
            check(executor.result(task), task)
        with pytest.raises((RuntimeError, AttributeError), match="pickle"):
            executor.result(7)
        assert sorted(shop.computed()) == [0, 1, 2, 3, 4, 5, 6, 7, 9]
    finally:
        executor.close()


def test_the_job_of_an_actor_that_died_is_done_by_another(cluster: str, tmp_path: Path) -> None:
    shop = Workshop(tmp_path / "notes", plan=((0, "die once"),))
    executor = make(shop, cluster, workers=2)
    try:
        for task in range(2):
            submit(executor, task, float(task))
        check(executor.result(0), 0)
        check(executor.result(1), 1)
        assert shop.computed().count(0) == 2
    finally:
        executor.close()


def test_a_job_that_kills_its_actors_is_one_clear_error(cluster: str, tmp_path: Path) -> None:
    shop = Workshop(tmp_path / "notes", plan=((2, "die"),))
    executor = make(shop, cluster)
    try:
        submit(executor, 2, 2.0)
        with pytest.raises(WorkerLost, match=r"^3 Ray workers died on task 2, the last one: .*resume the run$"):
            executor.result(2)
        assert shop.computed().count(2) == 3
    finally:
        executor.close()


@pytest.mark.parametrize(
    ("broken", "said"),
    [("raises", "cannot begin: ImportError: no such model here"), ("exits", "ended before it could begin")],
)
def test_an_actor_that_cannot_begin_is_one_clear_error(cluster: str, broken: str, said: str, tmp_path: Path) -> None:
    executor = make(Workshop(tmp_path / "notes", broken=broken), cluster)
    try:
        submit(executor, 0, 0.0)
        with pytest.raises(WorkerLost, match=said):
            executor.result(0)
    finally:
        executor.close()


def test_more_workers_than_the_cluster_has_cores_is_one_clear_error(cluster: str, tmp_path: Path) -> None:
    executor = make(Workshop(tmp_path / "notes"), cluster, workers=3)
    try:
        with pytest.raises(ConfigError, match=r"need 3 cores; the cluster has 2"):
            submit(executor, 0, 0.0)
    finally:
        executor.close()


def test_the_same_bits_and_records_as_inline_on_two_nodes(cluster: str, tmp_path: Path) -> None:
    inline = run(configuration("fedbuff+echo", "inline"), tmp_path / "inline")
    config = configuration("fedbuff+echo", "ray").to_dict()
    config["executor"] |= {"address": cluster}
    there = run(Config.from_dict(config), tmp_path / "ray")
    assert numbers(there) == numbers(inline)
    assert records(tmp_path / "ray") == records(tmp_path / "inline")
    assert there.server_s["infer_s"] > 0
    assert there.profile_s["infer_s"] == 0, "predictions are made where the model was trained"
    assert not ray.is_initialized()


class Killer:
    """A journal that kills an actor's process after some updates."""

    def __init__(self, executor: Ray, after: int, others: set[int] | None = None) -> None:
        self.executor, self.left, self.killed, self.others = executor, after, 0, others or set()

    def accept(self, event: Any) -> None:
        self.left -= 1
        if self.left == 0:
            ours = raylets() - self.others  # an earlier test's may still be ending
            actors = {pid for pid in ours if b"Actor" in Path(f"/proc/{pid}/cmdline").read_bytes()}
            assert len(actors) == 2
            for pid in actors:
                os.kill(pid, signal.SIGKILL)
                self.killed += 1

    def commit(self, facts: Any) -> None: ...


def test_a_run_whose_actors_are_killed_ends_as_if_nothing_had_happened_and_leaves_nothing(tmp_path: Path) -> None:
    inline = run(configuration("fedbuff", "inline"))
    before = raylets()
    setup = prepare(configuration("fedbuff", "ray"))
    assert isinstance(setup.executor, Ray)
    killer = Killer(setup.executor, 30, before)
    try:
        serve(setup.server, SimulatedTransport(setup.population, setup.executor, 0, 0), killer)
        own = raylets() - before
        folder = setup.executor._folder
        assert folder is not None
        assert own
    finally:
        setup.close()
    assert killer.killed == 2
    weights = setup.server.output.weights
    again = prepare(configuration("fedbuff", "inline"))
    serve(again.server, SimulatedTransport(again.population, again.executor, 0, 0), Killer(setup.executor, 0))
    assert torch.equal(weights, again.server.output.weights)
    assert setup.server.state.updates == inline.updates
    assert gone(own)
    assert not Path(folder).exists()


@pytest.mark.slow
def test_ray_is_quiet(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(configuration("fedbuff", "ray", experiment={"updates": 20, "eval_every": 10}).to_toml())
    command = [sys.executable, "-W", "error", "-m", "fedecho", "run", str(config), "--json"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert found.stderr == ""
    assert found.stdout.startswith("{")


def test_an_address_needs_ray_and_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"executor\.address is for executor\.name 'ray'"):
        Config.from_dict({**configuration("fedbuff").to_dict(), "executor": {"address": "auto"}})
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"fedecho\[ray\]"):
        Ray(Workshop(tmp_path / "notes"), 1)
