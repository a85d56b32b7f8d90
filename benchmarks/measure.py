"""What the benchmarks share: a row of their table, their options, the machine they ran on."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fedecho.config.config import Config
from fedecho.core.messages import Event, LogEntry
from fedecho.experiment.build import prepare
from fedecho.experiment.setup import Setup
from fedecho.server.loop import serve
from fedecho.simulation.transport import SimulatedTransport

FASHION = "configs/fashion_mnist_large.toml"


# -- rows and options


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        what: was measured.
        values: of each repetition, the warm-up not among them.
        unit: of the values; "" for a ratio.
        target: what it should be, if that was ever said.
    """

    what: str
    values: Sequence[float]
    unit: str = ""
    target: str = ""

    @property
    def measured(self) -> str:
        """Median, and the spread where there is one."""
        middle, low, high = (self._told(f(self.values)) for f in (statistics.median, min, max))
        spread = f" ({low}–{high})" if len(self.values) > 1 else ""
        return f"{middle}{spread}{' ' if self.unit else ''}{self.unit}"

    def _told(self, value: float) -> str:
        return f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}"

    def __str__(self) -> str:
        return f"| {self.what:72} | {self.measured:34} | {self.target:10} |"


HEADING = f"| {'what':72} | {'measured: median (min–max)':34} | {'target':10} |\n|{'-' * 74}|{'-' * 36}|{'-' * 12}|"

Options = Mapping[str, tuple[Any, Any]]
"""A script's options: what each is, and what it is with --quick."""


def command(doc: str | None, options: Options, rows: Callable[[argparse.Namespace], Iterator[Row]]) -> None:
    """A script's command line: its own options, --quick and --json; prints its rows as they come."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, (usual, quick) in options.items():
        parser.add_argument(f"--{name}", type=type(usual), help=f"{usual}; with --quick {quick}")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions of less work")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    given = parser.parse_args()
    for name, pair in options.items():
        if getattr(given, name) is None:
            setattr(given, name, pair[given.quick])
    show(rows(given), given.json)


def show(rows: Iterable[Row], as_json: bool) -> None:
    about = machine()
    if not as_json:
        print(f"{about}\n\n{HEADING}", flush=True)
    found = []
    for row in rows:
        found.append(asdict(row))
        if not as_json:
            print(row, flush=True)
    if as_json:
        print(json.dumps({"machine": about, "rows": found}, ensure_ascii=False))


def machine() -> str:
    """The machine, and how busy it is just now."""
    told = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in told if line.startswith("model name")]
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return (
        f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {platform.system()}, Python "
        f"{platform.python_version()}, torch {torch.__version__}; load average {load}"
    )


# -- a run without its evaluation


class Log:
    """A journal that remembers which client worked on which task."""

    def __init__(self) -> None:
        self.tasks: list[tuple[int, int, int]] = []

    def accept(self, event: Event) -> None: ...

    def commit(self, facts: Sequence[LogEntry]) -> None:
        for fact in facts:
            if fact.kind == "accept" and fact.client is not None and fact.task is not None:
                self.tasks.append((fact.client, fact.task, fact.version or 0))


def engine(config: Config) -> tuple[float, Setup, list[tuple[int, int, int]]]:
    """Seconds of one run (loading and evaluation not included, starting workers is), its parts, the jobs it did."""
    setup, log = prepare(config), Log()
    began = time.perf_counter()
    try:
        serve(setup.server, SimulatedTransport(setup.population, setup.executor), log)
        return time.perf_counter() - began, setup, log.tasks
    finally:
        setup.executor.close()


def model_settings(name: str) -> list[str]:
    return [f"model.name={name}", *(["model.hidden=[512, 256]"] if name == "mlp" else [])]
