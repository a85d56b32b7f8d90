"""Handing out work: who gets the next tasks, what is in flight, and which model versions that needs."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..algorithms.base import Algorithm
from ..core.formats import PredictionFormat
from ..core.keys import Key
from ..core.messages import Cancel, Command, Dispatch, LogEntry, Request, Task, View, WakeAt
from .clients import Clients
from .settings import ServerConfig, Stop
from .snapshots import Snapshots, TaskTable
from .state import ServerState


class Dispatcher:
    """Hands out tasks and takes them back.

    Args:
        state: what is in flight, who is idle, the versions and the timers in it are changed here alone.
        algorithm: selects the clients.
        config: concurrency, refill, the client schedule.
        stop: says how much of the run is done, for the schedule.
        key: of the draws of clients.
        format: of the predictions that clients are asked for; None where none are.
    """

    def __init__(
        self,
        state: ServerState,
        algorithm: Algorithm,
        config: ServerConfig,
        stop: Stop,
        key: Key,
        format: PredictionFormat | None,
    ) -> None:
        self._state, self._algorithm, self._config, self._stop = state, algorithm, config, stop
        self._key, self._format = key, format
        self._has_deadline = type(algorithm).deadline_s is not Algorithm.deadline_s
        self._cancels = type(algorithm).cancelled is not Algorithm.cancelled
        self._tasks_by_version = Counter(task.version for task in state.in_flight.values())
        self._snapshots = Snapshots(TaskTable, state.in_flight)
        self.clients = Clients(state)

    def view(self) -> View:
        """What a rule is shown now. It does not change later."""
        state = self._state
        waiting = state.since_aggregation if self._config.refill == "batch" else 0
        return View(
            now_s=state.now_s,
            version=state.model.version,
            updates=state.updates,
            clients=state.clients,
            idle=self.clients.idle(),
            in_flight=self._snapshots.take(),
            slots=self._config.concurrency - len(state.in_flight) - waiting,
        )

    def again(self) -> list[Command]:
        """What a transport that starts anew has to carry: the tasks in flight, and the timers."""
        state = self._state
        tasks = sorted(state.in_flight.values(), key=lambda task: task.id)
        commands: list[Command] = [Dispatch(task, state.versions[task.version]) for task in tasks]
        return [*commands, *(WakeAt(at_s) for at_s in state.timers)]

    def dispatch(self, commands: list[Command], log: list[LogEntry]) -> None:
        """Give work to the clients that the rule selects."""
        state, rule = self._state, self._algorithm
        selected = list(rule.select(state.algorithm, self.view(), self._key.fold(state.next_task)))
        if selected:
            progress = self._stop.progress(state.updates, state.model.version, state.now_s)
            request = Request(self._config.client_schedule(min(1.0, progress)), self._format)
            self._snapshots.before_change()
            for client in selected:
                extra = rule.task_extra(state.algorithm, client)
                task = Task(state.next_task, client, state.model.version, state.busy_until_s, extra, request)
                state.next_task += 1
                state.in_flight[task.id] = task
                self._tasks_by_version[task.version] += 1
                self.clients.begin(client)
                commands.append(Dispatch(task, state.model))
                log.append(LogEntry("dispatch", task.issued_at_s, client, task.id, task.version))
        if self._has_deadline and (deadline_s := rule.deadline_s(state.algorithm, self.view())) is not None:
            self.wake_at(deadline_s, commands)

    def release(self, task: Task) -> None:
        """The task is over: its client may be idle again, and its version may be dropped."""
        self._snapshots.before_change()
        del self._state.in_flight[task.id]
        self._tasks_by_version[task.version] -= 1
        self.clients.end(task.client)
        self.drop_version(task.version)

    def drop_version(self, version: int) -> None:
        """Drop a version that is neither current nor needed by a task in flight."""
        if version != self._state.model.version and not self._tasks_by_version[version]:
            self._state.versions.pop(version, None)
            self._tasks_by_version.pop(version, None)

    def cancel(self, commands: list[Command], log: list[LogEntry]) -> None:
        """Take back the tasks that the rule does not await any more."""
        if not self._cancels:
            return
        for number in tuple(self._algorithm.cancelled(self._state.algorithm, self.view())):
            task = self._state.in_flight[number]
            self.release(task)
            commands.append(Cancel(number))
            about: dict[str, Any] = {"client": task.client, "task": task.id, "version": task.version}
            log.append(LogEntry("cancel", self._state.now_s, **about))

    def wake_at(self, at_s: float, commands: list[Command]) -> None:
        """Ask the transport for a `Wake`, unless it was asked for that time already."""
        if at_s > self._state.now_s and at_s not in self._state.timers:
            self._state.timers.append(at_s)
            commands.append(WakeAt(at_s))
