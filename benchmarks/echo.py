"""What FedEcho costs over FedBuff: wall time on the same work, one thread, in pairs.

    python benchmarks/echo.py [--quick] [--updates 20] [--pairs 3]

LeNet-5 on Fashion-MNIST (50 clients, about 1,160 images each), two epochs, Q = 10 distillation steps on batches of 50;
for several sizes of the unlabeled set, and with at most 200 images a client. Both are real runs of the same clients
on the same jobs, without evaluation; the two take turns to run first. Below each ratio is the share of FedEcho's time
that the predictions on U take, by its own clock.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from fedecho.config.config import Config
from measure import FASHION, Row, command, engine

OPTIONS = {"config": (FASHION, FASHION), "updates": (20, 10), "pairs": (3, 2)}

METHODS = ("fedbuff", "fedecho")
CASES = {
    "about 1,160 images a client, |U| = 2000": ([], "≤ 1.35"),
    "about 1,160 images a client, |U| = 1000": (["data.unlabeled_size=1000"], ""),
    "about 1,160 images a client, |U| = 500": (["data.unlabeled_size=500"], ""),
    "200 images a client, |U| = 2000": (["data.max_examples=200"], ""),
    "200 images a client, |U| = 500": (["data.max_examples=200", "data.unlabeled_size=500"], ""),
}


def rows(given: argparse.Namespace) -> Iterator[Row]:
    for case, (settings, target) in CASES.items():
        updates = given.updates * (4 if case.startswith("200") else 1)
        common = ["client.epochs=2", "data.validation=0", *settings]
        for name in METHODS:  # warms up
            engine(Config.load(given.config, name, [*common, "experiment.updates=5"]))
        configs = {n: Config.load(given.config, n, [*common, f"experiment.updates={updates}"]) for n in METHODS}
        ratios, shares = [], []
        for pair in range(given.pairs):
            seconds = {}
            for name in METHODS if pair % 2 == 0 else reversed(METHODS):
                seconds[name], setup, _ = engine(configs[name])
                if name == "fedecho":
                    shares.append(100 * setup.learner.seconds["infer_s"] / seconds[name])
            ratios.append(seconds["fedecho"] / seconds["fedbuff"])
        yield Row(f"FedEcho over FedBuff: {case}", ratios, "", target)
        yield Row("  of FedEcho's time, predictions on U", shares, "%")


if __name__ == "__main__":
    command(__doc__, OPTIONS, rows)
