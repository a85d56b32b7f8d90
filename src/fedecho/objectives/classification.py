"""Classification: one class of C per example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import ConfigError
from .base import Metric, Objective
from .predictions import ClassPredictions
from .sums import counts, macro_f1, mass, ratio, total

BINS = 15
"""Confidence bins of the calibration error, as in Guo et al. 2017."""


@dataclass(frozen=True)
class Classification(Objective):
    """Cross-entropy on logits [n, C] and labels [n] int64.

    Statistics per example, r = 4: label, predicted class, confidence (its probability), cross-entropy. They do not grow
    with C, and per-class counts are made of them when they are needed.
    """

    name = "classification"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("accuracy", "accuracy", "share of the judged examples that the model gets right", True, share=True),
        Metric(
            "macro_f1",
            "macro F1",
            "mean over the classes of F1, the harmonic mean of precision and recall; classes that are neither present "
            "nor predicted are left out",
            True,
            share=True,
        ),
        Metric("loss", "loss", "mean cross-entropy on the judged examples, in nats", False, unit="nats"),
        Metric(
            "ece",
            "calibration error",
            f"expected calibration error: mean difference between confidence and accuracy over {BINS} equally wide "
            "bins of confidence (Guo et al. 2017, arXiv 1706.04599)",
            False,
            share=True,
        ),
    )
    predictions = ClassPredictions()
    class_labels = True

    def prepare(self, targets: Tensor) -> Tensor:
        if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
            raise ConfigError(
                f"classification needs integer labels, and got {targets.dtype}; give class numbers from 0 as int64, or "
                "choose another objective"
            )
        if targets.dim() != 1:
            raise ConfigError(
                f"classification needs labels [n], one class per example, and got {list(targets.shape)}; for several "
                "labels per example choose the objective multilabel"
            )
        labels = targets.long()
        if len(labels) and int(labels.min()) < 0:
            raise ConfigError(f"a label is {int(labels.min())}, and classes are counted from 0; renumber the labels")
        return labels

    def outputs(self, targets: Tensor) -> int:
        return int(targets.max()) + 1 if len(targets) else 0

    def check(self, shape: Sequence[int], targets: Tensor) -> None:
        if len(shape) != 1:
            raise ConfigError(
                f"the model returns {list(shape)} per example, and classification needs [C], a logit per class; end "
                "the model with a linear layer"
            )
        if (needed := self.outputs(targets)) > shape[0]:
            raise ConfigError(
                f"the model has {shape[0]} outputs, and a label is {needed - 1}; give it at least {needed} outputs"
            )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, reduction="none").unsqueeze(1)

    def asked(self, targets: Tensor) -> Tensor:
        return (targets >= 0).unsqueeze(1)

    def statistics(self, outputs: Tensor, targets: Tensor) -> Tensor:
        predicted, confidence = outputs.argmax(-1), outputs.softmax(-1).amax(-1)
        losses = self.losses(outputs, targets).squeeze(1)
        return torch.stack([targets.double(), predicted.double(), confidence.double(), losses.double()], 1)

    def values(self, statistics: Tensor, weights: Tensor | None = None) -> dict[str, float]:
        labels, predicted = statistics[:, 0].long(), statistics[:, 1].long()
        right = (labels == predicted).double()
        whole = mass(statistics, weights)
        classes = int(statistics[:, :2].max()) + 1 if len(statistics) else 0
        hits = right if weights is None else right * weights
        by_class = counts(labels, classes, hits), counts(predicted, classes, weights), counts(labels, classes, weights)
        return {
            "accuracy": ratio(total(right, weights), whole),
            "macro_f1": macro_f1(*by_class),
            "loss": ratio(total(statistics[:, 3], weights), whole),
            "ece": ratio(_calibration_gap(statistics[:, 2], right, weights), whole),
        }

    def mix_weights(self, statistics: Tensor, mix: Tensor) -> Tensor:
        """w_j = mix_c / n_c for the n_c examples of class c. Classes without an example are left out, and the others'
        shares scaled to sum to 1."""
        labels = statistics[:, 0].long()
        n = counts(labels, len(mix), None)
        share = torch.where(n > 0, mix.double(), 0.0)
        return (share / share.sum() / n.clamp(min=1))[labels]


def _calibration_gap(confidence: Tensor, right: Tensor, weights: Tensor | None) -> float:
    """Σ over bins of |Σ_j w_j·(confidence_j − right_j)|; bin b holds confidences in (b/15, (b + 1)/15]."""
    edges = torch.arange(1, BINS, dtype=torch.float64, device=confidence.device) / BINS
    bins = torch.bucketize(confidence.contiguous(), edges)
    gap = confidence - right
    return float(counts(bins, BINS, gap if weights is None else gap * weights).abs().sum())
