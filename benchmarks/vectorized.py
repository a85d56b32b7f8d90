"""The vectorized executor against inline: updates a second on the same work, with FedBuff.

    python benchmarks/vectorized.py [--quick] [--model digits,fashion_mlp,lenet5] [--batches 8,16,25] [--rounds 3]
    python benchmarks/vectorized.py --device cuda --model lenet5 --batches 64

In turn (inline, then each batch size, then again), in this process, on one torch thread. On a GPU: LeNet-5 with 64
clients at work at once, against inline, which is the sequential loop there (benchmarks/overhead.py), and the share of a
run in which the card was busy, as `nvidia-smi` tells ten times a second.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator

import torch

from fedecho.config.config import Config
from fedecho.experiment.build import prepare
from fedecho.server.loop import serve
from fedecho.simulation.transport import SimulatedTransport
from measure import FASHION, Log, Row, command

OPTIONS = {
    "model": ("digits,fashion_mlp,lenet5", "digits,fashion_mlp"),
    "batches": ("8,16,25", "16"),
    "rounds": (3, 2),
    "device": ("cpu", "cpu"),
}
MODELS = {
    "digits": ("configs/digits_large.toml", 150),
    "fashion_mlp": ("configs/studies/fashion_mlp.toml", 100),
    "lenet5": (FASHION, 30),
}
ON_GPU = ["server.concurrency=64", "data.clients=128", "population.class_counts=[75,36,17]"]


def rows(given: argparse.Namespace) -> Iterator[Row]:
    on_gpu = given.device != "cpu"
    for name in given.model.split(","):
        path, updates = MODELS[name]
        updates *= 10 if on_gpu else 1
        common = [f"experiment.device={given.device}", *(ON_GPU if on_gpu else [])]
        how = {f"batch {size}": f"vectorized executor.batch={size}".split() for size in given.batches.split(",")}
        configs = {
            label: [Config.load(path, "fedbuff", [*common, f"experiment.updates={n}", f"executor.name={which}", *more])
                    for n in (10, updates)]
            for label, (which, *more) in {"inline": ["inline"], **how}.items()
        }  # fmt: skip
        for few, _ in configs.values():  # kernels are chosen and memory is taken at first use
            seconds(few)
        rates: dict[str, list[float]] = {label: [] for label in configs}
        for _ in range(given.rounds):
            for label, (_, config) in configs.items():
                rates[label].append(updates / seconds(config))
        yield Row(f"{name}, inline", rates["inline"], "updates/s")
        for label in how:
            ratios = [one / other for one, other in zip(rates[label], rates["inline"], strict=True)]
            target = "≥ 10.0" if on_gpu and name == "lenet5" else ""
            yield Row(f"{name}, vectorized, {label}: updates/s over inline", ratios, "", target)
        for label, (_, config) in configs.items() if on_gpu else ():
            torch.cuda.reset_peak_memory_stats()
            share = Share()
            share.start()
            seconds(config)
            card = torch.cuda.get_device_name()
            yield Row(f"{name}, {label}: peak memory, {card}", [torch.cuda.max_memory_allocated() / 2**20], "MiB")
            yield Row(f"{name}, {label}: how busy the card was", [share.stop()], "%")


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
    _wait(config.experiment.device)
    began = time.perf_counter()
    serve(setup.server, SimulatedTransport(setup.population, setup.executor), Log())
    _wait(config.experiment.device)
    took = time.perf_counter() - began
    setup.close()
    return took


def _wait(device: str) -> None:
    """Until all that was launched is computed."""
    if device != "cpu":
        torch.cuda.synchronize()


if __name__ == "__main__":
    command(__doc__, OPTIONS, rows)
