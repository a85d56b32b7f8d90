"""The format in which predictions on the unlabeled set travel and are stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from . import topk as sparse


@dataclass(frozen=True, slots=True)
class PredictionFormat:
    """In what form predictions travel and are kept.

    Attributes:
        top_k: keep the k most probable classes, as `fedecho.core.topk` packs them: [P, 3k + 2] int16. 0: all logits.
        half: all logits, [P, C], as float16 instead of float32.
    """

    top_k: int = 0
    half: bool = False

    @classmethod
    def asked(cls, wanted: Mapping[str, object]) -> PredictionFormat:
        """The format that `asking` describes."""
        return cls(int(wanted.get("top_k", 0)), bool(wanted.get("half", 0)))  # type: ignore[call-overload]

    def asking(self) -> dict[str, float]:
        """Plain numbers that describe this format, for a message; none for all logits."""
        return {} if self == LOGITS else {"top_k": float(self.top_k), "half": float(self.half)}

    def width(self, classes: int) -> int:
        """Numbers a prediction."""
        return sparse.width(min(self.top_k, classes)) if self.top_k else classes

    def bytes(self, classes: int) -> int:
        """Bytes a prediction."""
        return self.width(classes) * (2 if self.top_k or self.half else 4)

    def of(self, logits: Tensor) -> Tensor:
        """Logits [P, C] in this format."""
        if self.top_k:
            return sparse.pack(logits, self.top_k)
        if not self.half:
            return logits
        largest = torch.finfo(torch.float16).max  # an infinity could never be taken out of a running sum again
        return logits.clamp(-largest, largest).half()


LOGITS = PredictionFormat()
"""All logits, float32."""
