"""The threads of a live federation: couriers that carry one message each, and one that looks which nodes are there.

Flower shows an answer before it is wholly uploaded, and whoever pulls several at once waits for the slowest upload. So
every message has a courier of its own. All that the threads learn goes into one queue.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from .arrays import LEGACY_KEYS
from .wire import printable

log = logging.getLogger("flwr")

POLLS_PER_S = 40.0
"""Requests for answers a second at most, over all couriers: each costs the SuperLink a few milliseconds."""


@dataclass(frozen=True)
class Answer:
    """What a courier brought: a reply, or why there is none."""

    task: int
    node: int
    reply: Message | None
    fault: str = ""


@dataclass(frozen=True)
class Nodes:
    """Who is there."""

    ids: tuple[int, ...]


@dataclass(frozen=True)
class Evaluated:
    """A node's answer to an evaluation message, if it gave one."""

    version: int
    node: int
    reply: Message | None


class Couriers:
    """Sends messages and looks for nodes, in threads that end with `close`.

    Args:
        grid: Flower's.
        ttl_s: seconds that Flower keeps a message and its answer.
        refresh_s: seconds between looks at which nodes are there.
    """

    def __init__(self, grid: Grid, ttl_s: float, refresh_s: float) -> None:
        self._grid, self._ttl_s, self._refresh_s = grid, ttl_s, refresh_s
        self.news: queue.Queue[Answer | Nodes | Evaluated] = queue.Queue()
        self.at_work, self._counting = 0, threading.Lock()
        self._pushing = threading.Lock()
        self._closed = threading.Event()
        self._watcher: threading.Thread | None = None

    def close(self) -> None:
        """Let the threads end. What nodes are still at is not awaited."""
        self._closed.set()

    def send(
        self, node: int, kind: str, content: RecordDict, group: str, report: Callable[[Message | None, str], None]
    ) -> None:
        message = Message(content=content, message_type=kind, dst_node_id=node, ttl=self._ttl_s, group_id=group)
        with self._counting:
            self.at_work += 1

        def carry() -> None:
            try:
                self._carry(message, report)
            finally:
                with self._counting:
                    self.at_work -= 1

        threading.Thread(target=carry, daemon=True).start()

    def watch(self) -> None:
        """Begin to look which nodes are there, if that has not begun."""
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()

    def _carry(self, message: Message, report: Callable[[Message | None, str], None]) -> None:
        """Send a message, and tell its answer when there is one."""
        try:
            with self._pushing:
                sent = list(self._grid.push_messages([message]))
        except Exception as fault:  # whatever Flower or the network raises
            report(None, f"could not be sent: {fault}")
            return
        if not sent or not sent[0]:
            report(None, "could not be sent: the SuperLink did not take it")
            return
        began, faults = time.monotonic(), 0
        while time.monotonic() - began < self._ttl_s:
            waited_s = time.monotonic() - began
            pause_s = 2.0**faults if faults else max(0.02 * waited_s, 0.05, self.at_work / POLLS_PER_S)
            if self._closed.wait(min(pause_s, 30.0)):
                return
            try:
                for reply in self._grid.pull_messages([sent[0]]):
                    report(reply, "")
                    return
                faults = 0
            except Exception as fault:  # the SuperLink may be on its way up again
                faults += 1
                if faults in (1, 5) or faults % 20 == 0:
                    log.warning("an answer cannot be asked for (%s); trying again", fault)
        report(None, "its message expired")

    def _watch(self) -> None:
        """Look who is there, until the end."""
        faults = 0
        while True:
            try:
                self.news.put(Nodes(tuple(sorted(self._grid.get_node_ids()))))
                faults = 0
            except Exception as fault:
                faults += 1
                if faults == 1 or faults % 20 == 0:
                    log.warning("the SuperLink does not say who is there (%s); trying again", fault)
            if self._closed.wait(self._refresh_s):
                return


def error_of(reply: Message | None) -> str:
    """A reply's error in a line; of a long one the end, where an exception's own text is."""
    if reply is None:
        return "no answer"
    reason = printable(reply.error.reason or "no reason given", 300)
    hint = "; the app has a client_fn: give the strategy legacy=True" if LEGACY_KEYS.arrays in reason else ""
    return f"error {reply.error.code}: {reason}{hint}"
