"""Handwritten digits of 8×8 pixels, bundled with scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...core.keys import Key
from ..source import Source, normalised
from .base import ImageDataset


def load(_: Path) -> Source:
    from sklearn.datasets import load_digits  # here, since importing scikit-learn takes a second

    pixels, labels = load_digits(return_X_y=True)
    order = Key(0).fold("digits", "split").numpy().permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    test = np.sort(order[::5])  # every fifth of the images in order of class: 20 % of each class, within one image
    train = np.setdiff1d(order, test)
    images = pixels.astype(np.uint8).reshape(-1, 1, 8, 8)
    return normalised("digits", images[train], labels[train], images[test], labels[test], 10)


DATASET = ImageDataset("digits", None, load)
