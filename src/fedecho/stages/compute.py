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
from ..objectives.predictions import Predictions


@dataclass(frozen=True, slots=True)
class Distillation:
    """How a student is trained on the unlabeled set, or on other inputs.

    Attributes:
        steps: Q, optimizer steps.
        batch_size: examples of U a step.
        lr: η_d.
        clip: ν, the largest gradient norm; 0 does not clip.
        optimizer: "sgd" or "adam" (fresh moments each time).
        max_passes: the steps are no more than this many passes over the inputs take, but at least one; 0 is no bound.
    """

    steps: int
    batch_size: int
    lr: float
    clip: float
    optimizer: Literal["sgd", "adam"] = "sgd"
    max_passes: float = 0.0

    def steps_on(self, inputs: int) -> int:
        """How many steps are taken on this many inputs."""
        if not self.max_passes:
            return self.steps
        return min(self.steps, max(1, math.ceil(self.max_passes * inputs / self.batch_size)))


@dataclass(frozen=True, slots=True)
class Synthesis:
    """How inputs are generated.

    Attributes:
        steps: of Adam on a copy of the generator, its noise and its class embeddings.
        batch_size: inputs to generate.
        lr: the generator's step, on the copy and on itself.
        latent_lr: the step on noise and embeddings.
        latent_size: numbers of noise from which an input is generated.
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
    """Generated inputs [B, *shape], the labels [B] for which they were generated, and their loss."""

    inputs: Tensor
    labels: Tensor
    loss: float


Loss = Callable[[Tensor, Tensor], Tensor]
"""(student's logits on a batch [B, K], the places [B] of these predictions among those on U or the given inputs) to a
scalar."""


class Compute(Protocol):
    """What a stage may ask of the learner. Inputs that a stage gives or gets have U's shape, [n, *shape].

    A prediction is one of C classes, or K labels that hold or do not. A classifier makes one per input, so that there
    are P = |U| of them on U; a language model predicts the next token at each token that is not padding.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """One input's shape."""
        ...

    @property
    def classes(self) -> int:
        """C, or the number of labels."""
        ...

    @property
    def predictions(self) -> Predictions | None:
        """What the objective's predictions mean as probabilities; None where they are none."""
        ...

    def predict(self, model: Model, inputs: Tensor | None = None, form: PredictionFormat = LOGITS) -> Tensor:
        """The model's predictions on `inputs`, [P, K] logits, or in another form; by default on all of U."""
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
        """The generator after a step, and inputs of which the teachers are certain and on which the student can learn.

        `mix` [m, C] are the teachers' class proportions: labels are drawn from their mean, and a teacher counts on an
        input by its share of that label. None is a new generator.
        """
        ...
