"""A live Flower federation: messages to single nodes, each answer pulled by itself, nodes that come and go.

Every task has a thread of its own (a courier) that sends its message and pulls its answer: Flower shows an answer
before it is wholly there, and whoever pulls several at once waits for the slowest upload. Another thread looks who is
there. All that the threads hear goes through one queue to `next`, in whose thread the server works.

A node is known by its Flower id; the first that comes is client 0. A node that fails rests before it gets work again.
"""

from __future__ import annotations

import heapq
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from ..core.messages import (
    Arrived,
    Cancel,
    Command,
    Dispatch,
    Event,
    Joined,
    Left,
    Lost,
    Model,
    Rejected,
    Task,
    TrainResult,
    Wake,
    WakeAt,
)
from ..runs.delays import RESTARTED

log = logging.getLogger("flwr")


POLLS_PER_S = 40.0
"""Requests for answers a second at most, over all couriers: each costs the SuperLink a few milliseconds."""


FIRST_REST_S, LONGEST_REST_S = 5.0, 600.0
"""How long a node rests after its first failure, and at most; each failure in a row doubles it."""


class Unreadable(Exception):
    """An answer that is not what it should be; says why."""


class Codec(Protocol):
    """Writes tasks as messages' contents and reads answers."""

    def write(self, task: Task, model: Model) -> RecordDict: ...

    def read(self, task: int, content: RecordDict) -> TrainResult:
        """Raises Unreadable."""
        ...


@dataclass(frozen=True)
class _Answer:
    """What a courier brought: a reply, or why there is none."""

    task: int
    node: int
    reply: Message | None
    fault: str = ""


@dataclass(frozen=True)
class _Nodes:
    """Who is there."""

    ids: tuple[int, ...]


@dataclass(frozen=True)
class _Evaluated:
    """A node's answer to an evaluation message, if it gave one."""

    version: int
    node: int
    reply: Message | None


