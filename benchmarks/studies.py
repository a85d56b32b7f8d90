"""The studies behind docs/studies.md: for each cell, tune every method alike on the validation part, then compare.

    python benchmarks/studies.py large coupled --methods fedbuff,ca2fl,fedecho --out runs/studies --jobs 2

A cell is a configuration and some changes to it (CELLS). Everything is kept below OUT/CELL and taken from there when it
exists: a stopped study continues, a further method adds its runs. OUT/CELL/tuned.toml is what was compared.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import tomli_w

from fedecho.cli.arguments import parse_seeds
from fedecho.cli.progress import JobsScreen
from fedecho.cli.tables import compare_table, tune_table
from fedecho.config.toml import read_toml, resolve
from fedecho.experiment.result import Result
from fedecho.studies import tune
from fedecho.studies.compare import collect, plan, write_manifest
from fedecho.studies.jobs import Failure, Job, run_jobs
from fedecho.studies.summary import summarize

STUDIES = Path(__file__).parent.parent / "configs" / "studies"
NO_STRAGGLER = "population.slow_s=[1.0, 2.0]"
COUPLED = "data.partition=coupled"

CELLS: dict[str, tuple[str, list[str]]] = {
    "large": ("fashion_mlp", []),
    "none": ("fashion_mlp", [NO_STRAGGLER]),
    "mild": ("fashion_mlp", ["population.name=mild"]),
    "coupled": ("fashion_mlp", [COUPLED]),
    "coupled_none": ("fashion_mlp", [COUPLED, NO_STRAGGLER]),
    "large_a03": ("fashion_mlp", ["data.alpha=0.3"]),
    "none_a03": ("fashion_mlp", ["data.alpha=0.3", NO_STRAGGLER]),
    "mild_a03": ("fashion_mlp", ["data.alpha=0.3", "population.name=mild"]),
    "tier_2": ("fashion_mlp", ["data.max_examples=200", "client.epochs=2"]),
    "thousand_clients": ("thousand_clients", []),
    "digits_coupled": ("../digits_coupled", ["data.validation=200"]),
    "digits_coupled_none": ("../digits_coupled", ["data.validation=200", NO_STRAGGLER]),
    "lenet": ("../fashion_mnist_large", []),
    "lenet_none": ("../fashion_mnist_large", [NO_STRAGGLER]),
    "lenet_mild": ("../fashion_mnist_large", ["population.name=mild"]),
    "lenet_a03": ("../fashion_mnist_large", ["data.alpha=0.3"]),
    "lenet_none_a03": ("../fashion_mnist_large", ["data.alpha=0.3", NO_STRAGGLER]),
    "lenet_mild_a03": ("../fashion_mnist_large", ["data.alpha=0.3", "population.name=mild"]),
    "lenet_coupled": ("../fashion_mnist_large", [COUPLED]),
    "lenet_coupled_none": ("../fashion_mnist_large", [COUPLED, NO_STRAGGLER]),
    "cifar10_cnn": ("cifar10_cnn", []),
    "cifar10_resnet18": ("cifar10_resnet18", []),
    "newsgroups": ("../newsgroups_large", []),
    "newsgroups_none": ("../newsgroups_large", [NO_STRAGGLER]),
    "shakespeare": ("../shakespeare_large", []),
}

GRIDS: dict[str, dict[str, tune.Grid]] = {
    # From scratch in few versions, with a client's step 20 times that of the other cells: the small steps lead nowhere.
    "shakespeare": {
        "fadas_da": {"algorithm.lr": (0.01, 0.03, 0.1, 0.3)},
        **{method: {"stages.lr": (0.1, 0.3, 1.0, 3.0)} for method in ("fedecho", "fedecho_balanced")},
    },
}
"""Grids for methods whose own grid does not fit a cell: other values, as many."""


def study(cell: str, methods: list[str], seeds: list[int], options: argparse.Namespace) -> None:
    """Tune the methods in a cell, compare them on the seeds, print both tables."""
    base, changes = CELLS[cell]
    tables = resolve(read_toml(STUDIES / f"{base}.toml"), None, changes + options.set)
    out = options.out / cell
    out.mkdir(parents=True, exist_ok=True)
    print(f"== {cell}: {base} {' '.join(changes)}", flush=True)

    grids = {method: GRIDS.get(cell, {}).get(method) or tune.own_grid(tables, method) for method in methods}
    length = [f"experiment.updates={options.tune_updates}"] if options.tune_updates else []
    searched = tune.plan(tables, grids, [options.tune_seed], length, out / "tuning")
    choices = tune.choose(grids, [options.tune_seed], run_all(searched, options.jobs))
    print(tune_table(choices), flush=True)
    best = tune.tuned(tables, choices)
    tuned = out / "tuned.toml"
    if tuned.exists():  # methods of an earlier call stay in it
        best["variants"] = {**read_toml(tuned).get("variants", {}), **{m: best["variants"][m] for m in methods}}
    tuned.write_text(tomli_w.dumps(best), encoding="utf-8")
    if not seeds:
        return
    jobs = plan(best, methods, seeds, [], out / "runs")
    write_manifest(out / "runs", methods, seeds, methods[-1])
    runs, failures = collect(jobs, run_all(jobs, options.jobs))
    print(compare_table(summarize(runs, methods[-1], None, failures)), flush=True)


def run_all(jobs: list[Job], processes: int) -> list[Result | Failure]:
    """The jobs, shown on the terminal."""
    with JobsScreen(jobs, table=True) as screen:
        return run_jobs(jobs, processes, screen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", nargs="+", choices=list(CELLS), metavar="CELL", help=", ".join(CELLS))
    parser.add_argument("--methods", default="fedasync,fedbuff,fedbuff_ema,ca2fl,fadas_da,fedecho")
    parser.add_argument("--seeds", default="0-4", help="may be empty: then it only tunes")
    parser.add_argument("--tune-seed", type=int, default=100, help="none of the comparison's")
    parser.add_argument("--tune-updates", type=int, default=0, help="a shorter run for tuning; 0: as in the comparison")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="table.key=value", help="for every run")
    options = parser.parse_args()
    seeds = parse_seeds(options.seeds) if options.seeds else []
    for cell in options.cells:
        study(cell, options.methods.split(","), seeds, options)


if __name__ == "__main__":
    main()
