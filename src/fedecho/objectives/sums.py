"""Weighted sums and the ratios of them that several metrics are."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def total(column: Tensor, weights: Tensor | None) -> float:
    """Σ_j w_j·x_j of a column [n]; the plain sum without weights."""
    return float(column.sum() if weights is None else (column * weights).sum())


def mass(statistics: Tensor, weights: Tensor | None) -> float:
    """The weight of all examples together: n without weights."""
    return float(len(statistics)) if weights is None else float(weights.sum())


def ratio(part: float, whole: float) -> float:
    """Part / whole; NaN where the whole is 0."""
    return part / whole if whole else math.nan


def counts(places: Tensor, size: int, weights: Tensor | None) -> Tensor:
    """The weight that falls on each of `size` places, [size] float64."""
    return torch.bincount(places, weights, size).double()


def macro_f1(right: Tensor, predicted: Tensor, actual: Tensor) -> float:
    """The mean F1 = 2·TP / (predicted + actual) over the classes, from counts [C] each. A class that is neither present
    nor predicted has no F1 and is left out; NaN where all are."""
    occurring = predicted + actual > 0
    return float((2 * right[occurring] / (predicted + actual)[occurring]).mean())
