"""What APPFL loads from a file by name: model, data, loss and metric."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

sys.path.insert(0, str(Path(__file__).resolve().parent))
from work import arrays, mlp


def build() -> nn.Module:
    return mlp()


def data(path: str, client: int) -> tuple[TensorDataset, None]:
    held = arrays(path)
    offsets, inputs, labels = held["offsets"], held["inputs"], held["labels"]
    part = slice(int(offsets[client]), int(offsets[client + 1]))
    return TensorDataset(torch.from_numpy(inputs[part]), torch.from_numpy(labels[part])), None


class CrossEntropy(nn.CrossEntropyLoss):
    pass


def accuracy(true: np.ndarray, predicted: np.ndarray) -> float:
    return float((predicted.argmax(1) == true).mean())
