"""Who is idle, away or at work; every operation takes the same time whatever the number of clients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .snapshots import ClientList, Snapshots
from .state import ServerState


class Clients:
    """The clients of a `ServerState`, with the indexes that make finding them fast.

    Args:
        state: its `idle` and `away` are changed here alone.
    """

    def __init__(self, state: ServerState) -> None:
        self._idle, self._away = state.idle, state.away
        self._place = {client: place for place, client in enumerate(state.idle)}
        self._tasks = Counter(task.client for task in state.in_flight.values())
        self._snapshots = Snapshots(ClientList, state.idle)

    def idle(self) -> Sequence[int]:
        """The idle clients now; the sequence does not change later."""
        return self._snapshots.take()

    def begin(self, client: int) -> None:
        """The client has a task from now on."""
        self._tasks[client] += 1
        self._remove_idle(client)

    def end(self, client: int) -> None:
        """The client's task is over: it is idle again, if it is present."""
        self._tasks[client] -= 1
        if self._tasks[client] <= 0:
            del self._tasks[client]
            if client not in self._away:
                self._add_idle(client)

    def join(self, client: int) -> bool:
        """The client is present; was it away?"""
        if client not in self._away:
            return False
        del self._away[client]
        if client not in self._tasks:
            self._add_idle(client)
        return True

    def leave(self, client: int) -> bool:
        """The client is away; was it present?"""
        if client in self._away:
            return False
        self._away[client] = None
        self._remove_idle(client)
        return True

    # An idle client is removed in O(1) by putting the last one in its place.

    def _add_idle(self, client: int) -> None:
        if client not in self._place:
            self._snapshots.before_change()
            self._place[client] = len(self._idle)
            self._idle.append(client)

    def _remove_idle(self, client: int) -> None:
        place = self._place.pop(client, None)
        if place is None:
            return
        self._snapshots.before_change()
        last = self._idle.pop()
        if last != client:
            self._idle[place] = last
            self._place[last] = place
