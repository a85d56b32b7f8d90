"""Language modeling: the next token at each place of a text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import ConfigError
from .base import Metric, Objective
from .predictions import ClassPredictions
from .sums import ratio, total

NOT_ASKED = -100
"""The label of a place where no token is to be predicted."""
LARGEST_LOSS = 700.0
"""exp of a larger one would overflow."""


@dataclass(frozen=True)
class Language(Objective):
    """Cross-entropy on logits [n, L, V] and labels [n, L] int64: the next token at each place, or −100 where none is to
    be predicted.

    Statistics per example, r = 3, whatever the vocabulary: tokens predicted rightly, tokens asked, and the sum of their
    cross-entropies.
    """

    name = "language"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(
            "perplexity",
            "perplexity",
            "exp of the mean cross-entropy of a token in the judged texts",
            False,
            decimals=2,
            axis="log",
        ),
        Metric(
            "accuracy",
            "next-token accuracy",
            "share of the tokens in the judged texts that the model gets right",
            True,
            share=True,
        ),
        Metric("loss", "loss", "mean cross-entropy of a token in the judged texts, in nats", False, unit="nats"),
    )
    predictions = ClassPredictions()

    def prepare(self, targets: Tensor) -> Tensor:
        if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
            raise ConfigError(f"language needs token ids as labels, and got {targets.dtype}; give them as int64")
        if targets.dim() != 2:
            raise ConfigError(
                f"language needs labels [n, L], the next token at each place, and got {list(targets.shape)}; for one "
                "class per text choose the objective classification"
            )
        labels = targets.long()
        wrong = labels[(labels < 0) & (labels != NOT_ASKED)]
        if len(wrong):
            raise ConfigError(
                f"a label is {int(wrong[0])}, and token ids are counted from 0; mark places where nothing is to be "
                f"predicted by {NOT_ASKED}"
            )
        return labels

    def outputs(self, targets: Tensor) -> int:
        return max(0, int(targets.max()) + 1) if targets.numel() else 0

    def check(self, shape: Sequence[int], targets: Tensor) -> None:
        if len(shape) != 2 or shape[0] != targets.shape[1]:
            raise ConfigError(
                f"the model returns {list(shape)} per text, and language needs [{targets.shape[1]}, V], a logit per "
                "token of the vocabulary at each place; let the model return logits at every place"
            )
        if (needed := self.outputs(targets)) > shape[1]:
            raise ConfigError(
                f"the model knows {shape[1]} tokens, and a label is {needed - 1}; use the tokenizer of the model, or "
                f"give the model at least {needed} tokens"
            )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)

    def asked(self, targets: Tensor) -> Tensor:
        return targets >= 0

    def statistics(self, outputs: Tensor, targets: Tensor) -> Tensor:
        asked = self.asked(targets)
        right = outputs.argmax(-1) == targets
        losses = self.losses(outputs, targets)
        return torch.stack([right.double(), asked.double(), losses.double()], -1).sum(1)

    def values(self, statistics: Tensor, weights: Tensor | None = None) -> dict[str, float]:
        right, asked, losses = (total(column, weights) for column in statistics.unbind(1))
        loss = ratio(losses, asked)
        return {
            "perplexity": math.exp(min(loss, LARGEST_LOSS)),
            "accuracy": ratio(right, asked),
            "loss": loss,
        }
