"""How fast the engine is by itself: events a second of a run whose clients train nothing.

    python benchmarks/events.py [--quick] [--events 20000] [--repeats 5]

The server, FedBuff, the virtual clock and the population of a real run, a model of ten weights; a client answers with
the model that it was sent, moved a little. An arrival makes a dispatch too, and every fifth an aggregation: the events
that the records count, 2.2 an arrival. With `records` the journal writes them into a run folder.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from fedecho.algorithms.fedbuff import FedBuff
from fedecho.core.keys import Key
from fedecho.core.messages import Event, LogEntry, Model, Task, TrainResult
from fedecho.executors.inline import Inline
from fedecho.runs.folder import RunFolder
from fedecho.server.loop import serve
from fedecho.server.server import Server
from fedecho.server.settings import ServerConfig, Stop
from fedecho.simulation.build import build
from fedecho.simulation.transport import SimulatedTransport
from measure import Row, command

OPTIONS = {"events": (20_000, 20_000), "repeats": (5, 3)}


class Idle:
    """A client that trains nothing."""

    def __init__(self, weights: int) -> None:
        self.step = torch.full((weights,), 1e-3)

    def train(self, task: Task, model: Model) -> TrainResult:
        return TrainResult(task.id, model.weights + self.step, model.buffers, 1, {"loss": 0.5})


class Nothing:
    """A journal that keeps nothing."""

    def accept(self, event: Event) -> None: ...

    def commit(self, facts: Sequence[LogEntry]) -> None: ...


class Records:
    """A journal that writes a run folder, as a run's does, with a flush every thousand events."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.seq = folder, 0

    def accept(self, event: Event) -> None:
        self.seq += 1
        self.folder.add_inbox(self.seq, event)

    def commit(self, facts: Sequence[LogEntry]) -> None:
        for fact in facts:
            self.folder.add_log_entry(self.seq, fact)
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


def rows(given: argparse.Namespace) -> Iterator[Row]:
    torch.set_num_threads(1)
    rate(50, 25, 2000)  # warms up
    for clients, concurrency, records in ((50, 25, False), (10_000, 1_000, False), (10_000, 1_000, True)):
        found = [rate(clients, concurrency, given.events, records=records) for _ in range(given.repeats)]
        what = f"no training, {clients:,} clients, {concurrency:,} in flight{', records written' if records else ''}"
        yield Row(what, [2.2 * each for each in found], "events/s", "" if records else "≥ 20,000")


if __name__ == "__main__":
    command(__doc__, OPTIONS, rows)
