"""What FedEcho costs over FedBuff: wall time on the same work, one thread, in turn.

    python benchmarks/echo.py [--updates 25] [--pairs 3]

LeNet-5 on Fashion-MNIST (50 clients, about 1,160 images each), two epochs, Q = 10 distillation steps on batches of 50;
for several sizes of the unlabeled set, and with at most 200 images a client. Evaluation is not counted. Beside the
ratio to FedBuff's time stands FedEcho's own over its own without what the echo does: where other work shares the
machine, that is the steadier of the two.
"""

from __future__ import annotations

import argparse
import statistics

from fedecho.config import Config
from overhead import engine

CASES = {
    "|U| = 2000": [],
    "|U| = 1000": ["data.unlabeled_size=1000"],
    "|U| = 500": ["data.unlabeled_size=500"],
    "|U| = 2000, at most 200 images a client": ["data.max_examples=200"],
    "|U| = 500, at most 200 images a client": ["data.max_examples=200", "data.unlabeled_size=500"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/fashion_mnist_large.toml")
    parser.add_argument("--updates", type=int, default=25)
    parser.add_argument("--pairs", type=int, default=3)
    given = parser.parse_args()
    print(f"FedEcho's wall time over FedBuff's, {given.pairs} pairs: median (smallest to largest); its shares")
    print(f"{'':42} {'ratio':>20} {'by its own clock':>17} {'training':>9} {'on U':>6} {'distilling':>11}")
    for name, settings in CASES.items():
        updates = given.updates * (4 if "200 images" in name else 1)
        common = [f"experiment.updates={updates}", "client.epochs=2", "data.validation=0", *settings]
        ratios, shares = [], []
        for pair in range(given.pairs + 1):  # the first pair warms up
            plain, _, _ = engine(Config.load(given.config, "fedbuff", common))
            echo, setup, _ = engine(Config.load(given.config, "fedecho", common))
            if pair:
                ratios.append(echo / plain)
                shares.append([setup.learner.seconds[kind] / echo for kind in ("train_s", "infer_s", "distill_s")])
        train, infer, distill = (statistics.median(column) for column in zip(*shares, strict=True))
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        own = 1 / (1 - infer - distill)
        print(f"{name:42} {spread:>20} {own:17.2f} {train:9.0%} {infer:6.0%} {distill:11.0%}", flush=True)


if __name__ == "__main__":
    main()
