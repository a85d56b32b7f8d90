"""What a refine stage is: a step of the server's own that composes with any aggregation rule.

A stage hears of every update (`on_update`), may revise an accepted change before the rule receives it (`revise`), and
gets its turn on the aggregated model (`after_aggregate`). It owns its memory and its loss; predicting, distilling and
making inputs it asks of a `Compute`, so that no module and no optimizer lives here.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from .. import sparse
from ..algorithms.base import Change, State
from ..messages import Model
from ..rng import Key


@dataclass(frozen=True, slots=True)
class Distillation:
    """How a student is trained on the unlabeled set, or on other inputs.

    Attributes:
        steps: Q, optimizer steps.
        batch_size: examples of U a step.
        lr: η_d.
        clip: ν, the largest gradient norm; 0 does not clip.
        optimizer: "sgd" or "adam" (fresh moments each time).
        passes: no more steps than so many passes over the inputs take, but at least one; 0 does not bound them.
    """

    steps: int
    batch_size: int
    lr: float
    clip: float
    optimizer: Literal["sgd", "adam"] = "sgd"
    passes: float = 0.0

    def steps_on(self, inputs: int) -> int:
        """How many steps are taken on so many inputs."""
        if not self.passes:
            return self.steps
        return min(self.steps, max(1, math.ceil(self.passes * inputs / self.batch_size)))


@dataclass(frozen=True, slots=True)
class Synthesis:
    """How inputs are made that nobody ever held.

    Attributes:
        steps: of Adam on a copy of the generator, its noise and its class embeddings.
        batch_size: inputs made.
        lr: the generator's step, on the copy and on itself.
        latent_lr: the step on noise and embeddings.
        latent_size: numbers of noise an input is made of.
        width: of the generator's hidden layer.
        adversarial: weight of the disagreement with the student.
    """

    steps: int
    batch_size: int
    lr: float
    latent_lr: float
    latent_size: int
    width: int
    adversarial: float


@dataclass(frozen=True, slots=True)
class Generator:
    """A generator's weights [g] and its Adam moments, [g] each, after `steps` steps."""

    weights: Tensor
    first: Tensor
    second: Tensor
    steps: int


@dataclass(frozen=True, slots=True)
class Synthetic:
    """Made inputs [B, *shape], the labels [B] they were made for, and the loss they have."""

    inputs: Tensor
    labels: Tensor
    loss: float


@dataclass(frozen=True, slots=True)
class Form:
    """In what form predictions travel and are kept.

    Attributes:
        top_k: keep the k most probable classes, as `fedecho.sparse` packs them: [P, 3k + 2] int16. 0: all logits.
        half: all logits, [P, C], as float16 instead of float32.
    """

    top_k: int = 0
    half: bool = False

    @classmethod
    def asked(cls, extra: Mapping[str, Tensor | float]) -> Form:
        """The form that a task asks for."""
        return cls(int(extra.get("top_k", 0)), bool(extra.get("half", 0)))

    def asking(self) -> dict[str, float]:
        """What a task says that asks for this form."""
        return {} if self == LOGITS else {"top_k": float(self.top_k), "half": float(self.half)}

    def width(self, classes: int) -> int:
        """Numbers a prediction."""
        return sparse.width(min(self.top_k, classes)) if self.top_k else classes

    def bytes(self, classes: int) -> int:
        """Bytes a prediction."""
        return self.width(classes) * (2 if self.top_k or self.half else 4)

    def of(self, logits: Tensor) -> Tensor:
        """Logits [P, C] in this form."""
        if self.top_k:
            return sparse.pack(logits, self.top_k)
        if not self.half:
            return logits
        largest = torch.finfo(torch.float16).max  # an infinity could never be taken out of a running sum again
        return logits.clamp(-largest, largest).half()


LOGITS = Form()

