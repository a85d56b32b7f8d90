"""What a run's processes hold together, at most, against the number of clients and the versions in flight.

    python benchmarks/memory.py [--quick] [--updates 1200] [--clients 100,1000,10000]

LeNet-5 on Fashion-MNIST, a tenth of the clients at work at once, two workers. FedEcho keeps a bank of at most 1,000
float16 rows; FedBuff with 10,000 clients aggregates at every fifth arrival, or at each: then nearly every job in flight
has a version of its own. A page that several processes share counts once (PSS, from Linux's /proc, read every 0.1 s).
Beside it an upper bound that misses no peak: each process's own high-water mark, summed, a shared page counting in
each.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from measure import FASHION, Row, command

OPTIONS = {"config": (FASHION, FASHION), "updates": (1200, 1200), "clients": ("100,1000,10000", "10000")}
EVERY_S = 0.1


def tree(root: int) -> list[int]:
    """The process and all below it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for process in found:
        found += parents.get(process, [])
    return found


def held_mib(processes: list[int], file: str, field: str) -> dict[int, float]:
    """A field of each process's file in /proc, in MiB; of those that are still there."""
    found = {}
    for process in processes:
        try:
            lines = Path(f"/proc/{process}/{file}").read_text().splitlines()
        except OSError:
            continue
        found[process] = sum(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024
    return found


def peak(config: str, algorithm: str, clients: int, settings: list[str]) -> tuple[float, float]:
    """The most that a run's processes held together, and the sum of what each held at most; MiB."""
    third = clients // 3
    settings = [
        "experiment.eval_every=1000000", f"data.clients={clients}", "data.partition=iid",
        f"server.concurrency={clients // 10}", f"population.class_counts=[{clients - 2 * third}, {third}, {third}]",
        "executor.name=processes", "executor.workers=2", *settings,
    ]  # fmt: skip
    options = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "fedecho.cli.main", "run", config, "--algorithm", algorithm, "--json"]
    most, marks = 0.0, dict[int, float]()
    with tempfile.TemporaryDirectory() as place:
        words = [*command, "--out", f"{place}/run", *options]
        child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ})
        while child.poll() is None:
            processes = tree(child.pid)
            most = max(most, sum(held_mib(processes, "smaps_rollup", "Pss").values()))
            marks |= held_mib(processes, "status", "VmHWM")
            time.sleep(EVERY_S)
    if child.returncode:
        raise SystemExit(f"{' '.join(words)} failed with exit code {child.returncode}")
    return most, sum(marks.values())


def rows(given: argparse.Namespace) -> Iterator[Row]:
    length = f"experiment.updates={given.updates}"
    bank = [length, "stages.max_rows=1000", "stages.row_dtype=float16"]
    for clients in map(int, given.clients.split(",")):
        most, marks = peak(given.config, "fedecho", clients, bank)
        what = f"FedEcho, {clients:,} clients, {clients // 10:,} in flight: all processes"
        yield Row(what, [most], "MiB", "< 2,048" if clients == 10_000 else "")
        yield Row("  upper bound: high-water marks, summed", [marks], "MiB", "< 2,048" if clients == 10_000 else "")
    for size in (5, 1):
        most, _ = peak(given.config, "fedbuff", 10_000, [length, f"server.buffer_size={size}"])
        yield Row(f"FedBuff, 10,000 clients, 1,000 in flight, M = {size}: all processes", [most], "MiB")


if __name__ == "__main__":
    command(__doc__, OPTIONS, rows)
