"""What a stage may ask of the learner: predictions, distillation, generated inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from ..core.formats import LOGITS as LOGITS
from ..core.formats import PredictionFormat as PredictionFormat
from ..core.keys import Key
from ..core.messages import Model


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

    def predict(self, model: Model, inputs: Tensor | None = None, form: PredictionFormat = LOGITS) -> Tensor:
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
