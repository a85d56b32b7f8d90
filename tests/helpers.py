"""Small real parts for tests: clients with a quadratic loss, a transport that follows a script, a log as a journal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fedecho.algorithms.base import Algorithm, ClientRule, ClientUpdate, State
from fedecho.core import trees as tree
from fedecho.core.keys import Key
from fedecho.core.messages import (
    Arrived,
    Cancel,
    Command,
    Dispatch,
    Event,
    Extra,
    LogEntry,
    Lost,
    Model,
    Task,
    TrainResult,
    View,
    WakeAt,
)
from fedecho.executors.base import Executor
from fedecho.executors.inline import Inline, Trainer
from fedecho.objectives.predictions import ClassPredictions
from fedecho.server.server import Server
from fedecho.server.settings import ServerConfig, Stop
from fedecho.simulation.job_times import Empirical
from fedecho.simulation.population import Population
from fedecho.simulation.settings import PopulationConfig
from fedecho.simulation.transport import SimulatedTransport
from fedecho.stages.base import Stage
from fedecho.stages.compute import LOGITS, Distillation, Generator, Loss, PredictionFormat, Synthesis, Synthetic


def vec(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def change(
    delta: Tensor,
    *,
    client: int = 0,
    staleness: int = 0,
    start: Tensor | None = None,
    current: Tensor | None = None,
    n: int = 1,
    version: int = 10,
    issued_at_s: float = 0.0,
    buffers: Tensor | None = None,
    extra: Extra | None = None,
) -> ClientUpdate:
    """An update as a rule sees it; by default it started from zero."""
    start = torch.zeros_like(delta) if start is None else start
    current = start if current is None else current
    buffers = torch.zeros(0) if buffers is None else buffers
    return ClientUpdate(
        client, staleness, delta, start + delta, start, current, buffers, n, version, issued_at_s, extra or {}
    )


def view(
    in_flight: dict[int, Task] | None = None, now_s: float = 0.0, idle: Sequence[int] = (), slots: int = 0
) -> View:
    return View(now_s, 0, 0, 10, idle, in_flight or {}, slots)


def feed(rule: Algorithm, state: State, weights: Tensor, *changes: ClientUpdate) -> tuple[Tensor, State]:
    """Give a rule its updates; the weights and state after the one aggregation that must come with the last."""
    for i, item in enumerate(changes):
        state = rule.receive(state, item)
        assert rule.ready(state, view(idle=range(10))) == (i == len(changes) - 1)
    weights, state = rule.aggregate(state, weights, 1.0)
    assert not rule.ready(state, view(idle=range(10)))
    return weights, state


def through_json(value: Any) -> Any:
    """What a checkpoint gives back."""
    skeleton, tensors = tree.flatten(value)
    return tree.unflatten(json.loads(json.dumps(skeleton)), {name: t.clone() for name, t in tensors.items()})


def population(times_s: Sequence[Sequence[float]], **settings: Any) -> Population:
    """Client i's jobs take one of `times_s[i]`."""
    laws = [Empirical(tuple(times)) for times in times_s]
    return Population(Key(7), laws, ["fast"] * len(laws), PopulationConfig(**settings))


class Quadratics:
    """Clients that minimise ½‖x − c_i‖², really; x is also a linear classifier [k, C] on U [|U|, k].

    Args:
        centres: [N, k·C], every client's minimum.
        unlabeled: U.
        lr: of the clients' gradient descent.
        steps: of it.
        rule: the clients' rule.
        before: called with each task before it is trained.
    """

    classes = 3
    predictions = ClassPredictions()

    def __init__(
        self,
        centres: Tensor,
        unlabeled: Tensor | None = None,
        lr: float = 0.2,
        steps: int = 3,
        rule: ClientRule | None = None,
        before: Callable[[Task], None] = lambda task: None,
    ) -> None:
        self.centres, self.unlabeled, self.lr, self.steps, self.rule = centres, unlabeled, lr, steps, rule
        self.before = before
        self.trained: list[int] = []

    def train(self, task: Task, model: Model) -> TrainResult:
        self.before(task)
        self.trained.append(task.id)
        x, lr = model.weights.clone(), self.lr * task.request.lr_scale
        for _ in range(self.steps):
            gradient = x - self.centres[task.client]
            if self.rule is not None:
                self.rule.direct(gradient, x, model.weights, task.extra)
            x = x - lr * gradient
        extra = self.rule.report(model.weights, x, self.steps, lr, task.extra) if self.rule is not None else {}
        update = TrainResult(task.id, x, model.buffers + 1.0 + task.client, 1 + task.client, {"loss": 0.5}, None, extra)
        if task.request.predictions is None:
            return update
        predictions = self.predict(Model(0, x, model.buffers), None, task.request.predictions)
        return replace(update, predictions=predictions)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.centres.shape[1] // self.classes,)

    def predict(self, model: Model, inputs: Tensor | None = None, form: PredictionFormat = LOGITS) -> Tensor:
        inputs = self.unlabeled if inputs is None else inputs
        assert inputs is not None
        return form.of(inputs @ model.weights.view(-1, self.classes))

    def distill(
        self, model: Model, loss: Loss, how: Distillation, key: Key, inputs: Tensor | None = None
    ) -> tuple[Tensor, float]:
        inputs = self.unlabeled if inputs is None else inputs
        assert inputs is not None
        x, order, total = model.weights.clone(), key.numpy(), 0.0
        for _ in range(how.steps):
            x.requires_grad_()
            batch = torch.from_numpy(order.permutation(len(inputs)))[: how.batch_size]
            value = loss(inputs[batch] @ x.view(-1, self.classes), batch)
            (gradient,) = torch.autograd.grad(value, x)
            x, total = (x - how.lr * gradient).detach(), total + float(value.detach())
        return x, total / how.steps

    def synthesize(
        self,
        generator: Generator | None,
        teachers: Sequence[Model],
        mix: Tensor,
        student: Model,
        how: Synthesis,
        key: Key,
    ) -> tuple[Generator, Synthetic]:
        """One input per class, [C, k], and noise around it: the generator is these inputs."""
        if generator is None:
            none = torch.zeros(self.classes, *self.shape)
            generator = Generator(none, none, none, 0)
        labels = torch.arange(how.batch_size) % self.classes
        inputs = generator.weights.clone().requires_grad_()
        each = [F.cross_entropy(self.predict(teacher, inputs), torch.arange(self.classes)) for teacher in teachers]
        (gradient,) = torch.autograd.grad(torch.stack(each).sum(), inputs)
        made = (inputs - how.lr * gradient).detach()
        noise = torch.from_numpy(key.numpy().standard_normal((how.batch_size, *self.shape))).float()
        grown = Generator(made, generator.first + gradient, gradient.square(), generator.steps + 1)
        return grown, Synthetic(made[labels] + 0.1 * noise, labels, float(torch.stack(each).sum().detach()))


