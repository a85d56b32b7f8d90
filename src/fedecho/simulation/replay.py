"""Replay: the recorded events of a run; results are computed again, or taken from the record of a live run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..core.errors import RecordError
from ..core.messages import Arrived, Cancel, Command, Dispatch, Event, Joined, Left, Lost, Wake
from ..executors.base import Executor


class ReplayTransport:
    """Brings back the events of `inbox` in their recorded order; the results that arrived are computed again.

    Args:
        inbox: (time, kind, number, reason) of each event that the recorded server heard: see `fedecho.runs.folder`.
        executor: computes the jobs.
    """

    def __init__(self, inbox: Iterable[tuple[float, str, int, str]], executor: Executor) -> None:
        entries = list(inbox)
        self._inbox: Iterator[tuple[float, str, int, str]] = iter(entries)
        self._due = {number: place for place, (_, kind, number, _) in enumerate(entries) if kind == "arrived"}
        self.executor = executor
        self._now_s = 0.0
        self._sent: set[int] = set()

    @property
    def now_s(self) -> float:
        return self._now_s

    def send(self, commands: Iterable[Command]) -> None:
        for command in commands:
            if isinstance(command, Dispatch):
                self._sent.add(command.task.id)
                if (place := self._due.get(command.task.id)) is not None:
                    self.executor.submit(command.task, command.model, place)
            elif isinstance(command, Cancel):
                self._sent.discard(command.task)
                self.executor.cancel(command.task)

    def next(self) -> Event:
        """The next recorded event.

        Raises:
            RecordError: when the record ends too early, or names a job that this server never sent.
        """
        entry = next(self._inbox, None)
        if entry is None:
            raise RecordError(f"the record ends at {self._now_s:.1f} s, before the run is done; resume the run first")
        at_s, kind, number, reason = entry
        self._now_s = at_s
        if kind in ("arrived", "lost") and number not in self._sent:
            raise RecordError(f"the record has an answer to task {number} at {at_s:.1f} s, which was never sent")
        if kind == "arrived":
            self._sent.discard(number)
            return Arrived(at_s, self.executor.result(number))
        if kind == "lost":
            self.executor.cancel(number)
            return Lost(at_s, number, reason)
        if kind == "joined":
            return Joined(at_s, number)
        return Left(at_s, number) if kind == "left" else Wake(at_s)


class KeptTransport:
    """Brings back the events of a live run as they were recorded; what the server sends goes nowhere.

    Args:
        events: what the recorded server heard, in order, with what the clients sent.
    """

    def __init__(self, events: Iterable[Event]) -> None:
        self._events = iter(events)
        self._now_s = 0.0

    @property
    def now_s(self) -> float:
        return self._now_s

    def send(self, commands: Iterable[Command]) -> None: ...

    def next(self) -> Event:
        """The next recorded event.

        Raises:
            RecordError: when the record ends too early.
        """
        event = next(self._events, None)
        if event is None:
            raise RecordError(
                f"the record ends at {self._now_s:.1f} s, before the run is done; let the run finish first"
            )
        self._now_s = event.at_s
        return event
