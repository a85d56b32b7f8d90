"""What fedecho's server costs on a live Flower federation, with real processes and clients that sleep: updates per
second over those of the barest loop that Flower's messages allow.

    python benchmarks/flower.py [--quick] [--job-s 10] [--updates 24] [--pairs 2]

A SuperLink and four SuperNodes on this machine. Each pair runs the same jobs twice: with a loop that only pushes and
pulls messages, and with FedBuff. The bare loop asks for all answers at once, which is cheapest, and stops when a client
is killed while it uploads; fedecho asks for each by itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from measure import Row, command

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "examples" / "flower"))
from deploy import Deployment  # noqa: E402

OPTIONS = {"job-s": (10.0, 10.0), "updates": (24, 12), "pairs": (2, 1)}


def rows(given: argparse.Namespace) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as temporary, Deployment(Path(temporary), secure=False) as deployment:
        for number in range(4):
            deployment.start_node(number, 4)
        ratios, shares = [], dict[str, list[float]](bare=[], fedbuff=[])
        for pair in range(given.pairs):
            told = {}
            for server in ("bare", "fedbuff") if pair % 2 == 0 else ("fedbuff", "bare"):
                out = Path(temporary) / f"{server}-{pair}.json"
                settings = {"server": server, "job-s": getattr(given, "job-s"), "updates": given.updates, "out": out}
                deployment.run(HERE / "flower_app", settings).wait()
                if not out.exists():
                    raise SystemExit(deployment.log("run").read_text())
                told[server] = json.loads(out.read_text())
                shares[server].append(100 * told[server]["server_cpu_s"] / told[server]["wall_s"])
            ratios.append(told["bare"]["wall_s"] / told["fedbuff"]["wall_s"])
        yield Row("Flower, four nodes: FedBuff's updates/s over a bare message loop's", ratios)
        yield Row("  FedBuff's server: busy, of one core", shares["fedbuff"], "%")
        yield Row("  the bare loop: busy, of one core", shares["bare"], "%")


if __name__ == "__main__":
    command(__doc__, OPTIONS, rows)
