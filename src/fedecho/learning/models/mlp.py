from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class MLP(nn.Module):
    """A multilayer perceptron with ReLU.

    Args:
        shape: one input's shape; it is flattened.
        classes: C.
        hidden: widths of the hidden layers.
    """

    def __init__(self, shape: Sequence[int], classes: int, hidden: Sequence[int] = (100,)) -> None:
        super().__init__()
        widths = [math.prod(shape), *hidden]
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            layers += [nn.Linear(wide, narrow), nn.ReLU()]
        self.layers = nn.Sequential(nn.Flatten(), *layers, nn.Linear(widths[-1], classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, C] for x [B, *shape]."""
        logits: Tensor = self.layers(x)
        return logits
