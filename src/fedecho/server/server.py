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

from ..algorithms.base import Algorithm, Change
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
    Fact,
    Joined,
    Left,
    Lost,
    Model,
    Rejected,
    Task,
    Update,
    View,
    Wake,
    WakeAt,
)
from ..stages.base import Stage
from ..stages.compute import LOGITS, Compute, Form
from .settings import RECENT_NORMS, ServerConfig, Stop
from .state import Ledger


def form_of(stages: Iterable[Stage]) -> Form:
    """The form of predictions that suits all stages."""
    forms = {stage.form for stage in stages if stage.needs_predictions}
    return forms.pop() if len(forms) == 1 else LOGITS


class Server:
    """An asynchronous federated server: one algorithm, any number of refine stages.

    Args:
        algorithm: the aggregation rule.
        model: the initial model (version 0).
        clients: N at the start; clients are numbered from 0 and all present until a `Left` says otherwise. A `Joined`
            by client N adds one.
        key: where the server's random draws come from.
        stop: when the run ends.
        config: concurrency, refill, schedules, limits.
        stages: refine stages; in this order they revise a change and run after an aggregation.
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
            raise ConfigError("a refine stage needs somebody to compute: give `compute`")
        if model.buffers.numel() and (guards := [stage.name for stage in stages if stage.alone]):
            raise ConfigError(
                f"refine {guards[0]!r} protects weights only, and the model has statistics of batch norm "
                f"({model.buffers.numel()} numbers) that would leave as they are: take a model with group norm"
            )
        self.algorithm = algorithm
        self.stop = stop
        self.config = config
        self.stages = tuple(stages)
        self._predicting = any(stage.needs_predictions for stage in self.stages)
        self._compute: Any = compute  # None where no stage asks it for anything
        self._outputs = outputs
        self._form = form_of(self.stages)
        self._keep = keep
        self._key, self._select = key, key.fold("select")
        self._timed = type(algorithm).deadline_s is not Algorithm.deadline_s
        self._abandons = type(algorithm).abandon is not Algorithm.abandon
        self._asked: dict[str, Any] = {"predict": float(self._predicting)}  # of every task
        if self._predicting:
            self._asked |= self._form.asking()
        self._silence = model.weights.new_zeros(0)  # the predictions of a run that asks for none
        absent = set(away)
        idle = [client for client in range(clients) if client not in absent]
        self._place = {client: place for place, client in enumerate(idle)}  # client to its place in the idle list
        self._holds: Counter[int] = Counter()  # version to the number of jobs in flight that started from it
        self._ranked: list[float] = []  # the ledger's norms in order of size
        self.ledger = Ledger(
            clients=clients,
            model=model,
            algorithm=algorithm.init(model.weights, clients),
            stages=tuple(stage.init(clients) for stage in self.stages),
            stage_runs=(0,) * len(self.stages),
            average=model.weights if config.ema else None,
            arrived_buffers=torch.zeros_like(model.buffers),
            idle=idle,
            away=sorted(absent),
            versions={model.version: model},
        )

    # -- what can be read from outside

    @property
    def clients(self) -> int:
        """N: how many clients there have ever been."""
        return self.ledger.clients

    @property
    def model(self) -> Model:
        """The current model, x_t: what clients are sent."""
        return self.ledger.model

    @property
    def output(self) -> Model:
        """The model the run is judged by: x_t, or the average of the server's weights where `ema` asks for it."""
        average = self.ledger.average
        return self.model if average is None else replace(self.model, weights=average)

    @property
    def done(self) -> bool:
        ledger = self.ledger
        return self.stop.progress(ledger.updates, ledger.model.version, ledger.now_s) >= 1.0

    @property
    def progress(self) -> float:
        """The fraction of the run that is done, in [0, 1]."""
        ledger = self.ledger
        return min(1.0, self.stop.progress(ledger.updates, ledger.model.version, ledger.now_s))

    def snapshot(self) -> Ledger:
        """All of the server's state as one tree; values in it are not changed later, containers are copied."""
        ledger = self.ledger
        return replace(
            ledger,
            idle=list(ledger.idle),
            away=list(ledger.away),
            in_flight=dict(ledger.in_flight),
            versions=dict(ledger.versions),
            timers=list(ledger.timers),
            norms=list(ledger.norms),
        )

    def restore(self, snapshot: Any) -> None:
        """Go on from a `snapshot`. The algorithm and stages must be those that made it."""
        self.ledger = snapshot
        self.ledger = self.snapshot()  # containers of its own: the same snapshot can be restored again
        if self._keep is not None:
            pairs = zip(self.stages, self.ledger.stages, strict=True)
            self.ledger.stages = tuple(stage.moved(state, self._keep) for stage, state in pairs)
        self._place = {client: place for place, client in enumerate(self.ledger.idle)}
        self._holds = Counter(task.version for task in self.ledger.in_flight.values())
        self._ranked = sorted(self.ledger.norms)

    # -- the two entrances

    def start(self, now_s: float) -> tuple[list[Command], list[Fact]]:
        """What to send first: the first tasks, or after `restore` everything that was in flight, again."""
        ledger = self.ledger
        if ledger.started:
            tasks = sorted(ledger.in_flight.values(), key=lambda task: task.id)
            again: list[Command] = [Dispatch(task, ledger.versions[task.version]) for task in tasks]
            return [*again, *(WakeAt(at_s) for at_s in ledger.timers)], []
        ledger.started = True
        ledger.event_s = ledger.now_s = ledger.busy_until_s = now_s
        commands: list[Command] = []
        facts: list[Fact] = []
        if self.stop.virtual_time_s is not None:
            self._wake_at(self.stop.virtual_time_s, commands)
        self._hand_out(self._view(), commands, facts)
        return commands, facts

    def handle(self, event: Event) -> tuple[list[Command], list[Fact]]:
        """Take one event; answer with what to send and what happened."""
        ledger = self.ledger
        ledger.event_s = event.at_s
        ledger.now_s = max(event.at_s, ledger.busy_until_s)  # what the server is charged for delays what comes next
        ledger.busy_until_s = ledger.now_s
        commands: list[Command] = []
        facts: list[Fact] = []
        if isinstance(event, Arrived):
            self._arrived(event.update, facts)
        elif isinstance(event, Rejected):
            self._rejected(event, facts)
        elif isinstance(event, Lost):
            self._lost(event, facts)
        elif isinstance(event, Joined):
            self._joined(event.client, facts)
        elif isinstance(event, Left):
            self._left(event.client, facts)
        elif isinstance(event, Wake):
            ledger.timers = [at_s for at_s in ledger.timers if at_s > event.at_s]
        if not isinstance(event, Arrived) and self.done:
            return commands, facts
        view = self._view()
        if self.algorithm.ready(ledger.algorithm, view):
            self._aggregate(commands, facts)
            view = self._view()
        if not self.done:
            self._hand_out(view, commands, facts)
        return commands, facts

    # -- events

    def _arrived(self, update: Update, facts: list[Fact]) -> None:
        ledger = self.ledger
        task = self._awaited(update.task, facts)
        if task is None:
            return
        start = ledger.versions[task.version]
        staleness = ledger.model.version - task.version
        reason, delta, norm = self._fault(update, start)
        if norm <= self.config.max_change_norm:  # refused or not: a change of regime must not be refused for ever
            self._remember(norm)
        predictions = self._silence
        if self._predicting and reason is None:
            predictions = self._predictions(update)
            reason = self._predictions_fault(predictions)
        about = {"client": task.client, "task": task.id, "version": task.version, "staleness": staleness}
        if reason is not None:
            ledger.refused += 1
            facts.append(Fact("refuse", ledger.now_s, **about, detail={"reason": reason}))
            self._release(task)
            return
        change = Change(
            client=task.client,
            staleness=staleness,
            delta=delta,
            weights=update.weights,
            start=start.weights,
            current=ledger.model.weights,
            buffers=update.buffers,
            num_examples=update.num_examples,
            version=ledger.model.version,
            issued_at_s=task.issued_at_s,
            extra=update.extra,
        )
        if self._keep is not None and self._predicting:
            predictions = self._keep(predictions)
        if self.stages:  # before its lateness is judged: lateness is what an echo is for
            pairs = zip(self.stages, ledger.stages, strict=True)
            ledger.stages = tuple(stage.on_update(state, change, predictions) for stage, state in pairs)
        if self.algorithm.too_late(staleness):
            ledger.refused += 1
            facts.append(Fact("refuse", ledger.now_s, **about, detail={"reason": "too late"}))
        else:
            waited_s = ledger.now_s - task.issued_at_s
            detail = {"num_examples": update.num_examples, "waited_s": waited_s, "change_norm": norm}
            facts.append(Fact("accept", ledger.now_s, **about, detail={**detail, **update.metrics}))
            if self.stages:
                change = self._revise(change, about, facts)
            ledger.algorithm = self.algorithm.receive(ledger.algorithm, change)
            if update.buffers.numel():
                ledger.arrived_buffers = ledger.arrived_buffers + update.buffers
            ledger.since_aggregation += 1
            ledger.updates += 1
        self._release(task)

    def _awaited(self, number: int, facts: list[Fact]) -> Task | None:
        """The task that an answer is for; an answer that nobody waits for is refused here."""
        ledger = self.ledger
        task = ledger.in_flight.get(number)
        if task is None:
            known = 0 <= number < ledger.next_task
            why = "already answered, lost or cancelled" if known else "unknown task"
            ledger.refused += 1
            facts.append(Fact("refuse", ledger.now_s, task=number, detail={"reason": why}))
        return task

    def _rejected(self, event: Rejected, facts: list[Fact]) -> None:
        ledger = self.ledger
        task = self._awaited(event.task, facts)
        if task is None:
            return
        staleness = ledger.model.version - task.version
        ledger.refused += 1
        about: dict[str, Any] = {"client": task.client, "task": task.id, "version": task.version}
        facts.append(Fact("refuse", ledger.now_s, **about, staleness=staleness, detail={"reason": event.reason}))
        self._release(task)

    def _revise(self, change: Change, about: dict[str, Any], facts: list[Fact]) -> Change:
        """The change as the stages leave it: x_i − x_{t−τ} = Δ_i holds of it again."""
        ledger = self.ledger
        states = list(ledger.stages)
        for i, stage in enumerate(self.stages):
            key = self._key.fold("revise", stage.name, about["task"])
            delta, states[i], detail = stage.revise(states[i], change, ledger.model, self._compute, key)
            if delta is not change.delta:
                change = replace(change, delta=delta, weights=change.start + delta)
            if detail:  # else it did nothing
                self._charge(self.config.refine_s)
                facts.append(Fact("refine", ledger.now_s, **about, detail={"stage": stage.name, **detail}))
        ledger.stages = tuple(states)
        return change

    def _fault(self, update: Update, start: Model) -> tuple[str | None, Tensor, float]:
        """Why the server cannot use this update, if it cannot; its change, and the norm of that."""
        unknown = self._silence, math.nan
        for what, got, want in (
            ("weights", update.weights, start.weights),
            ("buffers", update.buffers, start.buffers),
        ):
            if got.shape != want.shape:
                return f"{what} have shape {tuple(got.shape)}, not {tuple(want.shape)}", *unknown
            if got.dtype != want.dtype:
                return f"{what} have dtype {got.dtype}, not {want.dtype}", *unknown
        for name in self.algorithm.reports:
            value = update.extra.get(name)
            if not isinstance(value, Tensor) or value.shape != start.weights.shape:
                return f"{name} is missing, or not of shape {tuple(start.weights.shape)}", *unknown
            if not math.isfinite(float(torch.linalg.vector_norm(value))):
                return f"{name} is not finite", *unknown
        delta = update.weights - start.weights
        norm = float(torch.linalg.vector_norm(delta))
        if not math.isfinite(norm):  # one pass finds NaN and infinity: either makes the norm not finite
            return "weights are not finite", delta, norm
        if norm > self.config.max_change_norm:
            return f"change has an absurd norm, {norm:.3g} > {self.config.max_change_norm:.3g}", delta, norm
        if len(self._ranked) >= RECENT_NORMS:
            usual = self._ranked[len(self._ranked) // 2]
            if norm > self.config.max_change_ratio * usual > 0:
                return f"change has an absurd norm, {norm:.3g}: the recent ones' median is {usual:.3g}", delta, norm
        if update.buffers.numel() and not bool(torch.isfinite(update.buffers).all()):
            return "buffers are not finite", delta, norm
        if not 1 <= update.num_examples < math.inf:
            return f"num_examples is {update.num_examples}", delta, norm
        return None, delta, norm

    def _remember(self, norm: float) -> None:
        recent = self.ledger.norms
        if len(recent) == RECENT_NORMS:
            del self._ranked[bisect_left(self._ranked, recent.pop(0))]
        recent.append(norm)
        insort(self._ranked, norm)

    def _predictions(self, update: Update) -> Tensor:
        """The client's outputs on U: those that came with the update, or else made here."""
        if update.predictions is not None:
            return update.predictions
        self._charge(self.config.predict_s)
        model = Model(self.ledger.model.version, update.weights, update.buffers)
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

    def _lost(self, event: Lost, facts: list[Fact]) -> None:
        task = self.ledger.in_flight.get(event.task)
        if task is None:  # it was cancelled, or answered after all
            return
        self._release(task)
        about = {"client": task.client, "task": task.id, "version": task.version}
        facts.append(Fact("lost", self.ledger.now_s, **about, detail={"reason": event.reason}))

    def _joined(self, client: int, facts: list[Fact]) -> None:
        ledger = self.ledger
        if client == ledger.clients:
            ledger.clients += 1
            ledger.algorithm = self.algorithm.enlarge(ledger.algorithm, ledger.clients)
            ledger.away.append(client)
        if client in ledger.away:
            ledger.away.remove(client)
            if all(task.client != client for task in ledger.in_flight.values()):
                self._add_idle(client)
            facts.append(Fact("join", ledger.now_s, client=client))

    def _left(self, client: int, facts: list[Fact]) -> None:
        ledger = self.ledger
        if client not in ledger.away:
            ledger.away.append(client)
            self._remove_idle(client)
            facts.append(Fact("leave", ledger.now_s, client=client))

    # -- aggregation

    def _aggregate(self, commands: list[Command], facts: list[Fact]) -> None:
        ledger = self.ledger
        factor = self.config.schedule(self.progress)
        before, current = ledger.algorithm, ledger.model
        weights, ledger.algorithm = self.algorithm.aggregate(before, current.weights, factor)
        buffers = current.buffers
        if buffers.numel():
            mean = ledger.arrived_buffers / ledger.since_aggregation
            buffers = self.algorithm.mix_buffers(before, buffers, mean)
        model = Model(current.version + 1, weights, buffers)
        self._charge(self.config.aggregate_s)
        detail: dict[str, float | str] = {"count": ledger.since_aggregation}
        facts.append(Fact("aggregate", ledger.now_s, version=model.version, detail=detail))
        if self.stages:
            model = self._refine(model, facts)
        if not math.isfinite(float(torch.linalg.vector_norm(model.weights))):
            raise Diverged(
                f"the server's model is not finite after aggregation {model.version} ({ledger.updates} updates): the "
                "run diverged; lower the algorithm's or the stage's step size"
            )
        ledger.model = ledger.versions[model.version] = model
        self._forget(current.version)
        if buffers.numel():
            ledger.arrived_buffers = torch.zeros_like(buffers)
        ledger.since_aggregation = 0
        if ledger.average is not None:
            ledger.average = model.weights.lerp(ledger.average, self.config.ema)
        abandoned = tuple(self.algorithm.abandon(ledger.algorithm, self._view())) if self._abandons else ()
        for task_id in abandoned:
            task = ledger.in_flight[task_id]
            self._release(task)
            commands.append(Cancel(task_id))
            facts.append(Fact("cancel", ledger.now_s, client=task.client, task=task.id, version=task.version))

    def _refine(self, model: Model, facts: list[Fact]) -> Model:
        ledger = self.ledger
        states, runs = list(ledger.stages), list(ledger.stage_runs)
        for i, stage in enumerate(self.stages):
            if ledger.updates - runs[i] < stage.every:
                continue
            key = self._key.fold("refine", stage.name, model.version)
            weights, states[i], detail = stage.after_aggregate(states[i], model, self._compute, key)
            model, runs[i] = replace(model, weights=weights), ledger.updates
            if detail:  # else it did nothing
                self._charge(self.config.refine_s)
                told: dict[str, float | str] = {"stage": stage.name, **detail}
                facts.append(Fact("refine", ledger.now_s, version=model.version, detail=told))
        ledger.stages, ledger.stage_runs = tuple(states), tuple(runs)
        return model

    # -- handing out work

    def _view(self) -> View:
        ledger = self.ledger
        held = ledger.since_aggregation if self.config.refill == "batch" else 0
        return View(
            now_s=ledger.now_s,
            version=ledger.model.version,
            updates=ledger.updates,
            clients=ledger.clients,
            idle=ledger.idle,
            in_flight=ledger.in_flight,
            slots=self.config.concurrency - len(ledger.in_flight) - held,
        )

    def _hand_out(self, view: View, commands: list[Command], facts: list[Fact]) -> None:
        ledger = self.ledger
        chosen = self.algorithm.select(ledger.algorithm, view, self._select.fold(ledger.next_task))
        if chosen:
            base = {"lr_scale": self.config.client_schedule(self.progress), **self._asked}
            for client in chosen:
                own = self.algorithm.task_extra(ledger.algorithm, client)
                extra: Extra = {**base, **own} if own else base
                task = Task(ledger.next_task, client, ledger.model.version, ledger.busy_until_s, extra)
                ledger.next_task += 1
                ledger.in_flight[task.id] = task
                self._holds[task.version] += 1
                self._remove_idle(client)
                commands.append(Dispatch(task, ledger.model))
                facts.append(Fact("dispatch", task.issued_at_s, client, task.id, task.version))
        if self._timed and (deadline_s := self.algorithm.deadline_s(ledger.algorithm, self._view())) is not None:
            self._wake_at(deadline_s, commands)

    def _wake_at(self, at_s: float, commands: list[Command]) -> None:
        if at_s > self.ledger.now_s and at_s not in self.ledger.timers:
            self.ledger.timers.append(at_s)
            commands.append(WakeAt(at_s))

    def _charge(self, seconds: float) -> None:
        self.ledger.busy_until_s += seconds

    def _release(self, task: Task) -> None:
        """The task is over: its client is idle again, and its version may be forgotten."""
        del self.ledger.in_flight[task.id]
        self._holds[task.version] -= 1
        if task.client not in self.ledger.away:
            self._add_idle(task.client)
        self._forget(task.version)

    def _forget(self, version: int) -> None:
        """Drop a version that is neither current nor needed by a job in flight."""
        if version != self.ledger.model.version and not self._holds[version]:
            self.ledger.versions.pop(version, None)
            self._holds.pop(version, None)

    # The idle list supports O(1) removal by swapping with its end; its order follows from the order of events alone.

    def _add_idle(self, client: int) -> None:
        self._place[client] = len(self.ledger.idle)
        self.ledger.idle.append(client)

    def _remove_idle(self, client: int) -> None:
        place = self._place.pop(client, None)
        if place is None:
            return
        last = self.ledger.idle.pop()
        if last != client:
            self.ledger.idle[place] = last
            self._place[last] = place
