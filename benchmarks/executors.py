"""Executors against each other: updates a second on the same work.

    python benchmarks/executors.py [--updates 100] [--rounds 3] [--model lenet5|mlp]

FedBuff on Fashion-MNIST as in configs/fashion_mnist_large.toml, in turn (each executor once, then each again), so
that the ratios hold although the machine's speed drifts. Loading the data is not counted, starting workers is.
"""

from __future__ import annotations

import argparse
import statistics
import time

from fedecho.assembly import prepare
from fedecho.config import Config
from fedecho.server import serve
from fedecho.transports.simulated import SimulatedTransport
from overhead import Log

HOW = {
    "inline, 1 thread": ["executor.name=inline"],
    "inline, 2 threads": ["executor.name=inline", "executor.threads=2"],
    "processes, 1 worker": ["executor.name=processes", "executor.workers=1"],
    "processes, 2 workers": ["executor.name=processes", "executor.workers=2"],
    "auto": ["executor.name=auto"],
}


def seconds(config: Config) -> tuple[float, float]:
    """Of one run, evaluation not included; and of the clients' training in it, over all processes."""
    setup = prepare(config)
    began = time.perf_counter()
    try:
        serve(setup.server, SimulatedTransport(setup.population, setup.executor), Log())
        took = time.perf_counter() - began
        return took, setup.learner.seconds["train_s"] + setup.executor.seconds.get("train_s", 0.0)
    finally:
        setup.executor.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/fashion_mnist_large.toml")
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="lenet5")
    given = parser.parse_args()
    common = [f"experiment.updates={given.updates}", f"model.name={given.model}"]
    if given.model == "mlp":
        common.append("model.hidden=[512, 256]")
    configs = {name: Config.load(given.config, "fedbuff", [*common, *how]) for name, how in HOW.items()}
    seconds(Config.load(given.config, "fedbuff", [*common, "experiment.updates=10", *HOW["processes, 2 workers"]]))
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in configs}
    for _ in range(given.rounds):
        for name, config in configs.items():
            found[name].append(seconds(config))
    base = found["inline, 1 thread"]
    print(f"{given.model}, {given.updates} updates, {given.rounds} rounds: median (smallest to largest)")
    print(f"{'':22} {'updates a second':>16} {'times inline, 1 thread':>24} {'training, of inline':>20}")
    for name, runs in found.items():
        ratios = [one[0] / other[0] for one, other in zip(base, runs, strict=True)]
        work = statistics.median(other[1] / one[1] for one, other in zip(base, runs, strict=True))
        rate = given.updates / statistics.median(run[0] for run in runs)
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{name:22} {rate:16.1f} {spread:>24} {work:20.2f}")


if __name__ == "__main__":
    main()
