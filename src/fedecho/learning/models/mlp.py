"""A multilayer perceptron."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from .entry import ShippedModel


class MLP(nn.Module):
    """A multilayer perceptron with ReLU.

    Args:
        shape: one input's shape; it is flattened.
        classes: C.
        hidden: widths of the hidden layers.
    """

    def __init__(self, shape: Sequence[int], classes: int, hidden: Sequence[int] = (100,)) -> None:
        super().__init__()
        if not isinstance(hidden, Sequence) or not all(isinstance(width, int) and width > 0 for width in hidden):
            raise TypeError(f"`hidden` is {hidden!r}; give a list of whole numbers above 0, such as [100]")
        widths = [math.prod(shape), *hidden]
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            layers += [nn.Linear(wide, narrow), nn.ReLU()]
        self.layers = nn.Sequential(nn.Flatten(), *layers, nn.Linear(widths[-1], classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, C] for x [B, *shape]."""
        logits: Tensor = self.layers(x)
        return logits

    def forward_many(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Logits [J, B, C] of J models for x [J, B, *shape]; `parameters` are [J, *shape] by name."""
        x = x.flatten(2)
        last = len(self.layers) - 1
        for place in range(1, last + 1, 2):
            weight, bias = parameters[f"layers.{place}.weight"], parameters[f"layers.{place}.bias"]
            x = torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))
            x = x if place == last else x.relu()
        return x


SHIPPED = ShippedModel("mlp", MLP)
