"""Many runs: methods × seeds in parallel processes, and what their differences are worth."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from .config import Config, read_toml, resolve
from .errors import RecordError
from .experiment import resume, run
from .recorder import Result


@dataclass(frozen=True)
class Job:
    """One run of a comparison."""

    label: str
    seed: int
    config: Config
    out: Path


def do(job: Job) -> Result:
    """Run a job, continue it, or take its result if it is there.

    Raises:
        RecordError: when its folder holds a run of another configuration.
    """
    if (job.out / "config.toml").exists():
        there = Config.from_dict(read_toml(job.out / "config.toml"))
        if _decides(there) != _decides(job.config):
            raise RecordError(
                f"{job.out} holds a run with other settings; remove it, or give another folder with --out"
            )
        return resume(job.out)
    return run(job.config, job.out)


def _decides(config: Config) -> dict[str, Any]:
    """The tables that decide a run's bits: not the other variants, nor how often it is saved."""
    return {name: table for name, table in config.to_dict().items() if name not in ("variants", "records")}


def _do_there(label: str, seed: int, tables: dict[str, Any], out: Path) -> Result:
    """`do` in another process, which finds a user's own rule by its name; only the command line prints."""
    with contextlib.redirect_stdout(sys.stderr):
        return do(Job(label, seed, Config.from_dict(tables), out))


def do_all(jobs: Sequence[Job], processes: int, finished: Callable[[Job, Result], None] | None = None) -> list[Result]:
    """All jobs, at most `processes` at once; `finished` hears of each as it ends. Results in the order of `jobs`."""
    results: dict[int, Result] = {}
    # A fresh process for each run, forked from one that has imported everything but started no thread: a plain fork
    # would inherit torch's threads in an undefined state, and a spawn would import torch anew every time.
    kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(kind)
    if kind == "forkserver":
        context.set_forkserver_preload(["fedecho.compare"])
    once: dict[str, Any] = {"max_tasks_per_child": 1} if sys.version_info >= (3, 11) else {}
    with ProcessPoolExecutor(min(processes, len(jobs)), mp_context=context, **once) as pool:
        futures = {
            pool.submit(_do_there, job.label, job.seed, job.config.to_dict(), job.out): place
            for place, job in enumerate(jobs)
        }
        try:
            for future in as_completed(futures):
                place = futures[future]
                results[place] = future.result()
                if finished is not None:
                    finished(jobs[place], results[place])
        except BrokenProcessPool:
            raise RecordError(
                "a run's process was killed (out of memory?); the same command with --out continues, --jobs sets how "
                "many run at once"
            ) from None
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [results[place] for place in range(len(jobs))]


def plan(
    tables: Mapping[str, Any], methods: Sequence[str], seeds: Sequence[int], overrides: Sequence[str], out: Path
) -> list[Job]:
    """The jobs of methods × seeds; every configuration is checked before anything runs.

    Raises:
        ConfigError: with the faults of the first method that has any.
    """
    jobs = []
    for method in methods:
        for seed in seeds:
            config = Config.from_dict(resolve(tables, method, [*overrides, f"experiment.seed={seed}"]))
            jobs.append(Job(method, seed, config, out / method.replace(":", "_").replace("/", "_") / f"seed-{seed}"))
    return sorted(jobs, key=lambda job: list(seeds).index(job.seed))


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of n values; std is 0 for one value."""

    mean: float
    std: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(fmean(values), stdev(values) if len(values) > 1 else 0.0, len(values))

    @property
    def standard_error(self) -> float:
        return self.std / math.sqrt(self.n)


@dataclass(frozen=True)
class Row:
    """One method's line: spreads over seeds, and the differences to the reference method, seed by seed."""

    label: str
    final: Spread
    best: Spread
    slow: Spread | None
    wall: Spread
    difference: Spread | None

    @property
    def verdict(self) -> str:
        """What the paired difference to the reference is worth: a gap under two standard errors is a tie."""
        d = self.difference
        if d is None:
            return ""
        if d.n < 2:
            return "one seed"
        if abs(d.mean) < 2 * d.standard_error:
            return "tie"
        return "ahead" if d.mean > 0 else "behind"


def summarize(results: Mapping[str, Mapping[int, Result]], reference: str | None = None) -> list[Row]:
    """One row per method; `reference` is the method the others are compared with (by default the last)."""
    labels = list(results)
    reference = labels[-1] if reference is None else reference
    rows = []
    for label, by_seed in results.items():
        runs = list(by_seed.values())
        slow = [r.slow_client_accuracy for r in runs if r.slow_client_accuracy is not None]
        shared = [seed for seed in by_seed if seed in results[reference]] if label != reference else []
        gaps = [by_seed[seed].final_accuracy - results[reference][seed].final_accuracy for seed in shared]
        rows.append(
            Row(
                label,
                Spread.of([r.final_accuracy for r in runs]),
                Spread.of([r.best_accuracy for r in runs]),
                Spread.of(slow) if slow else None,
                Spread.of([r.wall_s for r in runs]),
                Spread.of(gaps) if gaps else None,
            )
        )
    return rows