class Log:
    """A journal that keeps all in memory."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.facts: list[LogEntry] = []

    def accept(self, event: Event) -> None:
        self.events.append(event)

    def commit(self, facts: Sequence[LogEntry]) -> None:
        self.facts.extend(facts)

    def of(self, kind: str) -> list[LogEntry]:
        return [fact for fact in self.facts if fact.kind == kind]

    @property
    def reasons(self) -> list[str]:
        return [str(fact.detail["reason"]) for fact in self.of("refuse")]


class Hand:
    """A server driven by hand: a test says what arrives and when, and sees what is sent.

    Each update moves its client's model by `delta` (or is given whole by `update`).
    """

    def __init__(self, algorithm: Algorithm, clients: int = 6, d: int = 2, buffers: int = 0, **more: Any) -> None:
        stop = more.pop("stop", Stop(updates=10**6))
        config = more.pop("config", ServerConfig(concurrency=3))
        model = Model(0, torch.zeros(d), torch.zeros(buffers))
        self.server = Server(algorithm, model, clients, Key(0), stop, config, **more)
        self.log = Log()
        self.sent: dict[int, Dispatch] = {}
        self.cancelled: list[int] = []
        self.timers: list[float] = []
        self._take(*self.server.start(0.0))

    def _take(self, commands: Iterable[Command], facts: Sequence[LogEntry]) -> None:
        self.log.commit(facts)
        for command in commands:
            if isinstance(command, Dispatch):
                assert command.task.id not in self.sent
                self.sent[command.task.id] = command
            elif isinstance(command, Cancel):
                self.cancelled.append(command.task)
            elif isinstance(command, WakeAt):
                self.timers.append(command.at_s)

    def event(self, event: Event) -> None:
        self.log.accept(event)
        self._take(*self.server.handle(event))

    def update(self, task: int, delta: Tensor | None = None, **changed: Any) -> TrainResult:
        """A good answer to the task, but for what is changed."""
        model = self.sent[task].model
        delta = torch.ones_like(model.weights) if delta is None else delta
        return replace(TrainResult(task, model.weights + delta, model.buffers, 1), **changed)

    def arrive(self, task: int, at_s: float = 1.0, delta: Tensor | None = None, **changed: Any) -> None:
        self.event(Arrived(at_s, self.update(task, delta, **changed)))

    def lose(self, task: int, at_s: float = 1.0) -> None:
        self.event(Lost(at_s, task, "dropout"))

    @property
    def waiting(self) -> list[int]:
        """Tasks in flight, oldest first."""
        return sorted(self.server.state.in_flight)


def drive(server: Server, transport: SimulatedTransport, log: Log, events: int | None = None) -> None:
    """The one loop, at most `events` times round."""
    commands, facts = server.start(transport.now_s)
    log.commit(facts)
    transport.send(commands)
    while not server.done and events != 0:
        event = transport.next()
        log.accept(event)
        commands, facts = server.handle(event)
        log.commit(facts)
        transport.send(commands)
        events = events - 1 if events is not None else None


def transport_for(server: Server, people: Population, worker: Trainer | Executor) -> SimulatedTransport:
    executor: Executor = worker if hasattr(worker, "submit") else Inline(worker)  # type: ignore[assignment, arg-type]
    return SimulatedTransport(people, executor, now_s=server.state.event_s, away=server.state.away)


def make_server(
    algorithm: Algorithm,
    people: Population,
    worker: Quadratics,
    stop: Stop,
    config: ServerConfig,
    stages: Sequence[Stage] = (),
) -> Server:
    guarded = any(stage.exclusive for stage in stages)
    model = Model(0, torch.zeros(worker.centres.shape[1]), torch.zeros(0 if guarded else 2))
    away = [client for client in range(people.clients) if not people.present(client, 0.0)]
    return Server(algorithm, model, people.clients, Key(3), stop, config, stages, worker, None, away)
