"""A live Flower federation: messages to single nodes, each answer pulled by itself, nodes that come and go.

Threads carry the messages and look which nodes are there (`fedecho.flower.couriers`). All that they learn goes through
one queue to `next`, in whose thread the server works.

A node is known by its Flower id; the first that comes is client 0. A node that fails rests before it gets work again.
"""

from __future__ import annotations

import heapq
import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from ..core.errors import ConfigError
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
from .couriers import Answer, Couriers, Evaluated, Nodes, error_of
from .wire import Unreadable, printable

log = logging.getLogger("flwr")


FIRST_REST_S, LONGEST_REST_S = 5.0, 600.0
"""How long a node rests after its first failure, and at most; each failure in a row doubles it."""
KNOWN, RECENT = 3, 20
"""Answers of a node from which on its own times count, and how many of the latest do."""


RESTS = "its node rests after a refused answer"
"""The reason of a lost task that was never sent."""


class Codec(Protocol):
    """Writes tasks as messages' contents and reads answers."""

    def write(self, task: Task, model: Model) -> RecordDict: ...

    def read(self, task: int, content: RecordDict) -> TrainResult:
        """Raises Unreadable."""
        ...


class FlowerTransport:
    """Carries tasks to Flower nodes.

    Args:
        grid: Flower's.
        codec: writes and reads messages.
        began_at: when the run began, in seconds since the epoch: the clock's zero, also after a restart.
        after_s: the time of the last event that the server heard; the clock is never before it.
        names: the node id of every client so far, as `Joined` events named them.
        here: the clients that the server believes present.
        backlog: what a server that was killed had heard since its checkpoint, to be heard again first. What is in
            flight after it is lost: the messages went down with the old run.
        timeout_s: seconds after which a task without an answer is lost; an answer that comes later is refused.
        ttl_s: seconds that Flower keeps a message and its answer.
        refresh_s: seconds between looks at who is there.
        patience: a task is lost after this many times the longest time that its node took before, once the node has
            answered `KNOWN` tasks; None waits `timeout_s` for every node.
        choose: which of the nodes that are there may get work, by id; None: all.
        evaluated: is given every node's answer to `evaluate`, None for a node that did not give one.
    """

    def __init__(
        self,
        grid: Grid,
        codec: Codec,
        began_at: float,
        after_s: float = 0.0,
        names: Mapping[int, str] | None = None,
        here: Iterable[int] = (),
        backlog: Iterable[Event] | None = None,
        timeout_s: float = 43_200.0,
        ttl_s: float = 43_200.0,
        refresh_s: float = 3.0,
        evaluated: Callable[[int, int, Message | None], None] = lambda version, node, reply: None,
        patience: float | None = None,
        choose: Callable[[Sequence[int]], Iterable[int]] | None = None,
    ) -> None:
        self._codec, self._couriers = codec, Couriers(grid, ttl_s, refresh_s)
        self._began_at, self._timeout_s, self._refresh_s = began_at, timeout_s, refresh_s
        self._nodes = {client: int(name) for client, name in (names or {}).items()}
        self._clients = {node: client for client, node in self._nodes.items()}
        self._here = set(here)
        self._backlog = iter(backlog) if backlog is not None else None
        self._evaluated, self._patience, self._choose = evaluated, patience, choose
        self._took_s: dict[int, list[float]] = {}
        self._sent_s: dict[int, float] = {}
        self._due: deque[Event] = deque()
        self._open: dict[int, Task] = {}
        self._deadlines: list[tuple[float, int]] = []
        self._timers: list[float] = []
        self._seen: tuple[int, ...] = ()
        self._resting: dict[int, float] = {}
        self._failures: dict[int, int] = {}
        self._unjudged: int | None = None  # the client whose answer the server has and `judged` has not heard of
        self._held: list[tuple[Task, Model]] = []  # its next task, held back until then
        self._last_s = after_s

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
        self._couriers.close()

    # -- what the server asks

    def send(self, commands: Iterable[Command]) -> None:
        for command in commands:
            if isinstance(command, Dispatch):
                self._open[command.task.id] = command.task
                if self.live and command.task.client == self._unjudged:
                    self._held.append((command.task, command.model))
                elif self.live:
                    self._dispatch(command.task, command.model)
            elif isinstance(command, Cancel):  # Flower cannot take a message back: its answer will be refused
                self._open.pop(command.task, None)
            elif isinstance(command, WakeAt):
                heapq.heappush(self._timers, command.at_s)

    def _dispatch(self, task: Task, model: Model) -> None:
        node = self._nodes[task.client]
        self._sent_s[task.id] = time.monotonic()
        heapq.heappush(self._deadlines, (time.monotonic() + self._limit_s(node), task.id))

        def report(reply: Message | None, why: str) -> None:
            self._couriers.news.put(Answer(task.id, node, reply, why))

        self._couriers.send(node, MessageType.TRAIN, self._codec.write(task, model), str(task.id), report)

    def _limit_s(self, node: int) -> float:
        """Seconds after which a task of this node is lost."""
        times_s = self._took_s.get(node, [])
        if self._patience is None or len(times_s) < KNOWN:
            return self._timeout_s
        return min(self._timeout_s, self._patience * max(times_s))

    def evaluate(self, version: int, content: RecordDict, nodes: Iterable[int]) -> None:
        """Ask nodes to evaluate; nobody waits. A node that is training does it afterwards."""
        for node in nodes:
            report = self._evaluation(version, node)
            self._couriers.send(node, MessageType.EVALUATE, content, f"evaluate-{version}", report)

    def _evaluation(self, version: int, node: int) -> Callable[[Message | None, str], None]:
        def report(reply: Message | None, why: str) -> None:
            if reply is None or reply.has_error():
                log.warning("node %s did not evaluate version %s: %s", node, version, why or error_of(reply))
                reply = None
            self._couriers.news.put(Evaluated(version, node, reply))

        return report

    # -- what the server hears

    def next(self) -> Event:
        """The next event; waits for it as long as it takes."""
        event = self._again() or self._fresh()
        self._unjudged = None
        if isinstance(event, Arrived):
            task = self._open.pop(event.result.task, None)
            self._unjudged = task.client if task is not None and self.live else None
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
        self._couriers.watch()
        while not self._due:
            try:
                news = self._couriers.news.get(timeout=self._patience_s())
            except queue.Empty:
                self._look_at_the_clock()
                continue
            if isinstance(news, Answer):
                self._answered(news)
            elif isinstance(news, Nodes):
                self._seen = news.ids if self._choose is None else tuple(sorted(set(self._choose(news.ids))))
                self._count()
            else:
                self._evaluated(news.version, news.node, news.reply)
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
                self._failed(
                    self._nodes[task.client],
                    number,
                    f"no answer within {self._limit_s(self._nodes[task.client]):.4g} s",
                )
        rested = [node for node, until in self._resting.items() if until <= time.monotonic()]
        for node in rested:
            del self._resting[node]
        if rested:
            self._count()

    def _answered(self, answer: Answer) -> None:
        reply = answer.reply
        if (sent_s := self._sent_s.pop(answer.task, None)) is not None and reply is not None and not reply.has_error():
            self._took_s[answer.node] = [*self._took_s.get(answer.node, []), time.monotonic() - sent_s][-RECENT:]
        if reply is None or reply.has_error():
            why = answer.fault or error_of(reply)
            if answer.task in self._open:
                self._failed(answer.node, answer.task, why)
            else:
                log.info("task %s, not awaited any more: %s", answer.task, why)
            return
        try:
            result = self._codec.read(answer.task, reply.content)
        except ConfigError:
            raise
        except Exception as error:  # whatever reading raises is the answer's fault, not the run's end
            reason = str(error) if isinstance(error, Unreadable) else f"it cannot be read: {printable(error, 200)}"
            self._rest(answer.node)
            self._due.append(Rejected(self.now_s, answer.task, reason))
            log.warning("node %s sent what cannot be used: %s", answer.node, reason)
            return
        self._due.append(Arrived(self.now_s, result))

    def judged(self, client: int, refused: str | None) -> None:
        """What the server did with a client's answer: it accepted it (None), or refused it and says why. A node whose
        answer is refused rests like one that fails, and what the server sent it meanwhile is lost."""
        if not self.live:
            return
        node, held = self._nodes[client], self._held
        self._unjudged, self._held = None, []
        if refused is None:
            self._failures.pop(node, None)
            for task, model in held:
                self._dispatch(task, model)
            return
        if node not in self._resting:  # as one does already whose answer could not be read
            log.warning("the answer of node %s is refused: %s", node, refused)
            self._rest(node)
        self._due.extend(Lost(self.now_s, task.id, RESTS) for task, _ in held)

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
