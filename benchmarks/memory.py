"""What a run's processes hold together, at most, against the number of clients.

    python benchmarks/memory.py [--updates 1500] [--clients 1000,10000]

FedEcho with LeNet-5 on Fashion-MNIST, a tenth of the clients at work at once, a bank of at most 1,000 float16 rows, two
workers. A page that several processes share counts once (PSS, from Linux's /proc).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path


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


def held_mib(processes: list[int]) -> float:
    total = 0
    for process in processes:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/fashion_mnist_large.toml")
    parser.add_argument("--updates", type=int, default=1500)
    parser.add_argument("--clients", default="1000,10000")
    given = parser.parse_args()
    print(f"{'clients':>8} {'in flight':>10} {'most held together':>20} {'updates a second':>18}")
    for clients in map(int, given.clients.split(",")):
        settings = [
            f"experiment.updates={given.updates}", "experiment.eval_every=500", f"data.clients={clients}",
            "data.partition=iid", f"server.concurrency={clients // 10}",
            "refine.max_rows=1000", "refine.row_dtype=float16", "executor.name=processes", "executor.workers=2",
        ]  # fmt: skip
        third = clients // 3
        settings.append(f"population.class_counts=[{clients - 2 * third}, {third}, {third}]")
        options = [word for setting in settings for word in ("--set", setting)]
        command = [sys.executable, "-m", "fedecho.cli", "run", given.config, "--algorithm", "fedecho", "--json"]
        began, most = time.perf_counter(), 0.0
        child = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, env={**os.environ})
        while child.poll() is None:
            most = max(most, held_mib(tree(child.pid)))
            time.sleep(0.5)
        assert child.returncode == 0
        rate = given.updates / (time.perf_counter() - began)
        print(f"{clients:8} {clients // 10:10} {most:16.0f} MiB {rate:18.1f}", flush=True)


if __name__ == "__main__":
    main()
