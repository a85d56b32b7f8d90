"""Many runs in parallel processes: methods × seeds."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.config import Config
from ..config.toml import read_toml, resolve
from ..core.errors import Diverged, RecordError, Stalled
from ..experiment.result import Result
from ..experiment.run import resume, run
from .runs import COMPARISON, Run, comparison, read_run


@dataclass(frozen=True)
class Job:
    """One run of a comparison."""

    label: str
    seed: int
    config: Config
    out: Path


@dataclass(frozen=True)
class Failure:
    """A run that ended without a result because of what its method did: a model that is not finite any more, or nothing
    left to wait for."""

    reason: str


def run_job(job: Job) -> Result:
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


def _run_in_worker(label: str, seed: int, tables: dict[str, Any], out: Path) -> Result | Failure:
    """`run_job` in another process, which finds a user's own rule by its name; only the command line prints."""
    # Ctrl-C stops each run at a checkpoint; a forkserver that an executor started blocks it for all that it forks
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    with contextlib.redirect_stdout(sys.stderr):
        try:
            return run_job(Job(label, seed, Config.from_dict(tables), out))
        except (Diverged, Stalled) as fault:
            return Failure(f"{type(fault).__name__.lower()}: {fault}")


def run_jobs(
    jobs: Sequence[Job], processes: int, finished: Callable[[Job, Result | Failure], None] | None = None
) -> list[Result | Failure]:
    """All jobs, at most `processes` at once; `finished` hears of each as it ends. Results in the order of `jobs`.

    A run that diverges or stalls fails alone: the others go on.
    """
    results: dict[int, Result | Failure] = {}
    # A fresh process for each run, forked from one that has imported everything but started no thread: a plain fork
    # would inherit torch's threads in an undefined state, and a spawn would import torch anew every time.
    kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(kind)
    if kind == "forkserver":
        context.set_forkserver_preload(["fedecho.studies.compare"])
    once: dict[str, Any] = {"max_tasks_per_child": 1} if sys.version_info >= (3, 11) else {}
    with ProcessPoolExecutor(min(processes, len(jobs)), mp_context=context, **once) as pool:
        futures = {
            pool.submit(_run_in_worker, job.label, job.seed, job.config.to_dict(), job.out): place
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
            jobs.append(Job(method, seed, config, out / folder_of(method) / f"seed-{seed}"))
    return sorted(jobs, key=lambda job: list(seeds).index(job.seed))


def folder_of(method: str) -> str:
    """The name of a method's folder in a comparison's."""
    return method.replace(":", "_").replace("/", "_")


def write_manifest(out: Path, methods: Sequence[str], seeds: Sequence[int], reference: str) -> None:
    """Leave in a comparison's folder what it is, for whoever reads it later. Methods of an earlier call stay in it."""
    before = comparison(out)
    names = [*before.get("methods", []), *methods]
    methods = list(dict.fromkeys(names))
    about = {
        "methods": methods,
        "folders": [folder_of(method) for method in methods],
        "seeds": sorted({*before.get("seeds", []), *seeds}),
        "reference": reference,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / COMPARISON).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def collect(jobs: Sequence[Job], results: Sequence[Result | Failure]) -> tuple[list[Run], dict[str, list[str]]]:
    """The runs of a comparison with their curves, method by method, and the reasons of those that failed."""
    runs: list[Run] = []
    failures: dict[str, list[str]] = {}
    order = {label: place for place, label in enumerate(dict.fromkeys(job.label for job in jobs))}
    for job, result in sorted(zip(jobs, results, strict=True), key=lambda pair: (order[pair[0].label], pair[0].seed)):
        if isinstance(result, Failure):
            failures.setdefault(job.label, []).append(f"seed {job.seed}: {result.reason}")
        else:
            runs.append(read_run(job.out, job.label))
    return runs, failures
