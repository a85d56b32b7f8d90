"""The vectorized executor against inline: updates a second on the same work, with FedBuff.

    python benchmarks/vectorized.py [--rounds 3] [--batches 8,16,25] [--model digits|fashion_mlp|lenet5]
    python benchmarks/vectorized.py --device cuda [--batches 64]

In turn (inline, then each batch size, then again), in this process, on one torch thread. On a GPU: LeNet-5 with 64
clients at work at once, against inline, which is the sequential loop there (benchmarks/overhead.py), and the share of
the last runs in which the card was busy, as `nvidia-smi` tells ten times a second.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import threading
import time

import torch

from fedecho.assembly import prepare
from fedecho.config import Config
from fedecho.server import serve
from fedecho.transports.simulated import SimulatedTransport
from overhead import Log

MODELS = {
    "digits": ("configs/digits_large.toml", 150, []),
    "fashion_mlp": ("configs/studies/fashion_mlp.toml", 100, []),
    "lenet5": ("configs/fashion_mnist_large.toml", 30, []),
}
ON_GPU = ["server.concurrency=64", "data.clients=128", "population.class_counts=[75,36,17]", "experiment.device=cuda"]


class Share(threading.Thread):
    """Asks the driver how busy the card is, until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._busy: list[float] = []
        self._over = threading.Event()

    def run(self) -> None:
        ask = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-i", "0"]
        while not self._over.wait(0.1):
            self._busy.append(float(subprocess.run(ask, capture_output=True, text=True, check=True).stdout))

    def stop(self) -> float:
        """The mean share, in per cent; NaN where the driver did not say."""
        self._over.set()
        self.join()
        return statistics.fmean(self._busy) if self._busy else float("nan")


def seconds(config: Config) -> float:
    """Of one run, without set-up and evaluation."""
    setup = prepare(config)
    _done(config)
    began = time.perf_counter()
    serve(setup.server, SimulatedTransport(setup.population, setup.executor), Log())
    _done(config)
    took = time.perf_counter() - began
    setup.close()
    return took


def _done(config: Config) -> None:
    """Wait for the device: what was launched is not yet computed."""
    if config.experiment.device != "cpu":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", default="8,16,25")
    parser.add_argument("--model", choices=list(MODELS), help="default: all; on a GPU lenet5")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    on_gpu = given.device != "cpu"
    for name in [given.model] if given.model else (["lenet5"] if on_gpu else list(MODELS)):
        path, updates, more = MODELS[name]
        common = [f"experiment.updates={updates * (10 if on_gpu else 1)}", *more, *(ON_GPU if on_gpu else [])]
        how = {f"batch {b}": ["executor.name=vectorized", f"executor.batch={b}"] for b in given.batches.split(",")}
        configs = {
            label: Config.load(path, "fedbuff", [*common, *sets])
            for label, sets in {"inline": ["executor.name=inline"], **how}.items()
        }
        for config in configs.values():  # warm up: kernels are chosen and memory is taken at first use
            seconds(Config.from_dict({**config.to_dict(), "experiment": {"updates": 10, "device": given.device}}))
        found: dict[str, list[float]] = {label: [] for label in configs}
        for _ in range(given.rounds):
            for label, config in configs.items():
                found[label].append(seconds(config))
        print(f"{name}, {given.rounds} rounds: updates a second over inline's, median (smallest to largest)")
        for label, took in found.items():
            ratios = [one / other for one, other in zip(found["inline"], took, strict=True)]
            rate = configs[label].experiment.updates or 0
            print(
                f"  {label:10} {rate / statistics.median(took):10.1f} a second {statistics.median(ratios):8.2f} "
                f"({min(ratios):.2f} to {max(ratios):.2f})"
            )
        for label, config in configs.items() if on_gpu else ():
            torch.cuda.reset_peak_memory_stats()
            share = Share()
            share.start()
            seconds(config)
            memory = torch.cuda.max_memory_allocated() / 2**20
            print(f"  {label:10} {share.stop():10.0f} % busy, peak {memory:.0f} MiB, {torch.cuda.get_device_name()}")


if __name__ == "__main__":
    main()
