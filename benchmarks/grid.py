"""The tuning behind docs/results.md: the same number of candidates for every method, judged on the validation part.

    python benchmarks/grid.py configs/fashion_mnist_large.toml --out runs/grid --jobs 2 --seed 100

Prints a table as each run ends and writes OUT/grid.json. Interrupted, it continues where it stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fedecho.compare import Job, do_all
from fedecho.config import Config, read_toml, resolve
from fedecho.recorder import Result

# One knob per method, four values each, around where its authors or earlier trials put it: FedEcho keeps FedBuff's
# plain step η = 1 and is given four distillation steps η_d, so that nobody has more candidates than another.
GRID: dict[str, tuple[str, tuple[float, ...]]] = {
    "fedasync": ("algorithm.mixing", (0.1, 0.3, 0.6, 0.9)),
    "fedbuff": ("algorithm.lr", (0.1, 0.2, 0.5, 1.0)),
    "ca2fl": ("algorithm.lr", (0.1, 0.2, 0.5, 1.0)),
    "fadas": ("algorithm.lr", (0.0003, 0.001, 0.003, 0.01)),
    "fadas_da": ("algorithm.lr", (0.001, 0.003, 0.01, 0.03)),
    "fedecho": ("refine.lr", (0.02, 0.05, 0.1, 0.2)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=100, help="not one of the seeds of the comparison")
    parser.add_argument("--updates", type=int, default=2500)
    parser.add_argument("--methods", default=",".join(GRID))
    parser.add_argument("--set", action="append", default=[], metavar="table.key=value", help="for every run")
    given = parser.parse_args()
    tables = read_toml(given.config)
    tables.pop("variants", None)  # the choices that this search is there to make
    fixed = [
        f"experiment.seed={given.seed}",
        f"experiment.updates={given.updates}",
        f"experiment.eval_every={max(1, given.updates // 25)}",
        "experiment.evaluate=validation",
        *given.set,
    ]
    jobs = []
    for method in given.methods.split(","):
        key, values = GRID[method]
        for value in values:
            config = Config.from_dict(resolve(tables, method, [*fixed, f"{key}={value}"]))
            jobs.append(Job(f"{method} {key}={value}", given.seed, config, given.out / f"{method}-{value}"))
    found: dict[str, dict[str, float]] = {}

    def finished(job: Job, result: Result) -> None:
        found[job.label] = {"final": result.final_accuracy, "best": result.best_accuracy, "wall_s": result.wall_s}
        print(f"{job.label:34} final {result.final_accuracy:.4f} best {result.best_accuracy:.4f}", flush=True)

    do_all(jobs, given.jobs, finished)
    (given.out / "grid.json").write_text(json.dumps({job.label: found[job.label] for job in jobs}, indent=2) + "\n")


if __name__ == "__main__":
    main()
