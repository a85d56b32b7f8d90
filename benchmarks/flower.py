"""What fedecho's server costs on a live Flower federation, with real processes and clients that sleep: updates per
second over those of the barest loop that Flower's messages allow.

    python benchmarks/flower.py [--job-s 10] [--updates 24] [--pairs 2]

A SuperLink and four SuperNodes on this machine. Each pair runs the same jobs twice: with a loop that only pushes and
pulls messages, and with FedBuff. The bare loop asks for all answers at once, which is cheapest, and stops when a client
is killed while it uploads; fedecho asks for each by itself.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "examples" / "flower"))
from deploy import Deployment  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job-s", type=float, default=10.0)
    parser.add_argument("--updates", type=int, default=24)
    parser.add_argument("--pairs", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, Deployment(Path(temporary), secure=False) as deployment:
        for number in range(4):
            deployment.start_node(number, 4)
        ratios = []
        for pair in range(given.pairs):
            told = {}
            for server in ("bare", "fedbuff") if pair % 2 == 0 else ("fedbuff", "bare"):
                out = Path(temporary) / f"{server}-{pair}.json"
                settings = {"server": server, "job-s": given.job_s, "updates": given.updates, "out": out}
                deployment.run(HERE / "flower_app", settings).wait()
                if not out.exists():
                    raise SystemExit(deployment.log("run").read_text())
                told[server] = json.loads(out.read_text())
                rate = given.updates / told[server]["wall_s"]
                share = told[server]["server_cpu_s"] / told[server]["wall_s"]
                print(f"{server:8} {rate:.3f} updates/s, server busy {100 * share:.1f} % of one core", flush=True)
            ratios.append(told["bare"]["wall_s"] / told["fedbuff"]["wall_s"])
        print(f"fedbuff's updates per second over the bare loop's: {statistics.median(ratios):.3f} {ratios}")


if __name__ == "__main__":
    main()
