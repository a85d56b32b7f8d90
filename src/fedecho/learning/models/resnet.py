"""ResNet-18 for small images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import ConfigError
from .entry import ShippedModel, image_remedy


def _norm(kind: str, channels: int) -> nn.Module:
    return nn.GroupNorm(32, channels) if kind == "group" else nn.BatchNorm2d(channels)


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    def __init__(self, wide: int, out: int, stride: int, norm: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(wide, out, 3, stride, padding=1, bias=False)
        self.norm1 = _norm(norm, out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm2 = _norm(norm, out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or wide != out:
            self.shortcut = nn.Sequential(nn.Conv2d(wide, out, 1, stride, bias=False), _norm(norm, out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class ResNet18(nn.Module):
    """ResNet-18 for small images: a 3×3 stem and no first pooling.

    He et al., *Deep Residual Learning for Image Recognition*, CVPR 2016. Group norm is the default, because batch
    statistics of skewed clients do not average well (Hsieh et al., *The Non-IID Data Quagmire*, ICML 2020).

    Args:
        shape: (channels, height, width).
        classes: C.
        norm: "group" (32 groups) or "batch".
    """

    def __init__(self, shape: Sequence[int], classes: int, norm: Literal["group", "batch"] = "group") -> None:
        super().__init__()
        if len(shape) != 3 or image_remedy(shape) != "use mlp":
            raise ConfigError(f"resnet18 takes images, got inputs of shape {tuple(shape)}; {image_remedy(shape)}")
        if norm not in ("group", "batch"):
            raise ConfigError(f"resnet18's norm is 'group' or 'batch', got {norm!r}")
        self.stem = nn.Sequential(nn.Conv2d(shape[0], 64, 3, padding=1, bias=False), _norm(norm, 64), nn.ReLU())
        widths = [64, 64, 128, 256, 512]
        blocks: list[nn.Module] = []
        for i, (wide, out) in enumerate(pairwise(widths)):
            blocks += [Block(wide, out, 1 if i == 0 else 2, norm), Block(out, out, 1, norm)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, C] for x [B, *shape]."""
        logits: Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return logits


SHIPPED = ShippedModel("resnet18", ResNet18)
