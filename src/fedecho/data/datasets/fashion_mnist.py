"""Fashion-MNIST: pictures of clothes."""

from __future__ import annotations

from functools import partial

from ..archive import Archive
from ..images import load_idx
from .base import ImageDataset

ARCHIVE = Archive(
    "apt",
    "dataset-fashion-mnist",
    "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    r"\./usr/share/datasets/fashion-mnist/(train|t10k)-(images-idx3|labels-idx1)-ubyte\.gz",
    4,
    name="fashion_mnist",
)

DATASET = ImageDataset("fashion_mnist", "fashion_mnist", partial(load_idx, "fashion_mnist", suffix=".gz"))
