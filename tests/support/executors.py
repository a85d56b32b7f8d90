"""Trainers that note what they do, and configurations of runs with workers."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedecho import Config
from fedecho.core.errors import ConfigError
from fedecho.core.messages import Model, Task, TrainResult
from support.learning import Small
from support.runs import LOSSY

MODEL = Model(0, torch.arange(5.0), torch.zeros(2))


@dataclass(frozen=True)
class Workshop:
    """Makes trainers that note in a file what they do; `plan` says what happens to some tasks."""

    notes: Path
    plan: tuple[tuple[int, str], ...] = ()
    sleep_s: float = 0.0
    broken: str = ""

    def __call__(self) -> Workshop:
        if self.broken == "exits":
            os._exit(3)
        if self.broken:
            raise ImportError("no such model here")
        return self

    def train(self, task: Task, model: Model) -> TrainResult:
        with self.notes.open("a") as file:
            file.write(f"{task.id}\n")
        time.sleep(self.sleep_s)
        what = dict(self.plan).get(task.id)
        if what == "die" or (what == "die once" and self.computed().count(task.id) == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "raise":
            raise ConfigError(["one fault", "two faults"])
        if what == "raise its own":
            raise Unportable(1, 2)
        if what == "sleep":
            time.sleep(60)
        extra = {"twice": 2 * model.weights, "lambda": (lambda: 0)} if what == "unportable" else {"n": 1.0}
        return TrainResult(task.id, model.weights + task.id, model.buffers, 1, {"loss": 0.5}, None, extra)  # type: ignore[arg-type]

    def computed(self) -> list[int]:
        return [int(line) for line in self.notes.read_text().split()] if self.notes.exists() else []


class Unportable(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__("cannot be unpickled")


def check(update: TrainResult, task: int) -> None:
    assert update.task == task
    assert torch.equal(update.weights, MODEL.weights + task)
    assert update.extra == {"n": 1.0}


METHODS: dict[str, dict[str, Any]] = {
    "fedbuff": {"population": LOSSY},
    "fedbuff+echo": {"stages": {"name": "echo", "steps": 2}, "population": {**LOSSY, "name": "large"}},
    "fedac": {"algorithm": {"name": "fedac"}},
    "fedavg": {"algorithm": {"name": "fedavg", "cohort": 5, "over_selection": 0.6, "round_deadline_s": 4.0}},
    "batch norm, dropout": {"model": {"name": "support.executors:Images", "dropout": 0.3}, "stages": {"name": "echo"}},
}


class Images(nn.Module):
    """`Small` for the digits' 64 numbers, as images: a convolution, batch norm and dropout."""

    def __init__(self, shape: tuple[int, ...], classes: int, dropout: float) -> None:
        super().__init__()
        self.inner = Small((1, 8, 8), classes, dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.inner(x.reshape(-1, 1, 8, 8))
        return out


def configuration(method: str, name: str = "processes", **more: Any) -> Config:
    tables: dict[str, Any] = {
        "experiment": {"updates": 60, "eval_every": 20},
        "data": {"clients": 15, "unlabeled_size": 60},
        "model": {"hidden": [16]},
        "client": {"epochs": 1, "batch_size": 20},
        "server": {"concurrency": 10, "buffer_size": 4},
        **METHODS[method],
        **more,
        "executor": {"name": name, "workers": 2},
    }
    return Config.from_dict(tables)
