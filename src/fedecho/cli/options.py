"""The options of every command. Nothing slow is imported: a command's module is imported when the command runs."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable

from .. import __version__

Command = Callable[[argparse.Namespace], int]
"""Runs a command; returns its exit code."""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="fedecho",
        description="Asynchronous federated learning that learns from its stragglers (arXiv 2511.19966).",
        epilog="`fedecho COMMAND --help` explains a command and its options.",
    )
    top.add_argument("--version", action="version", version=f"fedecho {__version__}", help="show the version and exit")
    _add_debug(top, False)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_single_runs(commands)
    _add_many_runs(commands)
    _add_lookups(commands)
    return top


def _add_single_runs(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(commands, "run", "runs:run_command", "Run one experiment: evaluations, then a summary line.")
    _add_config(command)
    command.add_argument(
        "--algorithm",
        "--algorithms",
        metavar="NAME",
        help="a method: an algorithm, base+stage, or a name in [variants] (default: that of CONFIG.toml)",
    )
    command.add_argument("--out", metavar="RUN_DIR", help="folder for the records (default: no records are kept)")
    command.add_argument("--profile", action="store_true", help="show also where the time went (default: no)")
    _add_json(command)

    command = _command(
        commands, "resume", "runs:resume_command", "Continue a stopped run; the result is that of an uninterrupted one."
    )
    _add_run_dir(command)
    _add_json(command)

    command = _command(
        commands, "replay", "runs:replay_command", "Recompute a run's model from its recorded events; does it match?"
    )
    _add_run_dir(command)
    _add_json(command)

    command = _command(
        commands,
        "status",
        "status:status_command",
        "Say in one line how far a run is. Exit code 0: finished, 3: not finished, 2: no run.",
    )
    _add_run_dir(command)


def _add_many_runs(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands, "compare", "studies:compare_command", "Run methods × seeds in parallel: means and paired differences."
    )
    _add_config(command)
    _add_methods(command)
    command.add_argument(
        "--seeds", default="0,1,2", metavar="SEEDS", help="such as 0,1,2 or 0-4; a verdict needs four (default: 0,1,2)"
    )
    _add_jobs(command)
    command.add_argument(
        "--out",
        metavar="DIR",
        help="folder for the runs; a second call continues where the first stopped (default: none are kept)",
    )
    command.add_argument(
        "--reference", metavar="NAME", help="the method the others are compared with (default: the last)"
    )
    _add_target(command)
    _add_json(command)

    command = _command(
        commands,
        "tune",
        "studies:tune_command",
        "Search settings, with one budget for every method, on validation data.",
    )
    _add_config(command)
    _add_methods(command)
    command.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="key=v1,v2,…",
        help="candidates, for one method; may be repeated (default: four values of each method's own step)",
    )
    command.add_argument(
        "--seeds", default="100", metavar="SEEDS", help="such as 100 or 100-102, not those of compare (default: 100)"
    )
    _add_jobs(command)
    command.add_argument(
        "--out",
        metavar="DIR",
        help="folder for the runs and tuned.toml; a second call continues (default: none are kept)",
    )
    _add_json(command)

    command = _command(
        commands,
        "report",
        "studies:report_command",
        "Make one self-contained HTML page of runs, with figures and tables.",
    )
    command.add_argument("dirs", nargs="+", metavar="DIR", help="the folder of a run or comparison, or one above")
    command.add_argument("-o", "--out", metavar="FILE.html", help="the page (default: report.html in the first DIR)")
    command.add_argument("--title", metavar="TEXT", help="title of the page (default: the experiment's name)")
    _add_target(command)


def _add_lookups(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(commands, "list", "catalogue:list_command", "List what there is to choose from.")
    command.add_argument(
        "what", nargs="?", metavar="KIND", help="algorithms, stages, objectives, models, … (default: all kinds)"
    )

    data = commands.add_parser("data", help="Fetch data sets.", description="Data sets.")
    command = _command(
        data.add_subparsers(required=True, metavar="fetch"),
        "fetch",
        "catalogue:fetch_command",
        "Fetch data sets into the cache, checked against SHA-256.",
    )
    command.add_argument("names", nargs="+", metavar="NAME", help="such as fashion_mnist; a wrong name lists them all")


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, place: str, about: str
) -> argparse.ArgumentParser:
    """A command whose function is `place`, "module:function" in this package."""

    def act(options: argparse.Namespace) -> int:
        module, _, function = place.partition(":")
        command: Command = getattr(importlib.import_module(f".{module}", __package__), function)
        return command(options)

    command = commands.add_parser(name, help=about, description=about)
    command.set_defaults(act=act)
    _add_debug(command, argparse.SUPPRESS)
    return command


def _add_debug(command: argparse.ArgumentParser, default: bool | str) -> None:
    command.add_argument(
        "--debug", action="store_true", default=default, help="show the traceback of an error (default: no)"
    )


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", metavar="CONFIG.toml", help="the configuration")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="table.key=value",
        help="change one setting; may be repeated (default: CONFIG.toml as it is)",
    )


def _add_run_dir(command: argparse.ArgumentParser) -> None:
    command.add_argument("run_dir", metavar="RUN_DIR", help="the folder of a run")


def _add_methods(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--algorithms",
        "--algorithm",
        dest="algorithms",
        required=True,
        metavar="a,b,c",
        help="methods: algorithms, base+stage, or names in [variants] (required)",
    )


def _add_jobs(command: argparse.ArgumentParser) -> None:
    command.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at the same time (default: 1)")


def _add_target(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--target",
        type=float,
        metavar="VALUE",
        help="value of the judged metric to time (default: 5 %% short of the best method's mean)",
    )


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--json",
        action="store_true",
        help="one JSON document on standard output and nothing else there (default: text)",
    )
