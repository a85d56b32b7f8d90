"""Executors against each other: updates a second on the same work.

    python benchmarks/executors.py [--quick] [--model lenet5|mlp] [--updates 60] [--rounds 3]

FedBuff on Fashion-MNIST as in configs/fashion_mnist_large.toml, in turn (each executor once, then each again, in the
other order), so that the ratios hold although the machine's speed drifts. Loading the data is not counted, starting
workers is.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from fedecho.config.config import Config
from measure import FASHION, Row, command, engine, model_settings

OPTIONS = {"config": (FASHION, FASHION), "model": ("lenet5", "lenet5"), "updates": (60, 50), "rounds": (3, 2)}

HOW = {
    "inline, 1 thread": ["executor.name=inline"],
    "inline, 2 threads": ["executor.name=inline", "executor.threads=2"],
    "processes, 1 worker": ["executor.name=processes", "executor.workers=1"],
    "processes, 2 workers": ["executor.name=processes", "executor.workers=2"],
    "auto": ["executor.name=auto"],
}


def rows(given: argparse.Namespace) -> Iterator[Row]:
    common = [f"experiment.updates={given.updates}", *model_settings(given.model)]
    configs = {name: Config.load(given.config, "fedbuff", [*common, *how]) for name, how in HOW.items()}
    engine(Config.load(given.config, "fedbuff", [*common, "experiment.updates=10", *HOW["processes, 2 workers"]]))
    rates: dict[str, list[float]] = {name: [] for name in configs}
    training: list[float] = []
    for turn in range(given.rounds):
        parts = {}
        for name in list(configs) if turn % 2 == 0 else reversed(list(configs)):
            seconds, setup, _ = engine(configs[name])
            rates[name].append(given.updates / seconds)
            parts[name] = setup.learner.seconds["train_s"] + setup.executor.seconds.get("train_s", 0.0)
        training.append(parts["processes, 2 workers"] / parts["inline, 1 thread"])

    def over(name: str, other: str) -> list[float]:
        return [one / two for one, two in zip(rates[name], rates[other], strict=True)]

    base, best = "inline, 1 thread", "processes, 2 workers"
    yield Row(f"{given.model}, {base}", rates[base], "updates/s")
    for name in configs:
        if name != base:
            target = "≥ 1.90" if name == best else ""
            yield Row(f"{given.model}, {name}: updates/s over {base}", over(name, base), "", target)
    yield Row(f"{given.model}, {best}: updates/s over inline, 2 threads", over(best, "inline, 2 threads"), "", "> 1.00")
    yield Row(f"{given.model}, {best}: the clients' training seconds over {base}", training)


if __name__ == "__main__":
    command(__doc__, OPTIONS, rows)
