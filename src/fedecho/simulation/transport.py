"""A federation in virtual time: a heap of (time, rank, number), and an executor that does the clients' work."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable

from ..core.errors import Stalled
from ..core.messages import Arrived, Cancel, Command, Dispatch, Event, Joined, Left, Lost, Wake, WakeAt
from ..executors.base import Executor
from .population import Population

# At equal times: first clients that join or leave, then timers, then jobs in the order in which they were sent.
_PRESENCE, _TIMER, _JOB = range(3)


class SimulatedTransport:
    """Virtual time. It never depends on how fast the host is.

    The heap follows from the tasks in flight, the timers and the population alone, so there is nothing to save: after a
    restart the server sends again what was in flight and everything ends when it would have ended.

    Args:
        population: how long jobs take, who is lost, who is away.
        executor: computes a job by the time its result arrives.
        down_bytes: what a task sends to a client, for the network's time.
        up_bytes: what a client sends back.
        now_s: the clock's start.
        away: the clients that the server believes absent at `now_s`.
        ends_at_s: when the run ends for certain: a job that ends no earlier is never computed.
    """

    def __init__(
        self,
        population: Population,
        executor: Executor,
        down_bytes: int = 0,
        up_bytes: int = 0,
        now_s: float = 0.0,
        away: Iterable[int] = (),
        ends_at_s: float = math.inf,
    ) -> None:
        self.population, self.executor = population, executor
        self.down_bytes, self.up_bytes = down_bytes, up_bytes
        self._now_s, self._ends_at_s = now_s, ends_at_s
        self._heap: list[tuple[float, int, int, str | None]] = []
        self._pending: set[int] = set()
        absent = set(away)
        for client in range(population.clients):
            if population.present(client, now_s) == (client in absent):
                self._push(now_s, _PRESENCE, client)  # it changed at this moment, and the server does not know yet
            else:
                self._push_change(client, now_s)

    @property
    def now_s(self) -> float:
        return self._now_s

    def _push(self, at_s: float, rank: int, number: int, reason: str | None = None) -> None:
        heapq.heappush(self._heap, (at_s, rank, number, reason))

    def _push_change(self, client: int, after_s: float) -> None:
        at_s = self.population.next_change(client, after_s)
        if at_s is not None:
            self._push(at_s, _PRESENCE, client)

    def send(self, commands: Iterable[Command]) -> None:
        """Carry commands out: plan when each job ends, set timers, forget what is cancelled."""
        for command in commands:
            if isinstance(command, Dispatch):
                task = command.task
                plan = self.population.plan(task.client, task.id, task.issued_at_s, self.down_bytes, self.up_bytes)
                self._push(plan.ends_at_s, _JOB, task.id, plan.lost)
                self._pending.add(task.id)
                if plan.lost is None and plan.ends_at_s < self._ends_at_s:
                    self.executor.submit(task, command.model, plan.ends_at_s)
            elif isinstance(command, Cancel):
                self._pending.discard(command.task)
                self.executor.cancel(command.task)
            elif isinstance(command, WakeAt):
                self._push(command.at_s, _TIMER, 0)

    def next(self) -> Event:
        """Advance the clock to the next event.

        Raises:
            Stalled: when nothing is left to wait for.
        """
        while self._heap:
            at_s, rank, number, lost = heapq.heappop(self._heap)
            if rank == _JOB and number not in self._pending:
                continue
            self._now_s = max(self._now_s, at_s)
            if rank == _PRESENCE:
                self._push_change(number, at_s)
                present = self.population.present(number, at_s)
                return Joined(at_s, number) if present else Left(at_s, number)
            if rank == _TIMER:
                return Wake(at_s)
            self._pending.discard(number)
            return Lost(at_s, number, lost) if lost else Arrived(at_s, self.executor.result(number))
        raise Stalled(
            f"no job, timer or client is left to wait for at {self._now_s:.1f} s although the run is not done: "
            "nobody could be given work (is buffer_size or the cohort larger than the clients that can answer?)"
        )
