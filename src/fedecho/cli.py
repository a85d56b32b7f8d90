"""The command line. The only room that prints."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from . import __version__, registry
from . import tune as tuning
from .analysis import Spread, Table, summarize
from .assembly import Setup, Simulation, Sizes
from .compare import Failure, Job, do_all, gather, note, plan
from .config import Config, read_toml
from .data import fetch, natural, partition, sources, tokens, unlabeled
from .errors import ConfigError, FedechoError
from .experiment import replay, resume, run, scratch
from .learning.models import MODELS
from .population import names as population_names
from .recorder import Interrupted, Result
from .report import write_report
from .transports.executors import EXECUTORS

PROFILE = {
    "setup_s": "data and set-up",
    "train_s": "training",
    "infer_s": "predictions on U",
    "distill_s": "distillation",
    "aggregate_s": "aggregation",
    "evaluate_s": "evaluation",
    "records_s": "records",
    "wait_s": "waiting for workers",
    "engine_s": "clock, handing out jobs",
}
"""The kinds of `Result.profile_s`."""

HEADER = " virtual_s   wall_s  version  updates  stale_mean  stale_max  accuracy    slow    loss"


def line(row: Mapping[str, Any]) -> str:
    """One evaluation as a fixed-width line under HEADER."""
    slow = row["slow_client_accuracy"]
    return (
        f"{row['virtual_time_s']:10.1f} {row['wall_s']:8.1f} {row['version']:8d} {row['updates']:8d} "
        f"{row['staleness_mean']:11.2f} {row['staleness_max']:10d} {row['accuracy']:9.4f} "
        f"{'      –' if slow is None else f'{slow:7.4f}'} {row['loss']:{'7.3f' if row['loss'] < 1000 else '7.1e'}}"
    )


def sizes_line(sizes: Sizes) -> str:
    """What a run will move and keep, in a line."""
    frozen = f" ({sizes.frozen:,} more are frozen and stay)" if sizes.frozen else ""
    said = f", {_mb(sizes.predictions_bytes)} of it predictions" if sizes.predictions_bytes else ""
    bank = f"; bank up to {_mb(sizes.bank_bytes)}" if sizes.bank_bytes else ""
    return (
        f"{sizes.trained:,} weights travel{frozen}: an update takes {_mb(sizes.down_bytes)} down and "
        f"{_mb(sizes.up_bytes)} up{said}{bank}"
    )


def _mb(size: float) -> str:
    """1 MB is a million bytes."""
    return f"{size / 1e6:.{2 if size < 1e7 else 0}f} MB"


class Screen:
    """Shows a run: the table on standard output, a bar on standard error while that is a terminal.

    Without the table, whatever else prints meanwhile (a user's own model or data set) prints on standard error.
    """

    def __init__(self, table: bool) -> None:
        self._table = table
        self._quiet = contextlib.nullcontext() if table else contextlib.redirect_stdout(sys.stderr)
        self._headed = False
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Screen:
        console = Console(stderr=True)
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
            self._progress = Progress(
                *columns,
                TimeRemainingColumn(),
                console=console,
                transient=True,
                redirect_stdout=sys.stdout.isatty(),  # else a table sent to a file would come out on the terminal
            )
            self._progress.start()
        self._quiet.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._quiet.__exit__(None, None, None)
        if self._progress is not None:
            self._progress.stop()

    def started(self, setup: Setup) -> None:
        if self._table and isinstance(setup, Simulation):
            print(sizes_line(setup.sizes), flush=True)
        if self._progress is not None:
            self._task = self._progress.add_task(setup.config.method, total=1.0)

    def progressed(self, setup: Setup) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=setup.server.progress)

    def evaluated(self, row: Mapping[str, Any]) -> None:
        if self._table:
            if not self._headed:
                print(HEADER)
                self._headed = True
            print(line(row), flush=True)


def _summary(result: Result) -> str:
    r = result
    slow = "" if r.slow_client_accuracy is None else f", slow clients {r.slow_client_accuracy:.4f}"
    if r.final_perplexity is not None:
        theirs = "" if r.slow_client_perplexity is None else f" (slow clients {r.slow_client_perplexity:.2f})"
        slow += f", perplexity {r.final_perplexity:.2f}{theirs}"
    where = "" if r.run_dir is None else f"; records in {r.run_dir}"
    return (
        f"{r.algorithm} on {r.dataset}, seed {r.seed}: accuracy {r.final_accuracy:.4f} (mean of the last five "
        f"evaluations), best {r.best_accuracy:.4f}{slow}; {r.updates} updates, {r.versions} versions, "
        f"{r.virtual_time_s:.0f} virtual s, {r.wall_s:.1f} s; model {r.model_sha256[:12]}{where}"
    )


def _run(given: argparse.Namespace) -> int:
    with Screen(table=not given.json) as screen:
        result = run(Config.load(given.config, given.algorithm, given.set), given.out, screen)
    _tell(result.to_dict() if given.json else _summary(result))
    if given.profile and not given.json:
        _tell("\n" + profile_table(result))
    return 0


def profile_table(result: Result) -> str:
    """Where a run's time went: this process's seconds and shares, and the workers' seconds of the same kind."""
    total = sum(result.profile_s.values())
    lines = [f"{'where the time went':26} {'s':>8} {'share':>7} {'workers, s':>11}"]
    for kind, about in PROFILE.items():
        here = result.profile_s[kind]
        there = result.server_s[kind] - here if kind in ("train_s", "infer_s") else 0.0
        elsewhere = f"{there:11.1f}" if there > 0 else ""
        lines.append(f"{about:26} {here:8.1f} {here / total:7.1%} {elsewhere}".rstrip())
    return "\n".join([*lines, f"{'together':26} {total:8.1f}"])


def _resume(given: argparse.Namespace) -> int:
    with Screen(table=not given.json) as screen:
        result = resume(given.run_dir, screen)
    _tell(result.to_dict() if given.json else _summary(result))
    return 0


def _replay(given: argparse.Namespace) -> int:
    with Screen(table=False) as screen:
        found = replay(given.run_dir, screen)
    if given.json:
        _tell(dataclasses.asdict(found))
    elif found.matches:
        part = f", from version {found.from_version} on (what came before was not kept)" if found.from_version else ""
        _tell(f"{found.updates} updates replayed{part}: the model matches the recorded one ({found.model_sha256[:12]})")
    else:
        _tell(f"the replayed model {found.model_sha256[:12]} differs from the recorded {found.recorded_sha256[:12]}")
    return 0 if found.matches else 1


def _compare(given: argparse.Namespace) -> int:
    methods = _names(given.algorithms, "--algorithms")
    seeds = _numbers(given.seeds)
    if given.reference not in (None, *methods):
        raise ConfigError(f"--reference is {given.reference!r}; give one of {', '.join(methods)}")
    reference = given.reference or methods[-1]
    with scratch() as temporary:
        out = Path(given.out or temporary)
        with Screen(table=not given.json):
            jobs = plan(read_toml(given.config), methods, seeds, given.set, out)
        note(out, methods, seeds, reference)
        results = _all(jobs, given)
        runs, failures = gather(jobs, results)
        table = summarize(runs, reference, given.target, failures)
    if given.out is None:
        results = [dataclasses.replace(r, run_dir=None) if isinstance(r, Result) else r for r in results]
    if given.json:
        done = [result.to_dict() for result in results if isinstance(result, Result)]
        rows = [row.to_dict() for row in table.rows]
        _tell({"rows": rows, "reference": table.reference, "target": table.target, "runs": done})
    else:
        _tell("\n" + compare_table(table))
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
        return do_all(jobs, given.jobs, finished)
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted("stopped" + ("; the same command continues it" if given.out else "")) from None


def compare_table(table: Table) -> str:
    """Mean ± standard deviation over seeds, and paired differences to the reference ± their standard error."""
    goal = f"s to {table.target:g}"
    wide = max(16, *(len(row.label) for row in table.rows))
    head = f"{'method':{wide}} {'accuracy':16} {'best':16} {'area':16} {'slow clients':16} fast clients"
    lines, costs = [head], [f"{'cost':{wide}} {goal:16} {'updates to it':16} {'s a run':16} {'server s':16} MiB"]
    for row in table.rows:
        spreads = [_pm(value) for value in (row.final, row.best, row.area, row.slow, row.fast)]
        lines.append(f"{row.label:{wide}} {' '.join(f'{cell:16}' for cell in spreads)}".rstrip())
        lines += [f"{'':{wide}} failed: {reason}" for reason in row.failed]
        n = row.final.n if row.final is not None else 0
        some = f" ({row.reached} of {n})" if 0 < row.reached < n else ""
        at = "never" if row.target_s is None else f"{row.target_s.mean:.0f}{some}"
        cells = [at, _at(row.target_updates, 0), _at(row.wall, 1), _at(row.server, 1), _at(row.memory, 0)]
        costs.append(f"{row.label:{wide}} {' '.join(f'{cell:16}' for cell in cells)}".rstrip())
    if any(row.perplexity is not None for row in table.rows):
        lines += ["", f"{'perplexity':{wide}} {'all':16} {'slow clients':16} fast clients"]
        for row in table.rows:
            texts = [_pm(value, 3) for value in (row.perplexity, row.slow_perplexity, row.fast_perplexity)]
            lines.append(f"{row.label:{wide}} {' '.join(f'{cell:16}' for cell in texts)}".rstrip())
    lines += ["", *costs]
    if len(table.rows) > 1:
        lines += ["", f"{'minus ' + table.reference:{wide}} {'accuracy':31} {'slow clients':31} {goal}"]
        for row in table.rows:
            if row.label != table.reference:
                accuracy, slow = (_gap(gap, 4) for gap in (row.difference, row.slow_difference))
                time = row.target_s_difference
                seconds = "–" if time is None else f"{time.mean:+.0f} ± {time.standard_error:.0f}"
                lines.append(f"{row.label:{wide}} {accuracy:31} {slow:31} {seconds}".rstrip())
                if row.perplexity_difference is not None:
                    pair = (row.perplexity_difference, row.slow_perplexity_difference)
                    perplexity, slow = (_gap(gap, 3, lower=True) for gap in pair)
                    lines.append(f"{'  perplexity':{wide}} {perplexity:31} {slow:31}".rstrip())
    seeds = len(table.seeds)
    lines += [
        "",
        f"mean ± standard deviation over {seeds} seed{'' if seeds == 1 else 's'}; accuracy is the mean of the last "
        "five evaluations, area that over virtual time",
        "differences are paired by seed, ± their standard error; under two of these is a tie",
    ]
    return "\n".join(lines)


def _pm(value: Spread | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value.mean:.{digits}f} ± {value.std:.{digits}f}"


def _at(value: Spread | None, digits: int) -> str:
    return "–" if value is None else f"{value.mean:.{digits}f}"


def _gap(value: Spread | None, digits: int, lower: bool = False) -> str:
    if value is None:
        return "–"
    return f"{value.mean:+.{digits}f} ± {value.standard_error:.{digits}f} {value.judged(lower)}"


def _tune(given: argparse.Namespace) -> int:
    methods = _names(given.algorithms, "--algorithms")
    seeds = _numbers(given.seeds)
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
        _tell({"choices": [tuning.to_dict(choice) for choice in choices]})
    else:
        _tell("\n" + tune_table(choices) + (f"\n{where} holds the choices, for `fedecho compare`" if where else ""))
    return 0


def tune_table(choices: Sequence[tuning.Choice]) -> str:
    """Every candidate's accuracy on the validation part, the best of each method marked."""
    lines = []
    for choice in choices:
        for candidate in choice.candidates:
            settings = " ".join(f"{key}={value}" for key, value in candidate.settings.items())
            score = candidate.failed[0] if candidate.failed else _pm(candidate.score)
            mark = "  best" if candidate is choice.best else ""
            lines.append(f"{choice.method:16} {settings:40} {score}{mark}")
        lines += [f"{'':16} the best {key} is at the grid's edge: a wider grid may do better" for key in choice.at_edge]
    return "\n".join(lines)


def _report(given: argparse.Namespace) -> int:
    if given.target is not None and not 0 < given.target < 1:
        raise ConfigError(f"--target is {given.target:g}; give an accuracy between 0 and 1, such as 0.9")
    file = write_report(given.dirs, given.out, given.title, given.target)
    _tell(f"{file} ({file.stat().st_size / 1e6:.1f} MB)")
    return 0


def _list(given: argparse.Namespace) -> int:
    rooms: dict[str, dict[str, str]] = {
        "algorithms": {name: _first_line(cls) for name, cls in registry.algorithm_classes().items()}
        | {alias: f"= {method}" for alias, method in registry.ALIASES.items()},
        "refine": {name: _first_line(cls) for name, cls in registry.stage_classes().items()},
        "datasets": {name: "text" if sources.is_text(name) else "" for name in sources.names()},
        "tokenizers": dict.fromkeys((*tokens.names(), "hf:NAME"), ""),
        "partitions": dict.fromkeys((*partition.schemes(), *natural.schemes()), ""),
        "unlabeled": dict.fromkeys(unlabeled.kinds(), ""),
        "models": {name: _first_line(cls) for name, cls in MODELS.items()},
        "populations": dict.fromkeys(population_names(), ""),
        "executors": {name: _first_line(cls) for name, cls in EXECUTORS.items()},
    }
    if given.what is not None and given.what not in rooms:
        raise ConfigError(f"there is no list of {given.what!r}; there are {', '.join(rooms)}")
    for room, entries in rooms.items():
        if given.what in (None, room):
            print(room)
            for name, about in entries.items():
                print(f"  {name:18} {about}".rstrip())
    return 0


def _first_line(cls: Any) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0].replace("\\", "") if cls.__doc__ else ""