Loss = Callable[[Tensor, Tensor], Tensor]
"""(student's logits on a batch [B, C], the places of these predictions among those on U, or on the given inputs, [B])
to a scalar."""


class Compute(Protocol):
    """What a stage may ask of the learner. Inputs that a stage gives or gets are [n, *shape], as U's are.

    A prediction is one of C classes. A classifier makes one an input, so that there are P = |U| of them on U; a
    language model makes one a token that is not padding, of what comes next.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """One input's shape."""
        ...

    @property
    def classes(self) -> int:
        """C."""
        ...

    def predict(self, model: Model, inputs: Tensor | None = None, form: Form = LOGITS) -> Tensor:
        """The model's predictions on `inputs`, [P, C] logits, or in another form; by default on all of U."""
        ...

    def distill(
        self, model: Model, loss: Loss, how: Distillation, key: Key, inputs: Tensor | None = None
    ) -> tuple[Tensor, float]:
        """The weights [d] after distilling into `model` on `inputs` (by default U), and the steps' mean loss."""
        ...

    def synthesize(
        self,
        generator: Generator | None,
        teachers: Sequence[Model],
        mix: Tensor,
        student: Model,
        how: Synthesis,
        key: Key,
    ) -> tuple[Generator, Synthetic]:
        """Inputs of which the teachers are sure and on which the student can still learn, and the generator afterwards.

        `mix` [m, C] are the teachers' class proportions: labels are drawn from their mean, and a teacher counts on an
        input by its share of that label. None is a new generator.
        """
        ...


class Stage(abc.ABC):
    """The interface of a refine stage."""

    name: ClassVar[str]
    citation: ClassVar[str] = ""
    grid: ClassVar[dict[str, tuple[float, ...]]] = {}
    """The stage's own step, and the four values among which it is tuned: the same budget for every stage."""
    needs_predictions: ClassVar[bool] = True
    """Whether `on_update` is to be given predictions on U. Where no stage needs them, no client makes any."""
    needs_compute: ClassVar[bool] = True
    """Whether it asks the `Compute` for anything."""
    alone: ClassVar[bool] = False
    """Whether the stage protects what changes hold: then no other stage may look at them, the rule may let them out as
    a plain sum only, and the model may hold nothing but weights."""
    every: int = 1
    """Run after an aggregation only when at least this many updates were accepted since the last run."""

    @abc.abstractmethod
    def init(self, clients: int) -> State:
        """The state before the first update; `clients` is N."""

    @property
    def form(self) -> Form:
        """The form in which it wants predictions. Where two stages differ, both get all logits."""
        return LOGITS

    def memory_bytes(self, clients: int, predictions: int, classes: int) -> int:
        """How much the state may come to hold with N clients and P predictions of C classes each, where that grows
        with N."""
        return 0

    def on_update(self, state: State, change: Change, predictions: Tensor) -> State:
        """Hear of an update and its client's predictions on U, [P, C] logits or in the form that all stages want; also
        of one refused only for its lateness.

        Where no stage of the run needs predictions there are none, [0].
        """
        return state

    def moved(self, state: State, keep: Callable[[Tensor], Tensor]) -> State:
        """The state with the predictions in it kept elsewhere: `keep` puts a row there and returns it from there."""
        return state

    def revise(
        self, state: State, change: Change, model: Model, compute: Compute, key: Key
    ) -> tuple[Tensor, State, Mapping[str, float]]:
        """The change [d] that the rule receives in place of `change.delta`, the state, and numbers worth recording.

        Asked for every accepted update, after `on_update`; `model` is the server's now. Nothing to record means that
        nothing was done.
        """
        return change.delta, state, {}

    def after_aggregate(
        self, state: State, model: Model, compute: Compute, key: Key
    ) -> tuple[Tensor, State, Mapping[str, float]]:
        """The refined weights [d] of the model just aggregated, the state, and numbers worth recording.

        Nothing to record means that nothing was done.
        """
        return model.weights, state, {}
