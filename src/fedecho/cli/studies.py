"""The commands on many runs: compare, tune, report."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ..config.toml import read_toml
from ..core.errors import ConfigError, Interrupted
from ..experiment.result import Result
from ..experiment.run import scratch
from ..report import write_report
from ..studies import tune as tuning
from ..studies.compare import Failure, Job, collect, plan, run_jobs, write_manifest
from ..studies.summary import summarize
from .progress import Screen
from .tables import compare_table, tune_table
from .values import comma_separated, seed_numbers, write_out


def compare_command(given: argparse.Namespace) -> int:
    methods = comma_separated(given.algorithms, "--algorithms")
    seeds = seed_numbers(given.seeds)
    if given.reference not in (None, *methods):
        raise ConfigError(f"--reference is {given.reference!r}; give one of {', '.join(methods)}")
    reference = given.reference or methods[-1]
    with scratch() as temporary:
        out = Path(given.out or temporary)
        with Screen(table=not given.json):
            jobs = plan(read_toml(given.config), methods, seeds, given.set, out)
        write_manifest(out, methods, seeds, reference)
        results = _all(jobs, given)
        runs, failures = collect(jobs, results)
        table = summarize(runs, reference, given.target, failures)
    if given.out is None:
        results = [dataclasses.replace(r, run_dir=None) if isinstance(r, Result) else r for r in results]
    if given.json:
        done = [result.to_dict() for result in results if isinstance(result, Result)]
        rows = [row.to_dict() for row in table.rows]
        write_out({"rows": rows, "reference": table.reference, "target": table.target, "runs": done})
    else:
        write_out("\n" + compare_table(table))
    return 0


def _all(jobs: Sequence[Job], given: argparse.Namespace) -> list[Result | Failure]:
    """Run the jobs of a comparison or a search, with a line for each as it ends."""
    wide = max(16, *(len(job.label) for job in jobs))

    def finished(job: Job, result: Result | Failure) -> None:
        if given.json:
            return
        if isinstance(result, Failure):
            print(f"{job.label:{wide}} seed {job.seed:<4} {result.reason}", flush=True)
        else:
            kept = f"accuracy {result.final_accuracy:.4f}"
            if result.final_perplexity is not None:
                kept = f"perplexity {result.final_perplexity:.3f}"
            print(f"{job.label:{wide}} seed {job.seed:<4} {kept}  {result.wall_s:6.1f} s", flush=True)

    try:
        return run_jobs(jobs, given.jobs, finished)
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted("stopped" + ("; the same command continues it" if given.out else "")) from None


def tune_command(given: argparse.Namespace) -> int:
    methods = comma_separated(given.algorithms, "--algorithms")
    seeds = seed_numbers(given.seeds)
    if given.grid and len(methods) > 1:
        raise ConfigError("--grid is for one method; without it every method is searched over four values of its step")
    tables = read_toml(given.config)
    with scratch() as temporary:
        out = Path(given.out or temporary)
        with Screen(table=not given.json):
            given_grid = dict(tuning.read_grid(text) for text in given.grid)
            grids = {method: given_grid or tuning.own_grid(tables, method) for method in methods}
            jobs = tuning.plan(tables, grids, seeds, given.set, out)
        choices = tuning.choose(grids, seeds, _all(jobs, given))
        where = tuning.write(out, tables, choices) if given.out else None
    if given.json:
        write_out({"choices": [tuning.to_dict(choice) for choice in choices]})
    else:
        write_out("\n" + tune_table(choices) + (f"\n{where} holds the choices, for `fedecho compare`" if where else ""))
    return 0


def report_command(given: argparse.Namespace) -> int:
    if given.target is not None and not 0 < given.target < 1:
        raise ConfigError(f"--target is {given.target:g}; give an accuracy between 0 and 1, such as 0.9")
    file = write_report(given.dirs, given.out, given.title, given.target)
    write_out(f"{file} ({file.stat().st_size / 1e6:.1f} MB)")
    return 0
