"""How fast the engine is by itself: events a second of a run whose clients train nothing.

    python benchmarks/events.py [--events 20000] [--repeats 5]

The server, FedBuff, the virtual clock and the population of a real run, a model of ten weights; a client answers with
the model that it was sent, moved a little. An arrival makes a dispatch too, and every fifth an aggregation: the events
that the records count, 2.2 an arrival. With `records` the journal writes them into a run folder.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from fedecho.algorithms.fedbuff import FedBuff
from fedecho.messages import Event, Fact, Model, Task, Update
from fedecho.population import build
from fedecho.records import RunFolder
from fedecho.rng import Key
from fedecho.server import Server, ServerConfig, Stop, serve
from fedecho.transports.executors import Inline
from fedecho.transports.simulated import SimulatedTransport


class Idle:
    """A client that trains nothing."""

    def __init__(self, weights: int) -> None:
        self.step = torch.full((weights,), 1e-3)

    def train(self, task: Task, model: Model) -> Update:
        return Update(task.id, model.weights + self.step, model.buffers, 1, {"loss": 0.5})


class Nothing:
    """A journal that keeps nothing."""

    def accept(self, event: Event) -> None: ...

    def commit(self, facts: Sequence[Fact]) -> None: ...


class Records:
    """A journal that writes a run folder, as a run's does, with a flush every thousand events."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.seq = folder, 0

    def accept(self, event: Event) -> None:
        self.seq += 1
        self.folder.add_inbox(self.seq, event)

    def commit(self, facts: Sequence[Fact]) -> None:
        for fact in facts:
            self.folder.add_fact(self.seq, fact)
        if self.seq % 1000 == 0:
            self.folder.flush()


def rate(clients: int, concurrency: int, events: int, weights: int = 10, records: bool = False) -> float:
    """Arrivals a second, set-up not included."""
    population = build(clients, Key(0), name="large")
    model = Model(0, torch.zeros(weights), torch.zeros(0))
    config = ServerConfig(concurrency=concurrency)
    server = Server(FedBuff(5), model, clients, Key(0), Stop(updates=events), config)
    transport = SimulatedTransport(population, Inline(Idle(weights)))
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder.create(Path(place) / "run", "", {}) if records else None
        began = time.perf_counter()
        serve(server, transport, Nothing() if folder is None else Records(folder))
        if folder is not None:
            folder.close()
        return events / (time.perf_counter() - began)


def _spread(rates: Sequence[float]) -> str:
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'clients':>8} {'in flight':>10} {'records':>8} {'arrivals a second':>26} {'recorded events a second':>26}")
    for clients, concurrency, records in ((50, 25, False), (10_000, 1_000, False), (10_000, 1_000, True)):
        found = sorted(rate(clients, concurrency, given.events, records=records) for _ in range(given.repeats))
        spreads = [_spread([each * rate for rate in found]) for each in (1.0, 2.2)]
        print(
            f"{clients:8} {concurrency:10} {'yes' if records else 'no':>8} {spreads[0]:>26} {spreads[1]:>26}",
            flush=True,
        )


if __name__ == "__main__":
    main()
