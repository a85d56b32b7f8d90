"""Handwritten digits of 8×8 pixels, bundled with scikit-learn."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np

from ...core.keys import Key
from ..source import Source, normalised
from .base import ImageDataset


def load(_: Path) -> Source:
    table = _table()
    pixels, labels = table[:, :-1], table[:, -1].astype(np.int64)
    order = Key(0).fold("digits", "split").numpy().permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    test = np.sort(order[::5])  # every fifth of the images in order of class: 20 % of each class, within one image
    train = np.setdiff1d(order, test)
    images = pixels.astype(np.uint8).reshape(-1, 1, 8, 8)
    return normalised("digits", images[train], labels[train], images[test], labels[test], 10)


def _table() -> np.ndarray:
    """[1797, 65]: 64 pixels and the label, from the file that scikit-learn ships; importing scikit-learn takes seconds
    and is done only where the file is not found."""
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            with gzip.open(file, "rt", encoding="ascii") as lines:
                return np.loadtxt(lines, delimiter=",")
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return np.column_stack([pixels, labels])


DATASET = ImageDataset("digits", None, load)
