"""The one loop that drives a server, and what it needs: a transport and a journal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from ..core.messages import Command, Event, LogEntry
from .server import Server


class Transport(Protocol):
    """Carries tasks to clients and brings back what happens to them."""

    @property
    def now_s(self) -> float: ...

    def send(self, commands: Iterable[Command]) -> None: ...

    def next(self) -> Event:
        """The next event. Raises `Stalled`, saying why, when there can be none."""
        ...


class Journal(Protocol):
    """Makes events durable and keeps the records."""

    def accept(self, event: Event) -> None: ...

    def commit(self, log: Sequence[LogEntry]) -> None: ...


def serve(server: Server, transport: Transport, journal: Journal) -> None:
    """Drive `server` until it is done."""
    commands, log = server.start(transport.now_s)
    journal.commit(log)
    transport.send(commands)
    while not server.done:
        event = transport.next()
        journal.accept(event)  # what the server does follows from what it heard
        commands, log = server.handle(event)
        transport.send(commands)  # clients work while the model is judged
        journal.commit(log)