def _data_fetch(given: argparse.Namespace) -> int:
    unknown = [name for name in given.names if name not in fetch.names()]
    if unknown:
        raise ConfigError([f"{name!r} cannot be fetched; there are {', '.join(fetch.names())}" for name in unknown])
    for name in given.names:
        print(f"{name}: {fetch.fetch(name)}", flush=True)
    return 0


def _names(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"{option} is {text!r}; give different names separated by commas")
    return names


def _numbers(text: str) -> list[int]:
    try:
        seeds = [int(name) for name in _names(text, "--seeds")]
    except ValueError:
        seeds = []
    if not seeds or len(set(seeds)) != len(seeds):
        raise ConfigError(f"--seeds is {text!r}; give different whole numbers separated by commas, such as 0,1,2")
    return seeds


def _tell(what: str | Mapping[str, Any]) -> None:
    print(what if isinstance(what, str) else json.dumps(what, indent=2))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="fedecho",
        description="Asynchronous federated learning that learns from its stragglers (arXiv 2511.19966).",
    )
    top.add_argument("--version", action="version", version=f"fedecho {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, act: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=about, description=about)
        made.set_defaults(act=act)
        return made

    def configured(made: argparse.ArgumentParser) -> None:
        made.add_argument("config", metavar="CONFIG.toml")
        made.add_argument(
            "--set", action="append", default=[], metavar="table.key=value", help="change one setting; may be repeated"
        )

    def json_too(made: argparse.ArgumentParser) -> None:
        made.add_argument(
            "--json", action="store_true", help="one JSON document on standard output, nothing else there"
        )

    made = command("run", _run, "Run one experiment: a table of evaluations, then a summary line.")
    configured(made)
    made.add_argument("--algorithm", metavar="NAME", help="a method: an algorithm, base+stage, or a [variants] name")
    made.add_argument("--out", metavar="RUN_DIR", help="keep the records here; without it nothing is kept")
    made.add_argument("--profile", action="store_true", help="tell where the time went, too")
    json_too(made)

    made = command("compare", _compare, "Run methods × seeds in parallel; print mean ± std and paired differences.")
    configured(made)
    made.add_argument("--algorithms", required=True, metavar="a,b,c")
    made.add_argument("--seeds", default="0,1,2", metavar="0,1,2")
    made.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once")
    made.add_argument("--out", metavar="DIR", help="keep the runs here; a second call continues where this one stopped")
    made.add_argument("--reference", metavar="NAME", help="whom the others are compared with (default: the last)")
    made.add_argument(
        "--target",
        type=float,
        metavar="ACC",
        help="accuracy to time (default: 95 %% of the best method's, rounded down)",
    )
    json_too(made)

    made = command(
        "tune", _tune, "Search settings with the same budget for every method, judged on the validation part."
    )
    configured(made)
    made.add_argument("--algorithm", "--algorithms", dest="algorithms", required=True, metavar="a,b,c")
    made.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="key=v1,v2,…",
        help="candidates, for one method; may be repeated (default: four values of each method's own step)",
    )
    made.add_argument("--seeds", default="100", metavar="100", help="others than a comparison's (default: 100)")
    made.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once")
    made.add_argument("--out", metavar="DIR", help="keep the runs and write tuned.toml here; a second call continues")
    json_too(made)

    made = command("resume", _resume, "Continue a stopped run; the result equals that of an uninterrupted one.")
    made.add_argument("run_dir", metavar="RUN_DIR")
    json_too(made)

    made = command("replay", _replay, "Recompute a run's model from its recorded events and say whether it matches.")
    made.add_argument("run_dir", metavar="RUN_DIR")
    json_too(made)

    made = command(
        "report", _report, "Make one self-contained HTML page of runs: figures, tables, settings, citations."
    )
    made.add_argument("dirs", nargs="+", metavar="DIR", help="a run's folder, a comparison's, or one that holds such")
    made.add_argument("-o", "--out", metavar="FILE.html", help="default: report.html in the first DIR")
    made.add_argument("--title", metavar="TEXT", help="default: the experiment's name")
    made.add_argument(
        "--target",
        type=float,
        metavar="ACC",
        help="accuracy to time (default: 95 %% of the best method's, rounded down)",
    )

    made = command("list", _list, "What there is to choose from.")
    made.add_argument("what", nargs="?", metavar="algorithms|refine|datasets|models|populations|executors|…")

    data = commands.add_parser("data", help="Real data sets.").add_subparsers(required=True, metavar="fetch")
    made = data.add_parser("fetch", help="Fetch data sets into the cache, checked against SHA-256.")
    made.add_argument("names", nargs="+", metavar="NAME", help=", ".join(fetch.names()))
    made.set_defaults(act=_data_fetch)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code: 0, 1 (a replay that differs), 2 (bad input), 130 (stopped)."""
    given = parser().parse_args(arguments)
    if getattr(given, "jobs", 1) < 1:
        print(f"fedecho: --jobs is {given.jobs}; give 1 or more", file=sys.stderr)
        return 2
    try:
        return int(given.act(given))
    except Interrupted as stopped:
        print(f"fedecho: {stopped}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read the output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except FedechoError as fault:
        for text in str(fault).splitlines():
            print(f"fedecho: {text}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
