"""The objective that fits a federation's targets, where none is named."""

from __future__ import annotations

from ..data.federation import Federation
from ..objectives.base import Objective
from ..objectives.classification import Classification
from ..objectives.language import Language
from ..objectives.multilabel import MultiLabel
from ..objectives.regression import Regression


def objective_for(data: Federation) -> Objective:
    """Language for running text, classification for integer labels [n], multi-label for float targets [n, L] of 0 and 1
    alone, regression for other floats."""
    if data.causal:
        return Language()
    targets = data.labels
    if not targets.is_floating_point():
        return Classification()
    zeros_and_ones = targets.dim() == 2 and bool(((targets == 0) | (targets == 1)).all())
    return MultiLabel() if zeros_and_ones else Regression()
