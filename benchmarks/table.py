"""All that this project says of its speed, measured again: one table.

    python benchmarks/table.py [--quick] [--json] [--only overhead,echo] [--all]

Each script runs by itself, one after the other, and can be run alone for more repetitions. `flower` (real SuperNodes)
and `peers` (other simulators, in environments of their own: `benchmarks/peers.py install`) run with --all, or by name.
A script that fails is named at the end, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from measure import Row, show
from peers import PEERS

HERE = Path(__file__).resolve().parent
SCRIPTS = {
    "overhead": ["overhead.py"],
    "overhead_mlp": ["overhead.py", "--model", "mlp"],
    "executors": ["executors.py"],
    "vectorized": ["vectorized.py"],
    "echo": ["echo.py"],
    "events": ["events.py"],
    "memory": ["memory.py"],
    "flower": ["flower.py"],
    "peers": ["peers.py", "run"],
}
BY_NAME = ("flower", "peers")
QUICK = {"peers": ["--pairs", "1"]}
PEER_TARGETS = {"processes": "≤ 0.56", "pfl": "> 1.00", "appfl_fast": "> 1.00", "appfl": "≥ 3.00", "flgo": "≥ 3.00"}
"""Of the wall time over ours with one thread; our own two workers are to do 1.8 times the work."""


def peer_rows(runs: Mapping[str, Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]]) -> list[Row]:
    """Of what the drivers told, for each peer in pairs (ours, the peer's)."""
    return [
        Row(f"{PEERS[name].title}: {what} over ours", [peer[key] / ours[key] for ours, peer in pairs], "", target)
        for name, pairs in runs.items()
        for key, what, target in (("wall_s", "time", PEER_TARGETS.get(name, "")), ("cpu_s", "CPU time", ""))
    ]


def rows(names: list[str], quick: bool, failed: list[str]) -> Iterator[Row]:
    for name in names:
        print(f"{name} …", file=sys.stderr, end="", flush=True)
        script, *options = SCRIPTS[name]
        words = [
            sys.executable,
            str(HERE / script),
            *options,
            "--json",
            *(QUICK.get(name, ["--quick"]) if quick else []),
        ]
        began = time.perf_counter()
        ran = subprocess.run(words, capture_output=True, text=True, check=False, cwd=HERE.parent)
        print(f" {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        try:
            told = json.loads(ran.stdout)
            found = peer_rows(told) if name == "peers" else [Row(**row) for row in told["rows"]]
        except (ValueError, KeyError, TypeError):
            failed.append(name)
            print(f"{name} failed:\n{ran.stdout[-500:]}\n{ran.stderr[-2000:]}", file=sys.stderr, flush=True)
            continue
        yield from found


def main() -> None:
    present = [name for name, (script, *_) in SCRIPTS.items() if (HERE / script).exists()]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions of less work: minutes")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    parser.add_argument("--only", metavar="NAME,…", help=f"of {', '.join(present)}")
    parser.add_argument("--all", action="store_true", help=f"{' and '.join(BY_NAME)}, too")
    given = parser.parse_args()
    names = given.only.split(",") if given.only else [n for n in present if given.all or n not in BY_NAME]
    if unknown := sorted(set(names) - set(present)):
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(present)}")
    failed: list[str] = []
    show(rows(names, given.quick, failed), given.json)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
