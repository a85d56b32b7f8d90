"""The work that every driver does, and how it is timed. Needs torch and NumPy only: it runs in each peer's environment.

A driver is called as `python DRIVER.py WORK.npz JOBS SETTING`. Jobs are of equal length (each client has 20 batches of
50), so the number of steps does not depend on whom a peer chooses.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

BATCH, LR = 50, 0.1
CONCURRENCY, BUFFER = 25, 5


@cache
def arrays(path: str) -> dict[str, np.ndarray]:
    """The file of the work, read once."""
    with np.load(path) as held:
        return {name: held[name] for name in held}


class Done(Exception):
    """The last job has been trained."""


class Work:
    """The clients' data, the model, and the clock from the first job to the last."""

    def __init__(self) -> None:
        path, jobs, self.setting = sys.argv[1:4]
        self.path, self.jobs = Path(path), int(jobs)
        torch.set_num_threads(1)
        torch.manual_seed(0)
        held = arrays(str(self.path))
        self.offsets = held["offsets"]
        self.inputs, self.labels = torch.from_numpy(held["inputs"]), torch.from_numpy(held["labels"])
        self.test = torch.from_numpy(held["test_inputs"]), torch.from_numpy(held["test_labels"])
        self.clients = len(self.offsets) - 1
        self.trained, self.steps, self.wall_s, self.cpu_s = 0, 0, 0.0, 0.0

    def client(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs [n, 784] float32 and labels [n] int64 of a client."""
        part = slice(int(self.offsets[number]), int(self.offsets[number + 1]))
        return self.inputs[part], self.labels[part]

    def start(self) -> None:
        """The first job begins. Before it a few steps of a model thrown away, since torch imports much at the first."""
        module = mlp()
        optimizer = torch.optim.SGD(module.parameters(), lr=LR)
        for _ in range(20):
            optimizer.zero_grad()
            F.cross_entropy(module(self.inputs[:BATCH]), self.labels[:BATCH]).backward()
            optimizer.step()
        self.steps = 0
        self._cpu, self._wall = cpu_s(), time.perf_counter()

    def stop(self) -> None:
        """The last job has ended."""
        self.wall_s, self.cpu_s = time.perf_counter() - self._wall, cpu_s() - self._cpu

    def counted(self, train: Callable[..., Any], *, end: bool = True) -> Callable[..., Any]:
        """`train`, which counts; the last job ends the run, where `end`."""

        def counting(*args: Any, **kwargs: Any) -> Any:
            result = train(*args, **kwargs)
            self.trained += 1
            if end and self.trained == self.jobs:
                raise Done
            return result

        return counting

    def watch_steps(self) -> None:
        """Count the steps of every torch optimizer with the clients' step size, by torch's own hook: what was done, not
        what was asked for."""

        def count(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            self.steps += optimizer.param_groups[0]["lr"] == LR

        register_optimizer_step_post_hook(count)

    def tell(self, state: dict[str, torch.Tensor]) -> None:
        """Print what was measured, and the accuracy of the model on the test part (not timed)."""
        model = mlp()
        model.load_state_dict({name: value.detach().clone() for name, value in state.items()})
        with torch.no_grad():
            accuracy = (model(self.test[0]).argmax(1) == self.test[1]).float().mean().item()
        told = {"jobs": self.trained, "steps": self.steps, "wall_s": self.wall_s, "cpu_s": self.cpu_s}
        print(json.dumps({**told, "accuracy": accuracy}), flush=True)


def mlp() -> nn.Sequential:
    """784-512-256-10."""
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))


def declare_torchvision() -> torch.library.Library:
    """Declare the operators whose absence keeps a torchvision built for CUDA from being imported beside a torch for the
    CPU. No driver calls them; keep what is returned."""
    library = torch.library.Library("torchvision", "DEF")
    transforms = ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")
    for name in ("nms", "qnms", *transforms, *(f"_{name}_backward" for name in transforms)):
        library.define(f"{name}(Tensor x) -> Tensor")
    return library


def cpu_s() -> float:
    """User and system seconds of this process and all that descend from it."""
    tick, parents, spent = os.sysconf("SC_CLK_TCK"), {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            parents[int(entry.name)] = int(fields[1])
            spent[int(entry.name)] = sum(map(int, fields[11:15])) / tick
    family, grown = {os.getpid()}, True
    while grown:
        young = {pid for pid, parent in parents.items() if parent in family} - family
        family, grown = family | young, bool(young)
    return sum(spent.get(pid, 0.0) for pid in family)
