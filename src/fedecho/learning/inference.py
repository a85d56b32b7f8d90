"""A model's predictions and the statistics by which it is judged."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..objectives.base import Objective
from ..stages.compute import LOGITS, PredictionFormat
from .flat import FlatModule

INFERENCE_BATCH = 500
"""Examples per forward pass where no gradient is needed: the fastest on CPUs we timed; larger ones spill the caches."""

INFERENCE_TOKENS = 1 << 13
"""Of texts with classes: tokens per forward pass, at most, which is fewer examples."""

INFERENCE_LOGITS = 1 << 23
"""Of a language model: logits per forward pass, at most, which is fewer examples. 32 MiB."""


class Inference:
    """Runs the loaded model without gradients.

    Args:
        flat: the module.
        shape: of one input.
        classes: of a language model, its vocabulary's size.
        causal: whether it is a language model.
        pad: the token that fills short texts, or None.
        tokens: whether inputs are token ids.
    """

    def __init__(
        self, flat: FlatModule, shape: Sequence[int], classes: int, causal: bool, pad: int | None, tokens: bool
    ) -> None:
        self._flat, self._causal, self._pad = flat, causal, pad
        size = math.prod(shape)
        self._batch = INFERENCE_BATCH
        if causal:
            self._batch = max(1, min(INFERENCE_BATCH, INFERENCE_LOGITS // (size * classes)))
        elif tokens:
            self._batch = max(1, min(INFERENCE_BATCH, INFERENCE_TOKENS // size))

    def predicted_places(self, inputs: Tensor) -> Tensor | None:
        """Where a language model's inputs [n, L] are not padding, [n, L] bool; None of other models."""
        if not self._causal:
            return None
        return torch.ones_like(inputs, dtype=torch.bool) if self._pad is None else inputs != self._pad

    def count(self, inputs: Tensor) -> int:
        """P: how many predictions a model makes on these inputs."""
        places = self.predicted_places(inputs)
        return len(inputs) if places is None else int(places.sum())

    def predict(self, stored: Tensor, form: PredictionFormat = LOGITS) -> Tensor:
        """The predictions on inputs as `Layout.place` returned them: [P, C] logits, or in another form."""
        self._flat.module.eval()
        with torch.no_grad():
            return torch.cat([form.of(self._predictions(part)) for part in torch.split(stored, self._batch)])

    def _predictions(self, stored: Tensor) -> Tensor:
        logits, places = self._flat.outputs(stored), self.predicted_places(stored)
        return logits if places is None else logits[places]

    def statistics(self, stored: Tensor, targets: Tensor, objective: Objective) -> Tensor:
        """The objective's statistics [n, r] of inputs as `Layout.place` returned them, with CPU targets."""
        self._flat.module.eval()
        with torch.no_grad():
            parts = zip(torch.split(stored, self._batch), torch.split(targets, self._batch), strict=True)
            rows = [objective.statistics(self._flat.outputs(part).cpu(), wanted) for part, wanted in parts]
        return torch.cat(rows)
