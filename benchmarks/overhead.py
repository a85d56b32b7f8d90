"""What the engine costs: a run's wall time over that of a bare PyTorch loop doing the same local steps.

    python benchmarks/overhead.py [--updates 60] [--pairs 5] [--model lenet5|mlp]

Both in this process, on one thread, in turn (engine, bare, engine, bare, …), so that the ratio holds although the
machine's speed drifts. The bare loop trains the same clients on the same batches in the same number of steps with
`torch.optim.SGD`, in the same memory format, and nothing else: no server, no clock, no aggregation, no evaluation.
Beside it, the plain loop: the same in PyTorch's default memory format.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from fedecho.assembly import Setup, prepare
from fedecho.config import Config
from fedecho.messages import Event, Fact
from fedecho.server import serve
from fedecho.transports.simulated import SimulatedTransport


class Log:
    """A journal that remembers which client worked on which task."""

    def __init__(self) -> None:
        self.tasks: list[tuple[int, int, int]] = []

    def accept(self, event: Event) -> None: ...

    def commit(self, facts: list[Fact]) -> None:
        for fact in facts:
            if fact.kind == "accept" and fact.client is not None and fact.task is not None:
                self.tasks.append((fact.client, fact.task, fact.version or 0))


def engine(config: Config) -> tuple[float, Setup, list[tuple[int, int, int]]]:
    """Seconds of one run (set-up and evaluation not included), its parts, and the jobs it did."""
    setup, log = prepare(config), Log()
    transport = SimulatedTransport(setup.population, setup.executor)
    began = time.perf_counter()
    serve(setup.server, transport, log)
    return time.perf_counter() - began, setup, log.tasks


def bare(setup: Setup, tasks: list[tuple[int, int, int]], build: Callable[[], nn.Module], channels_last: bool) -> float:
    """Seconds of a plain loop over the same jobs."""
    data, how, key = setup.data, setup.config.client, setup.learner._key
    module = build()
    inputs = data.inputs
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/fashion_mnist_large.toml")
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--model", default="lenet5")
    given = parser.parse_args()
    overrides = [f"experiment.updates={given.updates}", f"model.name={given.model}"]
    if given.model == "mlp":
        overrides.append("model.hidden=[512, 256]")
    config = Config.load(given.config, "fedbuff", overrides)
    rows = []
    for pair in range(given.pairs + 1):  # the first pair warms up
        seconds, setup, tasks = engine(config)
        build = _builder(setup)
        same = bare(setup, tasks, build, channels_last=setup.learner.channels_last)
        plain = bare(setup, tasks, build, channels_last=False) if setup.learner.channels_last else same
        if pair:
            rows.append((seconds, same, plain))
            print(f"pair {pair}: engine {seconds:.2f} s, bare {same:.2f} s, plain {plain:.2f} s", flush=True)
    for name, place in (("the same memory format", 1), ("PyTorch's default format", 2)):
        ratios = [row[0] / row[place] for row in rows]
        print(
            f"{given.model}: wall time over a bare loop in {name}: median {statistics.median(ratios):.3f} "
            f"({min(ratios):.3f} to {max(ratios):.3f}, {len(ratios)} pairs of {given.updates} updates, 1 thread)"
        )


def _builder(setup: Setup) -> Callable[[], nn.Module]:
    from fedecho.learning.models import MODELS

    model, data = setup.config.model, setup.data
    shape = tuple(data.inputs.shape[1:])
    return lambda: MODELS[model.name](shape, data.classes, **model.options)


if __name__ == "__main__":
    main()
