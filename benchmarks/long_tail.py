"""Data sets with unequally frequent classes, for docs/studies.md: what a method loses that assumes equal ones.

    PYTHONPATH=benchmarks fedecho run configs/digits_coupled.toml --set data.dataset=long_tail:digits

The k-th of C classes keeps a share of 10^(−k/(C−1)) of its images, in training, in U and in the test set alike, so that
the last one keeps a tenth.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedecho.data.sources import load

RAREST = 0.1


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _thinned("digits")


def fashion_mnist() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _thinned("fashion_mnist")


def _thinned(name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    source = load(name)
    train, test = _remaining(source.labels, source.classes), _remaining(source.test_labels, source.classes)
    return source.inputs[train], source.labels[train], source.test_inputs[test], source.test_labels[test]


def _remaining(labels: Tensor, classes: int) -> Tensor:
    """The places of the images that stay: the first ones of each class."""
    parts = []
    for k in range(classes):
        places = (labels == k).nonzero().flatten()
        parts.append(places[: round(len(places) * RAREST ** (k / (classes - 1)))])
    return torch.cat(parts).sort().values
