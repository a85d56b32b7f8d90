"""A small federation, a learner on it, and a small model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedecho.core.keys import Key
from fedecho.data.federation import Federation
from fedecho.learning.learner import Learner
from fedecho.learning.settings import ClientConfig

KEY = Key(11)


def federation(shape: Sequence[int] = (6,), sizes: Sequence[int] = (23, 5, 40), classes: int = 4) -> Federation:
    generator = torch.Generator().manual_seed(2)
    n = sum(sizes)
    inputs = torch.randn(n, *shape, generator=generator)
    labels = torch.randint(classes, (n,), generator=generator)
    offsets = [0]
    for size in sizes:
        offsets.append(offsets[-1] + size)
    unlabeled = torch.randn(12, *shape, generator=generator)
    return Federation(inputs, labels, tuple(offsets), unlabeled, (inputs, labels), (inputs, labels), classes)


def learner(build: Callable[[], nn.Module], data: Federation, client: ClientConfig, **more: Any) -> Learner:
    return Learner(build, data, client, KEY, **more)


class Small(nn.Module):
    """A convolution, batch norm and dropout, for 2×8×8 inputs."""

    def __init__(self, shape: Sequence[int] = (2, 8, 8), classes: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(shape[0], 5, 3, padding=1)
        self.norm = nn.BatchNorm2d(5)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(5 * 16, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        out: Tensor = self.head(self.drop(F.max_pool2d(F.relu(x), 2).flatten(1)))
        return out
