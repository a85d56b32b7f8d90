"""The command line. The only room that prints."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from .. import __version__
from ..core.errors import FedechoError, Interrupted
from ..data import fetch
from .catalogue import fetch_command, list_command
from .runs import replay_command, resume_command, run_command
from .studies import compare_command, report_command, tune_command


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

    made = command("run", run_command, "Run one experiment: a table of evaluations, then a summary line.")
    configured(made)
    made.add_argument("--algorithm", metavar="NAME", help="a method: an algorithm, base+stage, or a [variants] name")
    made.add_argument("--out", metavar="RUN_DIR", help="keep the records here; without it nothing is kept")
    made.add_argument("--profile", action="store_true", help="tell where the time went, too")
    json_too(made)

    made = command("compare", compare_command, "Run methods × seeds in parallel: mean ± std, paired differences.")
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
        "tune", tune_command, "Search settings with the same budget for every method, judged on the validation part."
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

    made = command("resume", resume_command, "Continue a stopped run; the result equals that of an uninterrupted one.")
    made.add_argument("run_dir", metavar="RUN_DIR")
    json_too(made)

    made = command("replay", replay_command, "Recompute a run's model from its recorded events; does it match?")
    made.add_argument("run_dir", metavar="RUN_DIR")
    json_too(made)

    made = command(
        "report", report_command, "Make one self-contained HTML page of runs: figures, tables, settings, citations."
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

    made = command("list", list_command, "What there is to choose from.")
    made.add_argument("what", nargs="?", metavar="algorithms|stages|datasets|models|populations|executors|…")

    data = commands.add_parser("data", help="Real data sets.").add_subparsers(required=True, metavar="fetch")
    made = data.add_parser("fetch", help="Fetch data sets into the cache, checked against SHA-256.")
    made.add_argument("names", nargs="+", metavar="NAME", help=", ".join(fetch.names()))
    made.set_defaults(act=fetch_command)
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
