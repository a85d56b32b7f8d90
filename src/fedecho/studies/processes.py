"""The processes of runs: each is forked from one that has imported everything. This module imports nothing slow."""

from __future__ import annotations

import multiprocessing
import signal
from multiprocessing.context import BaseContext

PRELOADED = "fedecho.studies.jobs"
"""The module that the fork server imports; it imports all that a run needs."""


def context() -> BaseContext:
    """How the processes of runs are started."""
    kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    start = multiprocessing.get_context(kind)
    if kind == "forkserver":
        start.set_forkserver_preload([PRELOADED])
    return start


def start_early() -> None:
    """Start the fork server, so that it imports its modules while this process imports its own."""
    if context().get_start_method() == "forkserver":
        from multiprocessing import forkserver

        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C while it imports is not its affair
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
