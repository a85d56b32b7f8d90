"""The model, the data, training and judging: what any PyTorch app for Flower has. Nothing here is asynchronous."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedecho import Key
from fedecho.data.partition import partition
from fedecho.data.source import Source
from fedecho.data.sources import load

PUBLIC = 2_000
"""Training images kept from the clients: the first of them are U, the unlabeled public set."""


class Net(nn.Module):
    """A small convolutional network for images [B, 1, 28, 28]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 5, stride=2)
        self.conv2 = nn.Conv2d(8, 16, 5, stride=2)
        self.out = nn.Linear(16 * 4 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        logits: Tensor = self.out(x.flatten(1))
        return logits


@cache
def images() -> Source:
    return load("fashion_mnist")


def public(size: int) -> Tensor:
    """U: images without their labels, [size, 1, 28, 28]."""
    return images().inputs[:size]


@cache
def partition_of(number: int, partitions: int) -> tuple[Tensor, Tensor]:
    """One client's images and labels: skewed by a Dirichlet(0.3) mix of classes, as clients' data are."""
    labels = images().labels[PUBLIC:]
    rows = partition(labels.numpy(), partitions, "dirichlet_mix", Key(0), alpha=0.3)[number]
    return images().inputs[PUBLIC:][rows], labels[rows]


def train(net: nn.Module, inputs: Tensor, labels: Tensor, epochs: int, batch_size: int, lr: float) -> float:
    """Plain SGD; the mean loss."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    losses = []
    net.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs)).split(batch_size):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(inputs[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    return sum(losses) / len(losses)


def judge(net: nn.Module, inputs: Tensor, labels: Tensor) -> tuple[float, float]:
    """Accuracy and loss."""
    net.eval()
    with torch.no_grad():
        logits = torch.cat([net(part) for part in inputs.split(500)])
    return float((logits.argmax(1) == labels).float().mean()), float(F.cross_entropy(logits, labels))
