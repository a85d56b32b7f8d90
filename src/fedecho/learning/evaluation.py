"""What an evaluation finds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a model does on n examples.

    Attributes:
        correct: right predictions per class, [C].
        examples: predictions asked for per class, [C]: one an example, or of a language model one a token.
        loss: mean cross-entropy of a prediction, in nats.
        by_example: [n, 3]: right predictions, predictions asked for, and the sum of their cross-entropies.
    """

    correct: Tensor
    examples: Tensor
    loss: float
    by_example: Tensor

    @property
    def accuracy(self) -> float:
        return float(self.correct.sum() / self.examples.sum())

    def of(self, rows: Tensor) -> tuple[float, float]:
        """Accuracy and mean loss on some of the examples, by a mask or by their places; NaN where these ask nothing."""
        right, asked, loss = self.by_example[rows].sum(0).tolist()
        return (right / asked, loss / asked) if asked else (math.nan, math.nan)

    def accuracy_under(self, mix: Tensor) -> float:
        """The accuracy expected on data with the label distribution `mix` [C]. Classes without an example here are
        left out of it."""
        seen = self.examples > 0
        weight = mix[seen] / mix[seen].sum()
        return float((weight * self.correct[seen] / self.examples[seen]).sum())


def perplexity(loss: float) -> float:
    """exp of a mean cross-entropy in nats; a loss too large for that counts as 700."""
    return math.exp(min(loss, 700.0))
