"""A small convolutional network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import ConfigError
from .entry import ShippedModel, image_remedy
from .pooling import max_pool


class CNN(nn.Module):
    """A small convolutional network with group norm: 3×3 convolutions, each followed by pooling, and a linear head.

    66,890 parameters for 3×32×32 inputs and 10 classes: CIFAR-10 on a laptop.

    Args:
        shape: (channels, height, width), at least 2 to the power of the number of convolutions on each side.
        classes: C.
        widths: channels of the convolutions, multiples of `groups`.
        groups: of the group norm.
    """

    def __init__(
        self, shape: Sequence[int], classes: int, widths: Sequence[int] = (32, 64, 64), groups: int = 8
    ) -> None:
        super().__init__()
        if len(shape) != 3 or min(shape[1:]) < 2 ** len(widths):
            least = 2 ** len(widths)
            raise ConfigError(
                f"cnn takes images of at least {least}×{least}, got inputs of shape {tuple(shape)}; "
                f"{image_remedy(shape)}"
            )
        if any(wide % groups for wide in widths):
            raise ConfigError(f"cnn's widths {list(widths)} must be multiples of groups ({groups}); change one of them")
        pairs = list(pairwise([shape[0], *widths]))
        self.convolutions = nn.ModuleList(nn.Conv2d(wide, out, 3, padding=1) for wide, out in pairs)
        self.norms = nn.ModuleList(nn.GroupNorm(groups, wide) for wide in widths)
        height, width = (side // 2 ** len(widths) for side in shape[1:])
        self.head = nn.Linear(widths[-1] * height * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, C] for x [B, *shape]."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.relu(max_pool(norm(convolution(x))))
        logits: Tensor = self.head(x.flatten(1))
        return logits


SHIPPED = ShippedModel("cnn", CNN)
