"""Regression: T real numbers per example."""

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
from .sums import mass, ratio, total


@dataclass(frozen=True)
class Regression(Objective):
    """Squared error on outputs [n, T] and targets [n, T] float32; for T = 1 either may be [n].

    Statistics per example, r = 2·T: the targets, then the errors (output minus target).
    """

    name = "regression"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("rmse", "RMSE", "square root of the mean squared error on the judged examples, over all targets", False),
        Metric("mae", "MAE", "mean absolute error on the judged examples, over all targets", False),
        Metric(
            "r2",
            "R²",
            "mean over the targets of 1 − squared error / squared deviation from the mean; targets that do not vary "
            "are left out",
            True,
        ),
        Metric("loss", "loss", "mean squared error on the judged examples", False),
    )

    def prepare(self, targets: Tensor) -> Tensor:
        if targets.is_complex() or targets.dtype == torch.bool:
            raise ConfigError(
                f"regression needs real numbers as targets, and got {targets.dtype}; convert them to float32"
            )
        if targets.dim() not in (1, 2):
            raise ConfigError(f"regression needs targets [n] or [n, T], and got {list(targets.shape)}; reshape them")
        values = targets.float()
        if not bool(values.isfinite().all()):
            count = int((~values.isfinite()).sum())
            raise ConfigError(
                f"regression needs finite targets, and {count} {'is' if count == 1 else 'are'} not; remove these "
                "examples, or scale the targets"
            )
        return values

    def outputs(self, targets: Tensor) -> int:
        return 1 if targets.dim() == 1 else targets.shape[1]

    def check(self, shape: Sequence[int], targets: Tensor) -> None:
        size = self.outputs(targets)
        if tuple(shape) != (size,) and not (size == 1 and len(shape) == 0):
            values = "1 value" if size == 1 else f"{size} values"
            raise ConfigError(
                f"the model returns {list(shape)} per example, and the targets have {values}; give it outputs [{size}]"
            )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(_columns(outputs), _columns(targets))

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(_columns(outputs), _columns(targets), reduction="none")

    def asked(self, targets: Tensor) -> Tensor:
        return torch.ones_like(_columns(targets), dtype=torch.bool)

    def statistics(self, outputs: Tensor, targets: Tensor) -> Tensor:
        wanted = _columns(targets).double()
        return torch.cat([wanted, _columns(outputs).double() - wanted], 1)

    def values(self, statistics: Tensor, weights: Tensor | None = None) -> dict[str, float]:
        targets, errors = statistics.chunk(2, 1)
        whole = mass(statistics, weights) * errors.shape[1]
        mse = ratio(total(errors.square().sum(1), weights), whole)
        mae = ratio(total(errors.abs().sum(1), weights), whole)
        return {"rmse": math.sqrt(mse), "mae": mae, "r2": _r2(targets, errors, weights), "loss": mse}


def _columns(values: Tensor) -> Tensor:
    """[n] as [n, 1]: a difference of [n] and [n, 1] would be [n, n]."""
    return values.unsqueeze(1) if values.dim() == 1 else values


def _r2(targets: Tensor, errors: Tensor, weights: Tensor | None) -> float:
    """The mean over the columns of R²; of columns in which targets differ. NaN where there is none."""
    if weights is not None:
        targets, errors, weights = (part[weights > 0] for part in (targets, errors, weights))
    if not len(targets):
        return math.nan
    varying = targets.amax(0) > targets.amin(0)  # rounding can make a constant's deviation from its mean nonzero
    targets, errors = targets[:, varying], errors[:, varying]
    weight = targets.new_ones(len(targets), 1) if weights is None else weights.double().unsqueeze(1)
    mean = (weight * targets).sum(0) / weight.sum()
    unexplained = (weight * errors.square()).sum(0) / (weight * (targets - mean).square()).sum(0)
    return float((1 - unexplained).mean())
