"""Multi-label classification: L labels per example, each of which holds or does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import ConfigError
from .base import Metric, Objective
from .predictions import LabelPredictions
from .sums import macro_f1, mass, ratio, total

ROWS = 8192
"""Examples counted at once, which bounds the memory that counting needs."""


@dataclass(frozen=True)
class MultiLabel(Objective):
    """Binary cross-entropy on logits [n, L] and targets [n, L] of 0 and 1. A label is predicted where its logit exceeds
    0.

    Statistics per example, r = L + 1: for each label 2·target + prediction, and the cross-entropy summed over labels.
    60,000 examples of 100 labels take 48 MB.
    """

    name = "multilabel"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(
            "micro_f1",
            "micro F1",
            "F1, the harmonic mean of precision and recall, of all labels counted together",
            True,
            share=True,
        ),
        Metric(
            "macro_f1",
            "macro F1",
            "mean over the labels of F1; labels that are neither present nor predicted are left out",
            True,
            share=True,
        ),
        Metric(
            "loss", "loss", "mean binary cross-entropy of a label on the judged examples, in nats", False, unit="nats"
        ),
    )
    predictions = LabelPredictions()

    def prepare(self, targets: Tensor) -> Tensor:
        if targets.dim() != 2:
            raise ConfigError(
                f"multilabel needs targets [n, L], a 0 or 1 for each label, and got {list(targets.shape)}; for one "
                "class per example choose the objective classification"
            )
        if not bool(((targets == 0) | (targets == 1)).all()):
            wrong = targets[(targets != 0) & (targets != 1)][0].item()
            raise ConfigError(f"multilabel needs targets of 0 and 1, and one is {wrong:g}; convert the targets")
        return targets.float()

    def outputs(self, targets: Tensor) -> int:
        return targets.shape[1]

    def check(self, shape: Sequence[int], targets: Tensor) -> None:
        if tuple(shape) != (targets.shape[1],):
            raise ConfigError(
                f"the model returns {list(shape)} per example, and the targets have {targets.shape[1]} labels; give it "
                f"outputs [{targets.shape[1]}], a logit per label"
            )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(outputs, targets)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")

    def asked(self, targets: Tensor) -> Tensor:
        return torch.ones_like(targets, dtype=torch.bool)

    def statistics(self, outputs: Tensor, targets: Tensor) -> Tensor:
        codes = 2 * targets.double() + (outputs > 0)
        return torch.cat([codes, self.losses(outputs, targets).double().sum(1, keepdim=True)], 1)

    def values(self, statistics: Tensor, weights: Tensor | None = None) -> dict[str, float]:
        right, predicted, actual = _counts(statistics[:, :-1], weights)
        whole = mass(statistics, weights) * (statistics.shape[1] - 1)
        return {
            "micro_f1": ratio(2 * float(right.sum()), float(predicted.sum() + actual.sum())),
            "macro_f1": macro_f1(right, predicted, actual),
            "loss": ratio(total(statistics[:, -1], weights), whole),
        }


def _counts(codes: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """For each label the weight of the examples where it is predicted rightly, is predicted, and holds; [L] each."""
    sums = codes.new_zeros(3, codes.shape[1])
    each = codes.new_ones(len(codes)) if weights is None else weights.double()
    for first in range(0, len(codes), ROWS):
        part, weight = codes[first : first + ROWS], each[first : first + ROWS]
        sums += torch.stack([weight @ where.double() for where in (part == 3, part % 2 == 1, part >= 2)])
    right, predicted, actual = sums
    return right, predicted, actual
