"""The entry point: parses the command line, runs a command, turns faults into lines and exit codes."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

from ..core.errors import Fault, FedechoError, Interrupted
from .options import parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code: 0; 1 a replay that differs; 2 bad input; 3 a run that is not finished (`status`); 130 stopped;
        141 nobody reads the output.
    """
    options = parser().parse_args(arguments)
    if getattr(options, "jobs", 1) < 1:
        print(f"fedecho: --jobs is {options.jobs}; give 1 or more", file=sys.stderr)
        return 2
    before = warnings.showwarning
    warnings.showwarning = _show_warning
    try:
        return int(options.act(options))
    except Interrupted as stopped:
        print(f"fedecho: {stopped}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of the output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except FedechoError as fault:
        if options.debug:
            _print_traceback(fault)
        for text in str(fault).splitlines():
            print(f"fedecho: {text}", file=sys.stderr)
        return 2
    finally:
        warnings.showwarning = before


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """A warning as a line, without the place in the code that gave it."""
    name = "warning" if issubclass(category, UserWarning) else category.__name__
    print(f"fedecho: {name}: {message}", file=sys.stderr, flush=True)


def _print_traceback(error: FedechoError) -> None:
    """The traceback of an error, of all that led to it (also what `raise … from None` hides), and of its faults."""
    shown: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        cause.__suppress_context__ = cause.__cause__ is not None
        shown.append(cause)
        cause = cause.__cause__ or cause.__context__
    traceback.print_exception(error)
    for fault in getattr(error, "faults", ()):
        if isinstance(fault, Fault) and fault.cause not in shown:
            traceback.print_exception(fault.cause)


if __name__ == "__main__":
    sys.exit(main())
