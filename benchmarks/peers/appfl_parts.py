"""What APPFL loads from a file by name: model, data, loss and metric."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

sys.path.insert(0, str(Path(__file__).resolve().parent))
from work import mlp  # noqa: E402


def build() -> nn.Module:
    return mlp()


@cache
def _arrays(path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    held = np.load(path)
    return held["offsets"], held["inputs"], held["labels"]


def data(path: str, client: int) -> tuple[TensorDataset, None]:
    offsets, inputs, labels = _arrays(path)
    part = slice(int(offsets[client]), int(offsets[client + 1]))
    return TensorDataset(torch.from_numpy(inputs[part]), torch.from_numpy(labels[part])), None


class CrossEntropy(nn.CrossEntropyLoss):
    pass


def accuracy(true: np.ndarray, predicted: np.ndarray) -> float:
    return float((predicted.argmax(1) == true).mean())
