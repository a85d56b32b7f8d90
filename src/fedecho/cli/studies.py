"""The commands on many runs: compare, tune, report. What is slow to import is imported when it is needed."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import ConfigError, Interrupted
from ..studies.processes import start_early
from .arguments import parse_names, parse_seeds, require_file
from .output import print_json

if TYPE_CHECKING:
    from ..experiment.result import Result
    from ..studies.jobs import Failure, Job


def compare_command(options: argparse.Namespace) -> int:
    methods = parse_names(options.algorithms, "--algorithms")
    seeds = parse_seeds(options.seeds)
    if options.reference not in (None, *methods):
        raise ConfigError(f"--reference is {options.reference!r}; give one of {', '.join(methods)}")
    reference = options.reference or methods[-1]
    require_file(options.config)
    start_early()
    from ..config.toml import read_toml
    from ..experiment.result import Result
    from ..experiment.run import scratch
    from ..studies.compare import collect, plan, write_manifest
    from ..studies.summary import summarize
    from .progress import RunScreen
    from .tables import compare_table

    with scratch() as temporary:
        out = Path(options.out or temporary)
        with RunScreen(table=not options.json):
            jobs = plan(read_toml(options.config), methods, seeds, options.set, out)
        write_manifest(out, methods, seeds, reference)
        results = _run(jobs, options)
        runs, failures = collect(jobs, results)
        table = summarize(runs, reference, options.target, failures)
    if options.out is None:
        results = [dataclasses.replace(one, run_dir=None) if isinstance(one, Result) else one for one in results]
    if options.json:
        documents = [result.to_dict() for result in results if isinstance(result, Result)]
        print_json({**table.to_dict(), "runs": documents})
    else:
        print("\n" + compare_table(table))
    return 0


def _run(jobs: Sequence[Job], options: argparse.Namespace) -> list[Result | Failure]:
    """Run the jobs of a comparison or a search, shown on the terminal."""
    from ..studies.jobs import run_jobs
    from .progress import JobsScreen

    try:
        with JobsScreen(jobs, table=not options.json) as screen:
            return run_jobs(jobs, options.jobs, screen)
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted("stopped" + ("; the same command continues it" if options.out else "")) from None


def tune_command(options: argparse.Namespace) -> int:
    methods = parse_names(options.algorithms, "--algorithms")
    seeds = parse_seeds(options.seeds)
    if options.grid and len(methods) > 1:
        raise ConfigError("--grid is for one method; without it every method is searched over four values of its step")
    require_file(options.config)
    start_early()
    from ..config.toml import read_toml
    from ..experiment.run import scratch
    from ..studies import tune
    from .progress import RunScreen
    from .tables import tune_table

    tables = read_toml(options.config)
    with scratch() as temporary:
        out = Path(options.out or temporary)
        with RunScreen(table=not options.json):
            given_grid = dict(tune.read_grid(text) for text in options.grid)
            grids = {method: given_grid or tune.own_grid(tables, method) for method in methods}
            jobs = tune.plan(tables, grids, seeds, options.set, out)
        choices = tune.choose(grids, seeds, _run(jobs, options))
        path = tune.write(out, tables, choices) if options.out else None
    if options.json:
        print_json({"choices": [tune.to_dict(choice) for choice in choices]})
    else:
        print("\n" + tune_table(choices) + (f"\n{path} holds the choices, for `fedecho compare`" if path else ""))
    return 0


def report_command(options: argparse.Namespace) -> int:
    for folder in options.dirs:
        if not Path(folder).exists():
            raise ConfigError(f"{folder} does not exist; give the folder of a run or a comparison")
    from ..report import write_report

    file = write_report(options.dirs, options.out, options.title, options.target)
    print(f"{file} ({file.stat().st_size / 1e6:.1f} MB)")
    return 0
