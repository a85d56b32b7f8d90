"""The values that travel between the server and whoever does the work.

All are frozen, and the tensors in them are never changed in place: a value can be shared by reference, kept, or sent.

    Task         one job for one client, with its Request
    TrainResult  what a client answers
    Model        one version of the server's model
    Event        what a transport tells the server: Arrived, Rejected, Lost, Joined, Left, Wake
    Command      what the server asks of a transport: Dispatch, Cancel, WakeAt
    View         what a rule is shown of the server
    LogEntry     what happened, for the records
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import Tensor

from .formats import PredictionFormat

Extra: TypeAlias = Mapping[str, "Tensor | float"]
"""What a rule needs to send or get back beyond the model: names to tensors or numbers."""


@dataclass(frozen=True, slots=True)
class Model:
    """One version of the server's model.

    Attributes:
        version: 0 for the initial model, one more after each aggregation.
        weights: [d] float32, the trainable parameters in one vector.
        buffers: [b] float32, the floating-point buffers (batch-norm statistics) in one vector; no optimizer-like rule
            touches them.
    """

    version: int
    weights: Tensor
    buffers: Tensor


@dataclass(frozen=True, slots=True)
class Request:
    """What the server asks of every client, whatever the aggregation rule.

    Attributes:
        lr_scale: factor on the client's step size, from the client schedule.
        predictions: the format in which the client sends its predictions on U; None where none are wanted.
    """

    lr_scale: float = 1.0
    predictions: PredictionFormat | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One job: client `client` trains from model version `version`.

    Attributes:
        id: unique within a run; tasks are numbered from 0 in the order in which they are sent.
        client: who works on it.
        version: the model version that the client starts from.
        issued_at_s: when it was sent.
        extra: what the aggregation rule sends to its client rule, and nothing else.
        request: what the server asks of every client.
    """

    id: int
    client: int
    version: int
    issued_at_s: float
    extra: Extra = field(default_factory=dict)
    request: Request = field(default_factory=Request)


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a client answers.

    Attributes:
        task: the id of the task it answers.
        weights: [d] the client's model after local training (not the change).
        buffers: [b] the client's own buffers, so that its model can be rebuilt.
        num_examples: local training examples.
        metrics: numbers worth recording, e.g. `loss`.
        predictions: the client's outputs on the unlabeled set, [|U|, C] logits, where asked for with the task.
        extra: what the algorithm's client rule reports.
    """

    task: int
    weights: Tensor
    buffers: Tensor
    num_examples: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    predictions: Tensor | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Arrived:
    """A client's answer came."""

    at_s: float
    result: TrainResult


@dataclass(frozen=True, slots=True)
class Rejected:
    """An answer came that the transport could not read."""

    at_s: float
    task: int
    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """No answer will come."""

    at_s: float
    task: int
    reason: str


@dataclass(frozen=True, slots=True)
class Joined:
    """A client is present: one that was away, or a new one, whose number is then N.

    Attributes:
        at_s: when.
        client: its number.
        name: what the transport knows it by, if it is known by more than its number.
    """

    at_s: float
    client: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Left:
    """A client is away from now on."""

    at_s: float
    client: int


@dataclass(frozen=True, slots=True)
class Wake:
    """The time of a `WakeAt` has come."""

    at_s: float


Event: TypeAlias = Arrived | Rejected | Lost | Joined | Left | Wake


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send a task, and the model it starts from, to its client."""

    task: Task
    model: Model


@dataclass(frozen=True, slots=True)
class Cancel:
    """The answer to a task is not wanted any more."""

    task: int


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send a `Wake` at this time."""

    at_s: float


Command: TypeAlias = Dispatch | Cancel | WakeAt


@dataclass(frozen=True, slots=True)
class View:
    """What the server knows at the moment a rule is asked. A view that is kept does not change later.

    Attributes:
        now_s: the time of the event being handled.
        version: the server's model version t.
        updates: updates accepted since the start of the run.
        clients: N.
        idle: clients that are present and have no task.
        in_flight: tasks that were sent and not answered yet, by id.
        slots: how many more tasks may be sent now under the concurrency and refill policy.
    """

    now_s: float
    version: int
    updates: int
    clients: int
    idle: Sequence[int]
    in_flight: Mapping[int, Task]
    slots: int


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One thing that happened.

    Attributes:
        kind: dispatch, accept, refuse, lost, cancel, join, leave, aggregate or stage (live runs add judge, evaluate).
        at_s: when.
        client: whom it concerns, if it concerns one client.
        task: which task, if it concerns one.
        version: the task's version, or the new one of an aggregation.
        staleness: τ of an answer.
        detail: more numbers and words by name. An accepted update's has the server's own `num_examples`, `waited_s` and
            `change_norm` and the client's metrics; a metric with one of these names is called `client.NAME`. A refused
            one's has the `reason`, its kind (`refusal`) and how many answers of the client were refused in a row
            (`in_a_row`).
    """

    kind: str
    at_s: float
    client: int | None = None
    task: int | None = None
    version: int | None = None
    staleness: int | None = None
    detail: Mapping[str, float | str] = field(default_factory=dict)