class FlowerTransport:
    """Carries tasks to Flower nodes.

    Args:
        grid: Flower's.
        mail: writes and reads messages.
        began_at: when the run began, in seconds since the epoch: the clock's zero, also after a restart.
        after_s: the time of the last event that the server heard; the clock is never before it.
        names: the node id of every client so far, as `Joined` events named them.
        here: the clients that the server believes present.
        backlog: what a server that was killed had heard since its checkpoint, to be heard again first. What is in
            flight after it is lost: the messages went down with the old run.
        timeout_s: seconds after which a task without an answer is lost; an answer that comes later is refused.
        ttl_s: seconds that Flower keeps a message and its answer.
        refresh_s: seconds between looks at who is there.
        evaluated: is given every node's answer to `evaluate`, None for a node that did not give one.
    """

    def __init__(
        self,
        grid: Grid,
        mail: Codec,
        began_at: float,
        after_s: float = 0.0,
        names: Mapping[int, str] | None = None,
        here: Iterable[int] = (),
        backlog: Iterable[Event] | None = None,
        timeout_s: float = 43_200.0,
        ttl_s: float = 43_200.0,
        refresh_s: float = 3.0,
        evaluated: Callable[[int, int, Message | None], None] = lambda version, node, reply: None,
    ) -> None:
        self._grid, self._mail = grid, mail
        self._began_at, self._timeout_s, self._ttl_s, self._refresh_s = began_at, timeout_s, ttl_s, refresh_s
        self._nodes = {client: int(name) for client, name in (names or {}).items()}
        self._clients = {node: client for client, node in self._nodes.items()}
        self._here = set(here)
        self._backlog = iter(backlog) if backlog is not None else None
        self._evaluated = evaluated
        self._due: deque[Event] = deque()
        self._heard: queue.Queue[_Answer | _Nodes | _Evaluated] = queue.Queue()
        self._open: dict[int, Task] = {}
        self._deadlines: list[tuple[float, int]] = []
        self._timers: list[float] = []
        self._seen: tuple[int, ...] = ()
        self._resting: dict[int, float] = {}
        self._failures: dict[int, int] = {}
        self._pushing = threading.Lock()
        self._closed = threading.Event()
        self._last_s = after_s
        self._watcher: threading.Thread | None = None

    @property
    def now_s(self) -> float:
        """Seconds since the run began; never less than it was."""
        self._last_s = max(self._last_s, time.time() - self._began_at)
        return self._last_s

    @property
    def live(self) -> bool:
        """Whether all that the last server had heard has been heard again."""
        return self._backlog is None

    @property
    def idle(self) -> list[int]:
        """Node ids of the clients that are present and at no task, then of those at work."""
        busy = {task.client for task in self._open.values()}
        return [self._nodes[client] for client in sorted(self._here, key=lambda client: (client in busy, client))]

    def close(self) -> None:
        """Let the threads end. What nodes are still at is not awaited."""
        self._closed.set()

    # -- what the server asks

    def send(self, commands: Iterable[Command]) -> None:
        for command in commands:
            if isinstance(command, Dispatch):
                self._open[command.task.id] = command.task
                if self._backlog is None:
                    self._dispatch(command.task, command.model)
            elif isinstance(command, Cancel):  # Flower cannot take a message back: its answer will be refused
                self._open.pop(command.task, None)
            elif isinstance(command, WakeAt):
                heapq.heappush(self._timers, command.at_s)

    def _dispatch(self, task: Task, model: Model) -> None:
        node = self._nodes[task.client]
        heapq.heappush(self._deadlines, (time.monotonic() + self._timeout_s, task.id))

        def tell(reply: Message | None, why: str) -> None:
            self._heard.put(_Answer(task.id, node, reply, why))

        self._post(node, MessageType.TRAIN, self._mail.write(task, model), str(task.id), tell)

    def _post(
        self, node: int, kind: str, content: RecordDict, group: str, tell: Callable[[Message | None, str], None]
    ) -> None:
        message = Message(content=content, message_type=kind, dst_node_id=node, ttl=self._ttl_s, group_id=group)
        threading.Thread(target=self._carry, args=(message, tell), daemon=True).start()

    def evaluate(self, version: int, content: RecordDict, nodes: Iterable[int]) -> None:
        """Ask nodes to evaluate; nobody waits. A node that is training does it afterwards."""
        for node in nodes:
            tell = self._evaluation(version, node)
            self._post(node, MessageType.EVALUATE, content, f"evaluate-{version}", tell)

    def _evaluation(self, version: int, node: int) -> Callable[[Message | None, str], None]:
        def tell(reply: Message | None, why: str) -> None:
            if reply is None or reply.has_error():
                log.warning("node %s did not evaluate version %s: %s", node, version, why or _told(reply))
                reply = None
            self._heard.put(_Evaluated(version, node, reply))

        return tell

    # -- the threads

    def _carry(self, message: Message, tell: Callable[[Message | None, str], None]) -> None:
        """Send a message, and tell its answer when there is one."""
        try:
            with self._pushing:
                sent = list(self._grid.push_messages([message]))
        except Exception as fault:  # whatever Flower or the network raises
            tell(None, f"could not be sent: {fault}")
            return
        if not sent or not sent[0]:
            tell(None, "could not be sent: the SuperLink did not take it")
            return
        began, faults = time.monotonic(), 0
        while time.monotonic() - began < self._ttl_s:
            waited_s = time.monotonic() - began
            pause_s = 2.0**faults if faults else max(0.02 * waited_s, 0.05, len(self._open) / POLLS_PER_S)
            if self._closed.wait(min(pause_s, 30.0)):
                return
            try:
                for reply in self._grid.pull_messages([sent[0]]):
                    tell(reply, "")
                    return
                faults = 0
            except Exception as fault:  # the SuperLink may be on its way up again
                faults += 1
                if faults in (1, 5) or faults % 20 == 0:
                    log.warning("an answer cannot be asked for (%s); trying again", fault)
        tell(None, "its message expired")

    def _watch(self) -> None:
        """Look who is there, until the end."""
        faults = 0
        while True:
            try:
                self._heard.put(_Nodes(tuple(sorted(self._grid.get_node_ids()))))
                faults = 0
            except Exception as fault:
                faults += 1
                if faults == 1 or faults % 20 == 0:
                    log.warning("the SuperLink does not say who is there (%s); trying again", fault)
            if self._closed.wait(self._refresh_s):
                return

    # -- what the server hears

    def next(self) -> Event:
        """The next event; waits for it as long as it takes."""
        event = self._again() or self._fresh()
        if isinstance(event, Arrived):
            self._open.pop(event.result.task, None)
        elif isinstance(event, Lost | Rejected):
            self._open.pop(event.task, None)
        elif isinstance(event, Joined):
            self._here.add(event.client)
        elif isinstance(event, Left):
            self._here.discard(event.client)
        return event

    def _again(self) -> Event | None:
        """What the last server had heard; after that, that its tasks are lost."""
        if self._backlog is None:
            return None
        event = next(self._backlog, None)
        if event is not None:
            self._last_s = max(self._last_s, event.at_s)
            return event
        self._backlog = None
        self._due.extend(Lost(self.now_s, task, RESTARTED) for task in sorted(self._open))
        return None

    def _fresh(self) -> Event:
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()
        while not self._due:
            try:
                heard = self._heard.get(timeout=self._patience_s())
            except queue.Empty:
                self._look_at_the_clock()
                continue
            if isinstance(heard, _Answer):
                self._answered(heard)
            elif isinstance(heard, _Nodes):
                self._seen = heard.ids
                self._count()
            else:
                self._evaluated(heard.version, heard.node, heard.reply)
            self._look_at_the_clock()
        return self._due.popleft()

    def _patience_s(self) -> float:
        """Seconds until something happens by itself."""
        moments = [self._refresh_s]
        if self._timers:
            moments.append(self._timers[0] - self.now_s)
        if self._deadlines:
            moments.append(self._deadlines[0][0] - time.monotonic())
        moments += [until - time.monotonic() for until in self._resting.values()]
        return max(0.0, min(moments))

    def _look_at_the_clock(self) -> None:
        while self._timers and self._timers[0] <= self.now_s:
            heapq.heappop(self._timers)
            self._due.append(Wake(self.now_s))
        while self._deadlines and self._deadlines[0][0] <= time.monotonic():
            _, number = heapq.heappop(self._deadlines)
            task = self._open.get(number)
            if task is not None:
                self._failed(self._nodes[task.client], number, f"no answer within {self._timeout_s:g} s")
        rested = [node for node, until in self._resting.items() if until <= time.monotonic()]
        for node in rested:
            del self._resting[node]
        if rested:
            self._count()

    def _answered(self, answer: _Answer) -> None:
        reply = answer.reply
        if reply is None or reply.has_error():
            why = answer.fault or _told(reply)
            if answer.task in self._open:
                self._failed(answer.node, answer.task, why)
            else:
                log.info("task %s, not awaited any more: %s", answer.task, why)
            return
        try:
            update = self._mail.read(answer.task, reply.content)
        except Unreadable as fault:
            self._rest(answer.node)
            self._due.append(Rejected(self.now_s, answer.task, str(fault)))
            log.warning("node %s sent what cannot be used: %s", answer.node, fault)
            return
        self._failures.pop(answer.node, None)
        self._due.append(Arrived(self.now_s, update))

    def _failed(self, node: int, task: int, why: str) -> None:
        log.warning("task %s is lost at node %s: %s", task, node, why)
        self._rest(node)
        self._due.append(Lost(self.now_s, task, why))

    def _rest(self, node: int) -> None:
        """Leave a node that failed alone for a while. Called before the server hears of the failure: it would give the
        node its next task at once."""
        failures = self._failures[node] = self._failures.get(node, 0) + 1
        rest_s = min(FIRST_REST_S * 2.0 ** (failures - 1), LONGEST_REST_S)
        self._resting[node] = time.monotonic() + rest_s
        client = self._clients[node]
        if client in self._expected():
            self._due.append(Left(self.now_s, client))

    def _expected(self) -> set[int]:
        """The clients that the server will believe present once it has heard all that is due."""
        expected = set(self._here)
        for event in self._due:
            if isinstance(event, Joined):
                expected.add(event.client)
            elif isinstance(event, Left):
                expected.discard(event.client)
        return expected

    def _count(self) -> None:
        """Tell who came and who went since the last look."""
        awake = set(self._seen) - self._resting.keys()
        for node in sorted(awake - self._clients.keys()):
            client = len(self._nodes)
            self._nodes[client], self._clients[node] = node, client
        present, expected = {self._clients[node] for node in awake}, self._expected()
        for client in sorted(present - expected):
            self._due.append(Joined(self.now_s, client, str(self._nodes[client])))
        for client in sorted(expected - present):
            self._due.append(Left(self.now_s, client))


def _told(reply: Message | None) -> str:
    """A reply's error in a line."""
    if reply is None:
        return "no answer"
    reason = " ".join((reply.error.reason or "no reason given").split())
    return f"error {reply.error.code}: {reason[:300]}"
