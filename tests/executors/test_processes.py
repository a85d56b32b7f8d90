"""Worker processes: the same bits as inline, the right jobs in the right order, and nothing left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import fedecho.executors.auto as auto
from fedecho import Config, replay, resume, run
from fedecho.core.errors import ConfigError, WorkerLost
from fedecho.core.messages import Model, Task, TrainResult
from fedecho.executors.arena import SharedArena
from fedecho.executors.auto import Auto
from fedecho.executors.inline import Inline
from fedecho.executors.processes import SLOTS, Processes
from fedecho.executors.queue import AHEAD
from fedecho.experiment.build import prepare
from fedecho.experiment.workers import worker_count as _workers
from support.executors import METHODS, MODEL, Workshop, check, configuration
from support.runs import Stop, numbers, records

# --------------------------------------------------------------------------------------------------------------- memory


def test_memory_gives_back_what_was_laid_into_it() -> None:
    memory = SharedArena(2)
    pictures = torch.randn(3, 2, 5, 4).to(memory_format=torch.channels_last)
    value = {
        "a": [torch.arange(7), ("text", None, 1.5)],
        "empty": torch.zeros(0, 3),
        "pictures": pictures,
        "one": torch.tensor(2.5, dtype=torch.float64),
        "half": torch.randn(4).half(),
    }
    memory.write(1, value)
    memory.write(0, torch.ones(100_000))
    for copy in (True, False):
        found = memory.read(1, copy)
        assert found["a"][1] == ("text", None, 1.5)
        assert torch.equal(found["a"][0], torch.arange(7))
        assert torch.equal(found["pictures"], pictures)
        assert found["pictures"].stride() == pictures.stride()
        assert found["empty"].shape == (0, 3)
        assert torch.equal(found["one"], value["one"])  # type: ignore[arg-type]
        assert found["half"].dtype == torch.float16
    kept, looked = memory.read(1), memory.read(1, copy=False)
    memory.write(1, {**value, "pictures": pictures + 1})
    assert torch.equal(kept["pictures"], pictures)
    assert torch.equal(looked["pictures"], pictures + 1)
    for tensor in (found["pictures"], found["half"]):
        assert tensor.data_ptr() % 64 == 0, "else vectorized code may take another path, to other bits"


# ------------------------------------------------------------------------------------------------------------- executor


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., tuple[Processes, Workshop]]]:
    begun: list[Processes] = []

    def start(workers: int = 1, wanted: Callable[[], float] = lambda: 1e9, **how: Any) -> tuple[Processes, Workshop]:
        shop = Workshop(tmp_path / "notes", **how)
        begun.append(Processes(shop, workers, wanted))
        return begun[-1], shop

    yield start
    for executor in begun:
        executor.close()
    assert not [child for child in multiprocessing.active_children() if "fedecho" in child.name]


def submit(executor: Processes, task: int, at_s: float) -> None:
    executor.submit(Task(task, task % 3, 0, 0.0, {"v": torch.ones(3)}), MODEL, at_s)


def settle(shop: Workshop, n: int) -> None:
    """Wait until n jobs are noted, and a little longer."""
    until = time.perf_counter() + 60
    while len(shop.computed()) < n and time.perf_counter() < until:
        time.sleep(0.01)
    time.sleep(0.2)


def test_workers_can_be_ready_before_the_first_job(start: Any) -> None:
    executor, _ = start(2)
    executor.start()
    children = {child.pid for child in multiprocessing.active_children() if "fedecho worker" in child.name}
    assert len(children) == 2
    submit(executor, 0, 1.0)
    check(executor.result(0), 0)
    assert children == {child.pid for child in multiprocessing.active_children() if "fedecho worker" in child.name}


def test_jobs_are_computed_in_the_order_in_which_they_are_needed(start: Any) -> None:
    executor, shop = start()
    for task, at_s in ((0, 9.0), (1, 3.0), (2, 5.0), (3, 1.0)):
        submit(executor, task, at_s)
    for task in (3, 1, 2, 0):
        check(executor.result(task), task)
    assert shop.computed() == [3, 1, 2, 0]
    submit(executor, 4, 20.0)
    settle(shop, 5)
    for task, at_s in ((5, 19.0), (6, 10.0), (7, 12.0)):  # the worker sleeps, and is woken by each
        submit(executor, task, at_s)
        settle(shop, task + 1)
    assert shop.computed() == [3, 1, 2, 0, 4, 5, 6, 7]
    for task in (6, 7, 5, 4):
        check(executor.result(task), task)


def test_no_more_is_computed_ahead_than_is_allowed_or_wanted(start: Any) -> None:
    left = 10_000.0
    executor, shop = start(wanted=lambda: left)
    for task in range(30):
        submit(executor, task, float(task))
    settle(shop, AHEAD)
    assert shop.computed() == list(range(AHEAD))
    left = 2.0
    for task in (0, 1):
        check(executor.result(task), task)
    settle(shop, AHEAD)
    assert sorted(shop.computed()) == list(range(AHEAD)), "two are there and no third is wanted"
    left = 0.0
    check(executor.result(2), 2)
    submit(executor, 50, -1.0)
    settle(shop, AHEAD)
    assert sorted(shop.computed()) == list(range(AHEAD))


def test_answers_overtaken_by_more_urgent_jobs_make_room_for_the_awaited_one(start: Any) -> None:
    executor, shop = start()
    done = 0
    for wave in range(SLOTS // AHEAD):  # each wave is needed before all that came before
        for i in range(AHEAD):
            submit(executor, done + i, 1000.0 - 100 * wave + i)
        done += AHEAD
        settle(shop, done)
    assert shop.computed() == list(range(SLOTS))
    submit(executor, 99, 0.0)
    check(executor.result(99), 99)
    order = sorted(range(SLOTS), key=lambda task: (-(task // AHEAD), task))
    for task in order:
        check(executor.result(task), task)
    again = [task for task in set(shop.computed()) if shop.computed().count(task) > 1]
    assert again == [AHEAD - 1], "the answer needed last"


def test_what_is_cancelled_is_not_computed_and_its_desk_is_used_again(start: Any) -> None:
    executor, shop = start(plan=((0, "sleep"),))
    for task in range(AHEAD):
        submit(executor, task, float(task))
    settle(shop, 1)  # the worker is at 0 and will be for a minute
    executor.cancel(1)
    executor.cancel(77)
    os.kill(executor._workers[0].process.pid, signal.SIGKILL)
    executor.cancel(0)
    for task in (2, 3):
        check(executor.result(task), task)
    assert shop.computed() == [0, 2, 3]
    for task in range(100, 100 + 3 * SLOTS):
        submit(executor, task, float(task))
        check(executor.result(task), task)
    executor.cancel(100)


def test_the_job_of_a_worker_that_died_is_computed_by_another(start: Any) -> None:
    executor, shop = start(2, plan=((0, "die once"), (3, "die once")))
    for task in range(6):
        submit(executor, task, float(task))
    for task in range(6):
        check(executor.result(task), task)
    computed = shop.computed()
    assert sorted(computed) == [0, 0, 1, 2, 3, 3, 4, 5]


def test_a_job_that_kills_its_workers_is_one_clear_error(start: Any) -> None:
    executor, shop = start(plan=((1, "die"),))
    submit(executor, 0, 0.0)
    submit(executor, 1, 1.0)
    check(executor.result(0), 0)
    with pytest.raises(WorkerLost, match=r"^3 worker processes died on task 1, the last one: killed by SIGKILL; where"):
        executor.result(1)
    assert shop.computed() == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("broken", "said"),
    [("raises", "cannot begin: ImportError: no such model here"), ("exits", r"\(exit code 3\).*__name__")],
)
def test_a_worker_that_cannot_begin_is_one_clear_error(start: Any, broken: str, said: str) -> None:
    executor, _ = start(2, broken=broken)
    submit(executor, 0, 0.0)
    with pytest.raises(WorkerLost, match=said):
        executor.result(0)


@pytest.mark.parametrize(
    ("what", "fault", "said"),
    [
        ("raise", ConfigError, "one fault\ntwo faults"),
        ("raise its own", RuntimeError, "Unportable: cannot be unpickled"),
        ("unportable", RuntimeError, "pickle"),
    ],
)
def test_a_fault_in_a_worker_is_raised_here_and_says_where(
    start: Any, what: str, fault: type[Exception], said: str
) -> None:
    executor, _ = start(plan=((0, what),))
    submit(executor, 0, 0.0)
    submit(executor, 1, 1.0)
    with pytest.raises(Exception, match=said) as caught:
        executor.result(0)
    assert isinstance(caught.value, fault | AttributeError)
    assert "Traceback" in str(caught.value.__cause__)
    check(executor.result(1), 1)


# ----------------------------------------------------------------------------------------------------------- whole runs


@pytest.mark.parametrize("method", METHODS)
def test_the_same_bits_and_the_same_records_as_inline(method: str, tmp_path: Path) -> None:
    inline = run(configuration(method, "inline"), tmp_path / "inline")
    there = run(configuration(method), tmp_path / "processes")
    assert numbers(there) == numbers(inline)
    assert records(tmp_path / "processes") == records(tmp_path / "inline")
    assert there.server_s["train_s"] > 0
    assert there.profile_s["train_s"] == 0
    assert there.profile_s["wait_s"] > 0
    if "echo" in method:
        assert there.server_s["infer_s"] > 0
        assert there.profile_s["infer_s"] == 0, "predictions are made where the model was trained"


def test_stopped_resumed_and_replayed(tmp_path: Path) -> None:
    inline = run(configuration("fedbuff+echo", "inline"), tmp_path / "inline")
    for at in (1, 30):
        config = configuration("fedbuff+echo", records={"checkpoint_every_s": 1e-9})
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / f"{at}", Stop(at, tmp_path / f"{at}"))
        assert numbers(resume(tmp_path / f"{at}")) == numbers(inline)
        assert records(tmp_path / f"{at}") == records(tmp_path / "inline")
    assert replay(tmp_path / "30").matches


def test_data_are_shared_and_not_copied() -> None:
    setup = prepare(configuration("fedbuff"))
    assert isinstance(setup.executor, Processes)
    assert setup.learner._inputs.data_ptr() == setup.data.inputs.data_ptr()
    again = setup.executor._factory()
    assert again._inputs.data_ptr() == setup.data.inputs.data_ptr()  # type: ignore[attr-defined]


# ----------------------------------------------------------------------------------------------------------------- auto


def test_auto_changes_to_processes_when_training_takes_long_and_nobody_can_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inline = run(configuration("fedbuff+echo", "inline"), tmp_path / "inline")
    monkeypatch.setattr(auto, "PATIENCE_S", 0.05)
    monkeypatch.setattr(auto, "WORTH_S", 0.0)
    changed = run(configuration("fedbuff+echo", "auto"), tmp_path / "auto")
    assert changed.profile_s["wait_s"] > 0
    assert changed.profile_s["train_s"] > 0
    assert numbers(changed) == numbers(inline)
    assert records(tmp_path / "auto") == records(tmp_path / "inline")


@dataclass
class Busy:
    """Trains for `job_s` seconds."""

    job_s: float

    def train(self, task: Task, model: Model) -> TrainResult:
        time.sleep(self.job_s)
        return TrainResult(task.id, model.weights, model.buffers, 1)


@pytest.mark.parametrize(("job_s", "changes_after"), [(0.02, 5), (0.0, None)])
def test_auto_changes_when_and_only_when_it_pays(
    job_s: float, changes_after: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "PATIENCE_S", 0.1 if job_s else 0.0)
    there = Inline(Busy(0.0))
    executor = Auto(Busy(job_s), lambda: there)
    for task in range(12):
        executor.submit(Task(task, 0, 0, 0.0), MODEL, 0.0)
    executor.cancel(11)
    changed = []
    for task in range(10):
        assert executor.result(task).task == task
        changed.append(executor._executor is there)
    assert changed == [changes_after is not None and n + 1 >= changes_after for n in range(10)]
    if changes_after:
        assert set(there._jobs) == {10}, "neither what was computed nor what was cancelled"


def test_auto_stays_inline_where_nothing_is_gained(monkeypatch: pytest.MonkeyPatch) -> None:
    def workers(name: str, **more: Any) -> int:
        tables = configuration("fedbuff", name).to_dict()
        tables["executor"] |= more.pop("executor", {})
        return _workers(Config.from_dict({**tables, **more}))

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    plain = configuration("fedbuff", "auto").to_dict()
    del plain["executor"]["workers"]
    assert _workers(Config.from_dict(plain)) == 6
    plain["executor"]["threads"] = 4
    assert _workers(Config.from_dict(plain)) == 0, "one worker"
    assert workers("auto") == workers("processes") == 2
    assert workers("auto", executor={"workers": 1}) == 0
    assert workers("processes", executor={"workers": 1}) == 1
    assert workers("auto", server={"concurrency": 1}) == 0
    assert workers("inline") == 0
    monkeypatch.setattr("multiprocessing.parent_process", lambda: object())
    assert workers("auto") == 0
    assert workers("processes") == 2


# ------------------------------------------------------------------------------------------------------ nothing is left


def running(session: int) -> list[str]:
    """What runs in a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    found.append((entry / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("how", ["ctrl-c", "kill"])
def test_nothing_is_left_of_a_run_that_is_stopped_or_killed(how: str, tmp_path: Path) -> None:
    config, folder = tmp_path / "config.toml", tmp_path / "run"
    settings = configuration("fedbuff", experiment={"updates": 600}, records={"checkpoint_every_s": 0.05})
    config.write_text(settings.to_toml())
    shared = set(Path("/dev/shm").iterdir()) if Path("/dev/shm").exists() else set()
    child = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "fedecho", "run", str(config), "--out", str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert child.stdout is not None
    for line in child.stdout:
        if line.split()[3] == "50":  # updates: the workers are at it
            break
    assert sum("fedecho" in line for line in running(child.pid)) >= 3, running(child.pid)
    if how == "kill":
        child.kill()
    else:
        os.killpg(child.pid, signal.SIGINT)  # what a terminal does
    _, errors = child.communicate(timeout=60)
    if how == "ctrl-c":
        assert errors.startswith("fedecho: stopped at "), errors
        assert errors.count("\n") == 1
        assert child.returncode == 130
    until = time.perf_counter() + 20
    while running(child.pid) and time.perf_counter() < until:
        time.sleep(0.05)
    assert running(child.pid) == []
    if Path("/dev/shm").exists():
        assert not {path for path in set(Path("/dev/shm").iterdir()) - shared if "fedecho" in path.name}
    assert resume(folder).updates == 600
