"""What the engine costs: a run's wall time over that of a bare PyTorch loop doing the same local steps.

    python benchmarks/overhead.py [--quick] [--model lenet5|mlp] [--updates 40] [--pairs 5]

Both in this process, on one thread, in turn, so that the ratio holds although the machine's speed drifts; who begins
alternates. The bare loop trains the same clients on the same batches in the same number of steps with
`torch.optim.SGD`, in the same memory format, and nothing else: no server, no clock, no aggregation, no evaluation.
Beside it, the plain loop: the same in PyTorch's default memory format.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F

from fedecho.config.config import Config
from fedecho.experiment.setup import Setup
from fedecho.learning.models import MODELS
from measure import FASHION, Log, Row, command, engine, model_settings

__all__ = ["Log", "engine"]

OPTIONS = {"config": (FASHION, FASHION), "model": ("lenet5", "lenet5"), "updates": (40, 25), "pairs": (5, 3)}


def bare(setup: Setup, tasks: list[tuple[int, int, int]], channels_last: bool) -> float:
    """Seconds of a plain loop over the same jobs."""
    data, how, key = setup.data, setup.config.client, setup.learner._key
    model, inputs = setup.config.model, data.inputs
    module = MODELS[model.name](tuple(inputs.shape[1:]), data.classes, **model.options)
    if channels_last:
        module = module.to(memory_format=torch.channels_last)
    start = {name: value.clone() for name, value in module.state_dict().items()}
    began = time.perf_counter()
    for client, task, version in tasks:
        module.load_state_dict(start)
        optimizer = torch.optim.SGD(module.parameters(), lr=how.lr)
        first, end = data.offsets[client], data.offsets[client + 1]
        orders = key.fold("train", client, task, version).numpy()
        for _ in range(how.epochs):
            order = torch.from_numpy(orders.permutation(end - first)) + first
            for batch in order.split(how.batch_size):
                x = inputs[batch]
                if channels_last:
                    x = x.contiguous(memory_format=torch.channels_last)
                optimizer.zero_grad()
                F.cross_entropy(module(x), data.labels[batch]).backward()
                optimizer.step()
    return time.perf_counter() - began


def rows(given: argparse.Namespace) -> Iterator[Row]:
    overrides = [f"experiment.updates={given.updates}", *model_settings(given.model)]
    config = Config.load(given.config, "fedbuff", overrides)
    _, setup, tasks = engine(config)  # warms up
    formats = [True, False] if setup.learner.channels_last else [False]
    ratios: dict[bool, list[float]] = {format: [] for format in formats}
    for format in formats:
        bare(setup, tasks[:5], format)
    for pair in range(given.pairs):
        if pair % 2:
            loops = {format: bare(setup, tasks, format) for format in formats}
            seconds = engine(config)[0]
        else:
            seconds = engine(config)[0]
            loops = {format: bare(setup, tasks, format) for format in formats}
        for format, took in loops.items():
            ratios[format].append(seconds / took)
    target = {"lenet5": "≤ 1.00", "mlp": "≤ 1.05"}.get(given.model, "")
    yield Row(f"{given.model}, inline, 1 thread: time over a plain bare loop's", ratios[False], "", target)
    if True in ratios:
        yield Row(f"{given.model}, inline, 1 thread: time over a channels-last bare loop's", ratios[True])


if __name__ == "__main__":
    command(__doc__, OPTIONS, rows)
