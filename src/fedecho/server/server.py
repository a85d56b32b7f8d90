"""The server and the one loop that drives it. No clock, no thread, no socket, no file.

    events in  ──►  Server.handle  ──►  commands out (to the transport), facts (to the records)

`serve` is the only loop in the project. A transport carries tasks out and brings events back; a journal makes each
event durable before it counts. Everything the server is can be taken as a value (`snapshot`) and put back (`restore`);
after that, `start` asks the transport again for whatever was in flight, so a transport has nothing of its own to save.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..algorithms.base import Algorithm, ClientUpdate
from ..core import topk as sparse
from ..core.errors import ConfigError, Diverged
from ..core.keys import Key
from ..core.messages import (
    Arrived,
    Cancel,
    Command,
    Dispatch,
    Event,
    Extra,
    Joined,
    Left,
    LogEntry,
    Lost,
    Model,
    Rejected,
    Task,
    TrainResult,
    View,
    Wake,
    WakeAt,
)
from ..stages.base import Stage
from ..stages.compute import LOGITS, Compute, PredictionFormat
from .settings import RECENT_NORMS, ServerConfig, Stop
from .state import ServerState


def common_format(stages: Iterable[Stage]) -> PredictionFormat:
    """The form of predictions that suits all stages."""
    forms = {stage.form for stage in stages if stage.needs_predictions}
    return forms.pop() if len(forms) == 1 else LOGITS


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
        stages: stages; in this order they revise a change and run after an aggregation.
        compute: does the stages' learning; required with stages.
        outputs: how many predictions a client makes on U, and of how many classes: (P, C); others are refused.
        away: clients that are not there at the start.
        keep: puts a row of predictions where it is to be kept, and returns it from there.

    Raises:
        ConfigError: when no aggregation could ever happen.
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
        keep: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        config = config or ServerConfig()
        if compute is None and any(stage.needs_compute for stage in stages):
            raise ConfigError("a stage needs somebody to compute: give `compute`")
        if model.buffers.numel() and (guards := [stage.name for stage in stages if stage.exclusive]):
            raise ConfigError(
                f"stages {guards[0]!r} protects weights only, and the model has statistics of batch norm "
                f"({model.buffers.numel()} numbers) that would leave as they are: take a model with group norm"
            )
        self.algorithm = algorithm
        self.stop = stop
        self.config = config
        self.stages = tuple(stage.for_algorithm(algorithm) for stage in stages)
        self._predicting = any(stage.needs_predictions for stage in self.stages)
        self._compute: Any = compute  # None where no stage asks it for anything
        self._outputs = outputs
        self._form = common_format(self.stages)
        self._keep = keep
        self._key, self._select = key, key.fold("select")
        self._timed = type(algorithm).deadline_s is not Algorithm.deadline_s
        self._abandons = type(algorithm).cancelled is not Algorithm.cancelled
        self._asked: dict[str, Any] = {"predict": float(self._predicting)}  # of every task
        if self._predicting:
            self._asked |= self._form.asking()
        self._no_predictions = model.weights.new_zeros(0)  # the predictions of a run that asks for none
        predictions = None if compute is None else compute.predictions
        absent = set(away)
        idle = [client for client in range(clients) if client not in absent]
        self._place = {client: place for place, client in enumerate(idle)}  # client to its place in the idle list
        self._version_users: Counter[int] = Counter()  # version to the number of jobs in flight that started from it
        self._ranked: list[float] = []  # the ledger's norms in order of size
        self.state = ServerState(
            clients=clients,
            model=model,
            algorithm=algorithm.init(model.weights, clients),
            stages=tuple(stage.init(clients, predictions) for stage in self.stages),
            stage_runs=(0,) * len(self.stages),
            average=model.weights if config.ema else None,
            buffers_sum=torch.zeros_like(model.buffers),
            idle=idle,
            away=sorted(absent),
            versions={model.version: model},
        )

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
        state = self.state
        return self.stop.progress(state.updates, state.model.version, state.now_s) >= 1.0

    @property
    def progress(self) -> float:
        """The fraction of the run that is done, in [0, 1]."""
        state = self.state
        return min(1.0, self.stop.progress(state.updates, state.model.version, state.now_s))

    def snapshot(self) -> ServerState:
        """All of the server's state as one tree; values in it are not changed later, containers are copied."""
        state = self.state
        return replace(
            state,
            idle=list(state.idle),
            away=list(state.away),
            in_flight=dict(state.in_flight),
            versions=dict(state.versions),
            timers=list(state.timers),
            norms=list(state.norms),
        )

    def restore(self, snapshot: Any) -> None:
        """Go on from a `snapshot`. The algorithm and stages must be those that made it."""
        self.state = snapshot
        self.state = self.snapshot()  # containers of its own: the same snapshot can be restored again
        if self._keep is not None:
            pairs = zip(self.stages, self.state.stages, strict=True)
            self.state.stages = tuple(stage.with_rows_stored(state, self._keep) for stage, state in pairs)
        self._place = {client: place for place, client in enumerate(self.state.idle)}
        self._version_users = Counter(task.version for task in self.state.in_flight.values())
        self._ranked = sorted(self.state.norms)

    # -- the two entrances

    def start(self, now_s: float) -> tuple[list[Command], list[LogEntry]]:
        """What to send first: the first tasks, or after `restore` everything that was in flight, again."""
        state = self.state
        if state.started:
            tasks = sorted(state.in_flight.values(), key=lambda task: task.id)
            again: list[Command] = [Dispatch(task, state.versions[task.version]) for task in tasks]
            return [*again, *(WakeAt(at_s) for at_s in state.timers)], []
        state.started = True
        state.event_s = state.now_s = state.busy_until_s = now_s
        commands: list[Command] = []
        log: list[LogEntry] = []
        if self.stop.virtual_time_s is not None:
            self._wake_at(self.stop.virtual_time_s, commands)
        self._dispatch(self._view(), commands, log)
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
            self._on_left(event.client, log)
        elif isinstance(event, Wake):
            state.timers = [at_s for at_s in state.timers if at_s > event.at_s]
        if not isinstance(event, Arrived) and self.done:
            return commands, log
        view = self._view()
        if self.algorithm.ready(state.algorithm, view):
            self._aggregate(commands, log)
            view = self._view()
        if not self.done:
            self._dispatch(view, commands, log)
        return commands, log

    # -- events

    def _on_arrived(self, result: TrainResult, log: list[LogEntry]) -> None:
        state = self.state
        task = self._awaited(result.task, log)
        if task is None:
            return
        start = state.versions[task.version]
        staleness = state.model.version - task.version
        reason, delta, norm = self._fault(result, start)
        if norm <= self.config.max_change_norm:  # refused or not: a change of regime must not be refused for ever
            self._remember(norm)
        predictions = self._no_predictions
        if self._predicting and reason is None:
            predictions = self._predictions(result)
            reason = self._predictions_fault(predictions)
        about = {"client": task.client, "task": task.id, "version": task.version, "staleness": staleness}
        if reason is not None:
            state.refused += 1
            log.append(LogEntry("refuse", state.now_s, **about, detail={"reason": reason}))
            self._release(task)
            return
        update = ClientUpdate(
            client=task.client,
            staleness=staleness,
            delta=delta,
            weights=result.weights,
            start=start.weights,
            current=state.model.weights,
            buffers=result.buffers,
            num_examples=result.num_examples,
            version=state.model.version,
            issued_at_s=task.issued_at_s,
            extra=result.extra,
        )
        if self._keep is not None and self._predicting:
            predictions = self._keep(predictions)
        if self.stages:  # before its lateness is judged: lateness is what an echo is for
            pairs = zip(self.stages, state.stages, strict=True)
            state.stages = tuple(stage.on_update(state, update, predictions) for stage, state in pairs)
        if self.algorithm.is_stale(staleness):
            state.refused += 1
            log.append(LogEntry("refuse", state.now_s, **about, detail={"reason": "too late"}))
        else:
            waited_s = state.now_s - task.issued_at_s
            detail = {"num_examples": result.num_examples, "waited_s": waited_s, "change_norm": norm}
            log.append(LogEntry("accept", state.now_s, **about, detail={**detail, **result.metrics}))
            if self.stages:
                update = self._revise(update, about, log)
            state.algorithm = self.algorithm.receive(state.algorithm, update)
            if result.buffers.numel():
                state.buffers_sum = state.buffers_sum + result.buffers
            state.since_aggregation += 1
            state.updates += 1
        self._release(task)

    def _awaited(self, number: int, log: list[LogEntry]) -> Task | None:
        """The task that an answer is for; an answer that nobody waits for is refused here."""
        state = self.state
        task = state.in_flight.get(number)
        if task is None:
            known = 0 <= number < state.next_task
            why = "already answered, lost or cancelled" if known else "unknown task"
            state.refused += 1
            log.append(LogEntry("refuse", state.now_s, task=number, detail={"reason": why}))
        return task

    def _on_rejected(self, event: Rejected, log: list[LogEntry]) -> None:
        state = self.state
        task = self._awaited(event.task, log)
        if task is None:
            return
        staleness = state.model.version - task.version
        state.refused += 1
        about: dict[str, Any] = {"client": task.client, "task": task.id, "version": task.version}
        log.append(LogEntry("refuse", state.now_s, **about, staleness=staleness, detail={"reason": event.reason}))
        self._release(task)

    def _revise(self, update: ClientUpdate, about: dict[str, Any], log: list[LogEntry]) -> ClientUpdate:
        """The change as the stages leave it: x_i − x_{t−τ} = Δ_i holds of it again."""
        state = self.state
        states = list(state.stages)
        for i, stage in enumerate(self.stages):
            key = self._key.fold("revise", stage.name, about["task"])
            delta, states[i], detail = stage.revise(states[i], update, state.model, self._compute, key)
            if delta is not update.delta:
                update = replace(update, delta=delta, weights=update.start + delta)
            if detail:  # else it did nothing
                self._charge(self.config.stage_s)
                log.append(LogEntry("stage", state.now_s, **about, detail={"stage": stage.name, **detail}))
        state.stages = tuple(states)
        return update

    def _fault(self, result: TrainResult, start: Model) -> tuple[str | None, Tensor, float]:
        """Why the server cannot use this update, if it cannot; its change, and the norm of that."""
        unknown = self._no_predictions, math.nan
        for what, got, want in (
            ("weights", result.weights, start.weights),
            ("buffers", result.buffers, start.buffers),
        ):
            if got.shape != want.shape:
                return f"{what} have shape {tuple(got.shape)}, not {tuple(want.shape)}", *unknown
            if got.dtype != want.dtype:
                return f"{what} have dtype {got.dtype}, not {want.dtype}", *unknown
        for name in self.algorithm.reports:
            value = result.extra.get(name)
            if not isinstance(value, Tensor) or value.shape != start.weights.shape:
                return f"{name} is missing, or not of shape {tuple(start.weights.shape)}", *unknown
            if not math.isfinite(float(torch.linalg.vector_norm(value))):
                return f"{name} is not finite", *unknown
        delta = result.weights - start.weights
        norm = float(torch.linalg.vector_norm(delta))
        if not math.isfinite(norm):  # one pass finds NaN and infinity: either makes the norm not finite
            return "weights are not finite", delta, norm
        if norm > self.config.max_change_norm:
            return f"change has an absurd norm, {norm:.3g} > {self.config.max_change_norm:.3g}", delta, norm
        if len(self._ranked) >= RECENT_NORMS:
            usual = self._ranked[len(self._ranked) // 2]
            if norm > self.config.max_change_ratio * usual > 0:
                return f"change has an absurd norm, {norm:.3g}: the recent ones' median is {usual:.3g}", delta, norm
        if result.buffers.numel() and not bool(torch.isfinite(result.buffers).all()):
            return "buffers are not finite", delta, norm
        if not 1 <= result.num_examples < math.inf:
            return f"num_examples is {result.num_examples}", delta, norm
        return None, delta, norm

    def _remember(self, norm: float) -> None:
        recent = self.state.norms
        if len(recent) == RECENT_NORMS:
            del self._ranked[bisect_left(self._ranked, recent.pop(0))]
        recent.append(norm)
        insort(self._ranked, norm)

    def _predictions(self, result: TrainResult) -> Tensor:
        """The client's outputs on U: those that came with the update, or else made here."""
        if result.predictions is not None:
            return result.predictions
        self._charge(self.config.predict_s)
        model = Model(self.state.model.version, result.weights, result.buffers)
        predictions: Tensor = self._compute.predict(model, form=self._form)
        return predictions

    def _predictions_fault(self, predictions: Tensor) -> str | None:
        if self._outputs is not None:
            number, classes = self._outputs
            want = (number, self._form.width(classes))
            if tuple(predictions.shape) != want:
                return f"predictions have shape {tuple(predictions.shape)}, not {want}"
            if predictions.is_floating_point() == bool(self._form.top_k):
                return f"predictions are {predictions.dtype}: {'packed' if self._form.top_k else 'logits'} are wanted"
            if self._form.top_k:
                return sparse.fault(predictions, classes)
        if not bool(torch.isfinite(predictions).all()):  # one such row would stay in a bank's running sum for ever
            return "predictions are not finite"
        return None

    def _on_lost(self, event: Lost, log: list[LogEntry]) -> None:
        task = self.state.in_flight.get(event.task)
        if task is None:  # it was cancelled, or answered after all
            return
        self._release(task)
        about = {"client": task.client, "task": task.id, "version": task.version}
        log.append(LogEntry("lost", self.state.now_s, **about, detail={"reason": event.reason}))

    def _on_joined(self, client: int, log: list[LogEntry]) -> None:
        state = self.state
        if client == state.clients:
            state.clients += 1
            state.algorithm = self.algorithm.add_clients(state.algorithm, state.clients)
            state.away.append(client)
        if client in state.away:
            state.away.remove(client)
            if all(task.client != client for task in state.in_flight.values()):
                self._add_idle(client)
            log.append(LogEntry("join", state.now_s, client=client))

    def _on_left(self, client: int, log: list[LogEntry]) -> None:
        state = self.state
        if client not in state.away:
            state.away.append(client)
            self._remove_idle(client)
            log.append(LogEntry("leave", state.now_s, client=client))

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
        self._charge(self.config.aggregate_s)
        detail: dict[str, float | str] = {"count": state.since_aggregation}
        log.append(LogEntry("aggregate", state.now_s, version=model.version, detail=detail))
        if self.stages:
            model = self._run_stages(model, log)
        if not math.isfinite(float(torch.linalg.vector_norm(model.weights))):
            raise Diverged(
                f"the server's model is not finite after aggregation {model.version} ({state.updates} updates): the "
                "run diverged; lower the algorithm's or the stage's step size"
            )
        state.model = state.versions[model.version] = model
        self._forget(current.version)
        if buffers.numel():
            state.buffers_sum = torch.zeros_like(buffers)
        state.since_aggregation = 0
        if state.average is not None:
            state.average = model.weights.lerp(state.average, self.config.ema)
        abandoned = tuple(self.algorithm.cancelled(state.algorithm, self._view())) if self._abandons else ()
        for task_id in abandoned:
            task = state.in_flight[task_id]
            self._release(task)
            commands.append(Cancel(task_id))
            log.append(LogEntry("cancel", state.now_s, client=task.client, task=task.id, version=task.version))

    def _run_stages(self, model: Model, log: list[LogEntry]) -> Model:
        state = self.state
        states, runs = list(state.stages), list(state.stage_runs)
        for i, stage in enumerate(self.stages):
            if state.updates - runs[i] < stage.every:
                continue
            key = self._key.fold("refine", stage.name, model.version)
            weights, states[i], detail = stage.after_aggregate(states[i], model, self._compute, key)
            model, runs[i] = replace(model, weights=weights), state.updates
            if detail:  # else it did nothing
                self._charge(self.config.stage_s)
                told: dict[str, float | str] = {"stage": stage.name, **detail}
                log.append(LogEntry("stage", state.now_s, version=model.version, detail=told))
        state.stages, state.stage_runs = tuple(states), tuple(runs)
        return model

    # -- handing out work

    def _view(self) -> View:
        state = self.state
        held = state.since_aggregation if self.config.refill == "batch" else 0
        return View(
            now_s=state.now_s,
            version=state.model.version,
            updates=state.updates,
            clients=state.clients,
            idle=state.idle,
            in_flight=state.in_flight,
            slots=self.config.concurrency - len(state.in_flight) - held,
        )

    def _dispatch(self, view: View, commands: list[Command], log: list[LogEntry]) -> None:
        state = self.state
        chosen = self.algorithm.select(state.algorithm, view, self._select.fold(state.next_task))
        if chosen:
            base = {"lr_scale": self.config.client_schedule(self.progress), **self._asked}
            for client in chosen:
                own = self.algorithm.task_extra(state.algorithm, client)
                extra: Extra = {**base, **own} if own else base
                task = Task(state.next_task, client, state.model.version, state.busy_until_s, extra)
                state.next_task += 1
                state.in_flight[task.id] = task
                self._version_users[task.version] += 1
                self._remove_idle(client)
                commands.append(Dispatch(task, state.model))
                log.append(LogEntry("dispatch", task.issued_at_s, client, task.id, task.version))
        if self._timed and (deadline_s := self.algorithm.deadline_s(state.algorithm, self._view())) is not None:
            self._wake_at(deadline_s, commands)

    def _wake_at(self, at_s: float, commands: list[Command]) -> None:
        if at_s > self.state.now_s and at_s not in self.state.timers:
            self.state.timers.append(at_s)
            commands.append(WakeAt(at_s))

    def _charge(self, seconds: float) -> None:
        self.state.busy_until_s += seconds

    def _release(self, task: Task) -> None:
        """The task is over: its client is idle again, and its version may be forgotten."""
        del self.state.in_flight[task.id]
        self._version_users[task.version] -= 1
        if task.client not in self.state.away:
            self._add_idle(task.client)
        self._forget(task.version)

    def _forget(self, version: int) -> None:
        """Drop a version that is neither current nor needed by a job in flight."""
        if version != self.state.model.version and not self._version_users[version]:
            self.state.versions.pop(version, None)
            self._version_users.pop(version, None)

    # The idle list supports O(1) removal by swapping with its end; its order follows from the order of events alone.

    def _add_idle(self, client: int) -> None:
        self._place[client] = len(self.state.idle)
        self.state.idle.append(client)

    def _remove_idle(self, client: int) -> None:
        place = self._place.pop(client, None)
        if place is None:
            return
        last = self.state.idle.pop()
        if last != client:
            self.state.idle[place] = last
            self._place[last] = place
