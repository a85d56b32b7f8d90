"""What a model's outputs mean as probabilities: one class of C, or L labels that hold or do not.

A stage that distils works on P predictions and their logits, [P, C] or [P, L], and never needs to know which. A
classifier makes one prediction per example, a language model one per token.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor


class Predictions(abc.ABC):
    """The interface; K is the number of classes or labels."""

    kind: ClassVar[Literal["classes", "labels"]]

    @abc.abstractmethod
    def probabilities(self, logits: Tensor) -> Tensor:
        """p [..., K] of logits [..., K]."""

    @abc.abstractmethod
    def entropy(self, p: Tensor) -> Tensor:
        """H(p) in nats, [...], with 0·log 0 = 0."""

    @abc.abstractmethod
    def uncertainty(self, p: Tensor) -> Tensor:
        """h ∈ [0, 1], [...]: H(p) divided by its largest possible value."""

    @abc.abstractmethod
    def divergence(self, p: Tensor, logits: Tensor, entropy: Tensor | None = None) -> Tensor:
        """KL(p ‖ s) in nats, [...], with s the probabilities of the student's logits.

        `entropy` is H(p) where it is known already.
        """

    @abc.abstractmethod
    def hard(self, p: Tensor) -> Tensor:
        """The hard labels ŷ that p stands for: the most probable class [...], or 0 and 1 for each label [..., L]."""

    @abc.abstractmethod
    def hard_loss(self, hard: Tensor, logits: Tensor) -> Tensor:
        """The cross-entropy of hard labels and the student's logits [P, K], in nats, [P]."""

    @abc.abstractmethod
    def agree(self, hard: Tensor, logits: Tensor) -> Tensor:
        """Where the student's own hard labels are these, [...] bool."""


@dataclass(frozen=True)
class ClassPredictions(Predictions):
    """One class of C: s = softmax(z)."""

    kind = "classes"

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)

    def entropy(self, p: Tensor) -> Tensor:
        total: Tensor = torch.special.entr(p).sum(-1)
        return total

    def uncertainty(self, p: Tensor) -> Tensor:
        """h = −Σ_c p_c·log p_c / log C."""
        return self.entropy(p) / math.log(p.shape[-1])

    def divergence(self, p: Tensor, logits: Tensor, entropy: Tensor | None = None) -> Tensor:
        """Σ_c p_c·(log p_c − log s_c)."""
        known = self.entropy(p) if entropy is None else entropy
        return -known - (p * F.log_softmax(logits, -1)).sum(-1)

    def hard(self, p: Tensor) -> Tensor:
        return p.argmax(-1)

    def hard_loss(self, hard: Tensor, logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, hard, reduction="none")

    def agree(self, hard: Tensor, logits: Tensor) -> Tensor:
        return logits.argmax(-1) == hard


@dataclass(frozen=True)
class LabelPredictions(Predictions):
    """L labels, each a Bernoulli variable of its own: s = sigmoid(z). Entropy and divergence are sums over labels."""

    kind = "labels"

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def entropy(self, p: Tensor) -> Tensor:
        total: Tensor = (torch.special.entr(p) + torch.special.entr(1 - p)).sum(-1)
        return total

    def uncertainty(self, p: Tensor) -> Tensor:
        """h = mean over the labels of H(p_l) / log 2."""
        return self.entropy(p) / (p.shape[-1] * math.log(2))

    def divergence(self, p: Tensor, logits: Tensor, entropy: Tensor | None = None) -> Tensor:
        """Σ_l KL(Bernoulli(p_l) ‖ Bernoulli(s_l))."""
        known = self.entropy(p) if entropy is None else entropy
        return F.binary_cross_entropy_with_logits(logits, p, reduction="none").sum(-1) - known

    def hard(self, p: Tensor) -> Tensor:
        return (p > 0.5).to(p.dtype)

    def hard_loss(self, hard: Tensor, logits: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, hard, reduction="none").sum(-1)

    def agree(self, hard: Tensor, logits: Tensor) -> Tensor:
        return ((logits > 0) == (hard > 0.5)).all(-1)
