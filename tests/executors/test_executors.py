"""What holds for every executor, and for a user's own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fedecho import Config, run
from fedecho.core.errors import ConfigError
from fedecho.executors import EXECUTORS, Executor, Resources, executor_class

OWN = '''
from fedecho.executors import Executor


class LastMoment(Executor):
    """Trains in this process, and counts what it does."""

    name = "last_moment"
    seconds = {}
    trained = 0

    def __init__(self, learner):
        self.learner, self.jobs = learner, {}

    @classmethod
    def create(cls, context):
        return cls(context.learner)

    def submit(self, task, model, needed_at_s):
        self.jobs[task.id] = (task, model)

    def result(self, task):
        type(self).trained += 1
        return self.learner.train(*self.jobs.pop(task))

    def cancel(self, task):
        self.jobs.pop(task, None)

    def close(self):
        self.jobs.clear()


class Stranger:
    pass
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_executor.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_executor", raising=False)
    return "own_executor"


def small(executor: str) -> Config:
    return Config.from_dict(
        {
            "experiment": {"updates": 20, "eval_every": 20},
            "data": {"clients": 8, "unlabeled_size": 20},
            "server": {"concurrency": 4, "buffer_size": 2},
            "executor": {"name": executor},
        }
    )


@pytest.mark.parametrize("name", EXECUTORS)
def test_an_executor_is_found_by_its_name(name: str) -> None:
    cls = executor_class(name)
    assert cls is EXECUTORS[name]
    assert cls.name == name
    assert (cls.__doc__ or "").strip()


@pytest.mark.parametrize("name", EXECUTORS)
def test_workers_that_share_memory(name: str) -> None:
    alone = Resources(workers=4, device="cpu", concurrency=10, in_worker=False)
    expected = 4 if name in ("auto", "processes") else 0
    assert executor_class(name).local_workers(alone) == expected
    beside = Resources(workers=4, device="cpu", concurrency=10, in_worker=True)
    assert executor_class(name).local_workers(beside) == (4 if name == "processes" else 0)


def test_a_users_own_executor_runs_an_experiment(own: str) -> None:
    result = run(small(f"{own}:LastMoment"))
    assert sys.modules[own].LastMoment.trained >= 20
    assert result.model_sha256 == run(small("inline")).model_sha256


def test_a_users_own_executor_that_is_none(own: str) -> None:
    with pytest.raises(ConfigError, match=r"not a class derived from fedecho\.executors\.Executor"):
        executor_class(f"{own}:Stranger")
    with pytest.raises(ConfigError, match="cannot be imported"):
        executor_class(f"{own}:Nobody")
    with pytest.raises(ConfigError, match="there are auto, inline, processes, ray, vectorized, or give `module:Class`"):
        executor_class("inlined")
    assert issubclass(executor_class(f"{own}:LastMoment"), Executor)
