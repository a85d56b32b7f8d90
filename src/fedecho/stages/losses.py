"""Losses of a student against a teacher on the unlabeled set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..objectives.predictions import ClassPredictions, Predictions
from .compute import Loss

CLASSES = ClassPredictions()


def kl_to(p: Tensor, predictions: Predictions = CLASSES) -> Loss:
    """mean_B KL(p ‖ s), s the student's probabilities, for a teacher p [P, K]."""
    entropy = predictions.entropy(p)

    def loss(logits: Tensor, batch: Tensor) -> Tensor:
        return predictions.divergence(p[batch], logits, entropy[batch]).mean()

    return loss


def cross_entropy_to(p: Tensor) -> Loss:
    """mean_B −Σ_c p_c·log s_c with s = softmax(logits), for a teacher p [P, C]."""

    def loss(logits: Tensor, batch: Tensor) -> Tensor:
        mean: Tensor = -(p[batch] * F.log_softmax(logits, -1)).sum(-1).mean()
        return mean

    return loss


@dataclass(frozen=True, slots=True)
class Target:
    """What a teacher says of P predictions.

    Attributes:
        p: its probabilities [P, K].
        hard: ŷ, its hard labels: the most probable class [P], or 0 and 1 for each label [P, L].
        h: its uncertainty [P], in [0, 1].
        entropy: H(p) in nats [P].
    """

    p: Tensor
    hard: Tensor
    h: Tensor
    entropy: Tensor

    @classmethod
    def of(cls, p: Tensor, predictions: Predictions) -> Target:
        return cls(p, predictions.hard(p), predictions.uncertainty(p), predictions.entropy(p))

    def at(self, batch: Tensor) -> Target:
        """The target at some of the predictions, by their places [B]."""
        return Target(self.p[batch], self.hard[batch], self.h[batch], self.entropy[batch])


@dataclass(frozen=True, slots=True)
class UncertaintyWeighted:
    """FedEcho's loss: mean_B [ α·T²·KL(p ‖ s_T) + (1−α)·CE(ŷ, s) ], α = α_min + (α_max − α_min)·h, with s_T the
    student's probabilities at temperature T. The fields are the settings of `Echo`."""

    predictions: Predictions
    alpha_min: float
    alpha_max: float
    alpha: Literal["sample", "batch", "agreement"]
    temperature: float

    def __call__(self, logits: Tensor, target: Target) -> Tensor:
        """The loss of the student's logits on a batch [B, K], a scalar."""
        weight = self.alpha_min + (self.alpha_max - self.alpha_min) * target.h
        if self.alpha == "batch":
            weight = weight.mean()
        elif self.alpha == "agreement":
            agrees = self.predictions.agree(target.hard, logits)
            weight = torch.where(agrees, torch.ones_like(weight), weight)
        soft = self.predictions.divergence(target.p, logits / self.temperature, target.entropy)
        hard = self.predictions.hard_loss(target.hard, logits)
        return (weight * self.temperature**2 * soft + (1 - weight) * hard).mean()

    def against(self, target: Target) -> Loss:
        """The loss against a teacher on all of U."""
        return lambda logits, batch: self(logits, target.at(batch))
