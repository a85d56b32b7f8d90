"""The server: takes one event at a time and answers with what to send and what happened.

    events in  ──►  Server.handle  ──►  commands out (to the transport), log entries (to the records)

It has no clock, thread, file or socket. Everything it is can be taken as a value (`snapshot`) and put back (`restore`);
after that, `start` gives the transport again whatever was in flight, so a transport has nothing of its own to save.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..algorithms.base import Algorithm, ClientUpdate
from ..core.errors import ConfigError, Diverged
from ..core.keys import Key
from ..core.messages import (
    Arrived,
    Command,
    Event,
    Joined,
    Left,
    LogEntry,
    Lost,
    Model,
    Rejected,
    Task,
    TrainResult,
    Wake,
)
from ..stages.base import Stage
from ..stages.compute import Compute
from .admission import Admission, Admitted, Refusal, RefusalKind
from .dispatch import Dispatcher
from .settings import ServerConfig, Stop
from .stage_runner import StageRunner
from .state import ServerState


class Server:
    """An asynchronous federated server: one algorithm, any number of stages.

    Args:
        algorithm: the aggregation rule.
        model: the initial model (version 0).
        clients: N at the start; clients are numbered from 0 and all present until a `Left` says otherwise. A `Joined`
            by client N adds one.
        key: where the server's random draws come from.
        stop: when the run ends.
        config: concurrency, refill, schedules, limits.
        stages: in this order they revise a change and run after an aggregation.
        compute: does the stages' learning; required by stages that need it.
        outputs: how many predictions a client makes on U, and of how many classes: (P, C); others are refused.
        away: clients that are not present at the start.
        store_row: stores a row of predictions elsewhere, and returns it from there; None leaves rows in memory.

    Raises:
        ConfigError: when a stage lacks what it needs.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        model: Model,
        clients: int,
        key: Key,
        stop: Stop,
        config: ServerConfig | None = None,
        stages: Sequence[Stage] = (),
        compute: Compute | None = None,
        outputs: tuple[int, int] | None = None,
        away: Iterable[int] = (),
        store_row: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.algorithm, self.stop, self.config = algorithm, stop, config or ServerConfig()
        self.stages = tuple(stage.for_algorithm(algorithm) for stage in stages)
        exclusive = [stage.name for stage in self.stages if stage.exclusive]
        if exclusive and model.buffers.numel():
            raise ConfigError(
                f"stages {exclusive[0]!r} protects weights only, and the model has statistics of batch norm "
                f"({model.buffers.numel()} numbers) that would leave as they are: take a model with group norm"
            )
        settings = self.config
        self._stages = StageRunner(self.stages, key, compute, settings.stage_s, settings.predict_s, store_row)
        self._select_key, format = key.fold("select"), self._stages.format
        self._admission = Admission(algorithm, settings, not exclusive, format, outputs, self._predict)
        absent = dict.fromkeys(sorted(set(away)))
        self._adopt(
            ServerState(
                clients=clients,
                model=model,
                algorithm=algorithm.init(model.weights, clients),
                stages=self._stages.init(clients),
                stage_runs=(0,) * len(self.stages),
                average=model.weights if self.config.ema else None,
                buffers_sum=torch.zeros_like(model.buffers),
                idle=[client for client in range(clients) if client not in absent],
                away=absent,
                versions={model.version: model},
            )
        )

    def _adopt(self, state: ServerState) -> None:
        self.state = state
        format = self._stages.format
        self._jobs = Dispatcher(state, self.algorithm, self.config, self.stop, self._select_key, format)

    # -- what can be read from outside

    @property
    def clients(self) -> int:
        """N: how many clients there have ever been."""
        return self.state.clients

    @property
    def model(self) -> Model:
        """The current model, x_t: what clients are sent."""
        return self.state.model

    @property
    def output(self) -> Model:
        """The model the run is judged by: x_t, or the average of the server's weights where `ema` asks for it."""
        average = self.state.average
        return self.model if average is None else replace(self.model, weights=average)

    @property
    def done(self) -> bool:
        """Whether a limit of `stop` is reached."""
        state = self.state
        return self.stop.progress(state.updates, state.model.version, state.now_s) >= 1.0

    @property
    def progress(self) -> float:
        """The fraction of the run that is done, in [0, 1]."""
        state = self.state
        return min(1.0, self.stop.progress(state.updates, state.model.version, state.now_s))

    def snapshot(self) -> ServerState:
        """All of the server's state as one tree; values in it are not changed later, containers are copied."""
        return self.state.copy()

    def restore(self, snapshot: Any) -> None:
        """Go on from a `snapshot`, which can be restored again. The algorithm and stages must be those that made it."""
        state: ServerState = snapshot.copy()
        state.stages = self._stages.with_rows_stored(state.stages)
        self._adopt(state)

    # -- the two entrances

    def start(self, now_s: float) -> tuple[list[Command], list[LogEntry]]:
        """What to send first: the first tasks, or after `restore` everything that was in flight, again."""
        state = self.state
        if state.started:
            return self._jobs.again(), []
        state.started = True
        state.event_s = state.now_s = state.busy_until_s = now_s
        commands: list[Command] = []
        log: list[LogEntry] = []
        if self.stop.virtual_time_s is not None:
            self._jobs.wake_at(self.stop.virtual_time_s, commands)
        self._jobs.dispatch(commands, log)
        return commands, log

    def handle(self, event: Event) -> tuple[list[Command], list[LogEntry]]:
        """Take one event; answer with what to send and what happened."""
        state = self.state
        state.event_s = event.at_s
        state.now_s = max(event.at_s, state.busy_until_s)  # what the server is charged for delays what comes next
        state.busy_until_s = state.now_s
        commands: list[Command] = []
        log: list[LogEntry] = []
        if isinstance(event, Arrived):
            self._on_arrived(event.result, log)
        elif isinstance(event, Rejected):
            self._on_rejected(event, log)
        elif isinstance(event, Lost):
            self._on_lost(event, log)
        elif isinstance(event, Joined):
            self._on_joined(event.client, log)
        elif isinstance(event, Left):
            if self._jobs.clients.leave(event.client):
                log.append(LogEntry("leave", state.now_s, client=event.client))
        elif isinstance(event, Wake):
            state.timers[:] = [at_s for at_s in state.timers if at_s > event.at_s]
        if not isinstance(event, Arrived) and self.done:
            return commands, log
        if self.algorithm.ready(state.algorithm, self._jobs.view()):
            self._aggregate(commands, log)
        if not self.done:
            self._jobs.dispatch(commands, log)
        return commands, log

    # -- events

    def _on_arrived(self, result: object, log: list[LogEntry]) -> None:
        number = result.task if isinstance(result, TrainResult) else None
        task = self._awaited(number, log)
        if task is None:
            return
        assert isinstance(result, TrainResult)
        state = self.state
        start = state.versions[task.version]
        admitted = self._admission.admit(result, start, task.client, state.norms, state.clients)
        if isinstance(admitted, Refusal):
            self._refuse(task, admitted, log)
        else:
            self._use(task, admitted, start, log)
        self._jobs.release(task)

    def _use(self, task: Task, admitted: Admitted, start: Model, log: list[LogEntry]) -> None:
        """Give an admitted answer to the stages, and, unless it is too late, to the rule."""
        state, result = self.state, admitted.result
        staleness = state.model.version - task.version
        update = ClientUpdate(
            client=task.client,
            staleness=staleness,
            delta=admitted.delta,
            weights=result.weights,
            start=start.weights,
            current=state.model.weights,
            buffers=result.buffers,
            num_examples=admitted.num_examples,
            version=state.model.version,
            issued_at_s=task.issued_at_s,
            extra=result.extra,
        )
        # before its lateness is judged: lateness is what an echo is for
        self._stages.on_update(state, update, admitted.predictions)
        if self.algorithm.is_stale(staleness):
            self._refuse(task, Refusal("late", "too late"), log)
            return
        detail = _accept_detail(admitted, state.now_s - task.issued_at_s)
        log.append(LogEntry("accept", state.now_s, **self._about(task), detail=detail))
        if self.stages:
            update = self._stages.revise(state, update, self._about(task), log)
        state.algorithm = self.algorithm.receive(state.algorithm, update)
        if result.buffers.numel():
            state.buffers_sum = state.buffers_sum + result.buffers
        state.since_aggregation += 1
        state.updates += 1
        state.refused_in_a_row.pop(task.client, None)

    def _awaited(self, number: object, log: list[LogEntry]) -> Task | None:
        """The task that an answer is for; an answer that nobody waits for is refused here."""
        state, plain = self.state, _plain_int(number)
        task = None if plain is None else state.in_flight.get(plain)
        if task is None:
            known = plain is not None and 0 <= plain < state.next_task
            reason = "already answered, lost or cancelled" if known else "unknown task"
            self._count("task")
            detail: dict[str, float | str] = {"reason": reason, "refusal": "task"}
            log.append(LogEntry("refuse", state.now_s, task=plain, detail=detail))
        return task

    def _refuse(self, task: Task, refusal: Refusal, log: list[LogEntry]) -> None:
        state = self.state
        self._count(refusal.kind)
        in_a_row = state.refused_in_a_row.get(task.client, 0) + 1
        state.refused_in_a_row[task.client] = in_a_row
        detail: dict[str, float | str] = {"reason": refusal.reason, "refusal": refusal.kind, "in_a_row": in_a_row}
        log.append(LogEntry("refuse", state.now_s, **self._about(task), detail=detail))

    def _count(self, kind: RefusalKind) -> None:
        self.state.refused += 1
        self.state.refusals[kind] = self.state.refusals.get(kind, 0) + 1

    def _about(self, task: Task) -> dict[str, int]:
        """What a log entry says of the task that was answered."""
        staleness = self.state.model.version - task.version
        return {"client": task.client, "task": task.id, "version": task.version, "staleness": staleness}

    def _on_rejected(self, event: Rejected, log: list[LogEntry]) -> None:
        task = self._awaited(event.task, log)
        if task is not None:
            self._refuse(task, Refusal("unreadable", event.reason), log)
            self._jobs.release(task)

    def _on_lost(self, event: Lost, log: list[LogEntry]) -> None:
        number = _plain_int(event.task)
        task = None if number is None else self.state.in_flight.get(number)
        if task is None:  # it was cancelled, or answered after all
            return
        self._jobs.release(task)
        about = {"client": task.client, "task": task.id, "version": task.version}
        log.append(LogEntry("lost", self.state.now_s, **about, detail={"reason": event.reason}))

    def _on_joined(self, client: int, log: list[LogEntry]) -> None:
        state = self.state
        if client == state.clients:
            state.clients += 1
            state.algorithm = self.algorithm.add_clients(state.algorithm, state.clients)
            state.away[client] = None
        if self._jobs.clients.join(client):
            log.append(LogEntry("join", state.now_s, client=client))

    # -- aggregation

    def _aggregate(self, commands: list[Command], log: list[LogEntry]) -> None:
        state = self.state
        factor = self.config.schedule(self.progress)
        before, current = state.algorithm, state.model
        weights, state.algorithm = self.algorithm.aggregate(before, current.weights, factor)
        buffers = current.buffers
        if buffers.numel():
            mean = state.buffers_sum / state.since_aggregation
            buffers = self.algorithm.mix_buffers(before, buffers, mean)
        model = Model(current.version + 1, weights, buffers)
        state.busy_until_s += self.config.aggregate_s
        detail: dict[str, float | str] = {"count": state.since_aggregation}
        log.append(LogEntry("aggregate", state.now_s, version=model.version, detail=detail))
        model = self._stages.after_aggregate(state, model, log)
        if not math.isfinite(float(torch.linalg.vector_norm(model.weights))):
            raise Diverged(
                f"the server's model is not finite after aggregation {model.version} ({state.updates} updates): the "
                "run diverged; lower the algorithm's or the stage's step size"
            )
        state.model = state.versions[model.version] = model
        self._jobs.drop_version(current.version)
        if buffers.numel():
            state.buffers_sum = torch.zeros_like(buffers)
        state.since_aggregation = 0
        if state.average is not None:
            state.average = model.weights.lerp(state.average, self.config.ema)
        self._jobs.cancel(commands, log)

    def _predict(self, result: TrainResult) -> Tensor:
        return self._stages.predict(self.state, result)


def _plain_int(number: object) -> int | None:
    """The number, if it is a whole number that the records can hold."""
    return number if isinstance(number, int) and type(number) is int and abs(number) < 2**63 else None


def _accept_detail(admitted: Admitted, waited_s: float) -> dict[str, float | str]:
    """What the records say of an accepted update: the server's own numbers, and the client's metrics beside them."""
    detail: dict[str, float | str] = {
        "num_examples": admitted.num_examples,
        "waited_s": waited_s,
        "change_norm": admitted.norm,
    }
    metrics = {f"client.{name}" if name in detail else name: value for name, value in admitted.metrics.items()}
    return {**detail, **metrics}
