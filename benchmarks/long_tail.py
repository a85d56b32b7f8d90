"""Data sets whose classes are unequally frequent, for docs/studies.md: what a method that counts on equal ones loses.

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
    train, test = _kept(source.labels, source.classes), _kept(source.test_labels, source.classes)
    return source.inputs[train], source.labels[train], source.test_inputs[test], source.test_labels[test]


def _kept(labels: Tensor, classes: int) -> Tensor:
    """The places of the images kept: the first of each class."""
    kept = []
    for k in range(classes):
        places = (labels == k).nonzero().flatten()
        kept.append(places[: round(len(places) * RAREST ** (k / (classes - 1)))])
    return torch.cat(kept).sort().values
