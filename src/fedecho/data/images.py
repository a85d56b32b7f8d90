"""Reading images: idx files, and pictures of Pillow."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .source import Source, damaged, normalised


def load_idx(name: str, folder: Path, suffix: str = "") -> Source:
    """A data set in the four idx files of MNIST; `suffix` is that of compressed ones."""
    kinds = ("images-idx3", "labels-idx1")
    train, train_labels, test, test_labels = (
        _idx(folder / f"{part}-{kind}-ubyte{suffix}") for part in ("train", "t10k") for kind in kinds
    )
    if train.shape != (60_000, 28, 28) or test.shape != (10_000, 28, 28):
        raise damaged(folder, f"images {train.shape} and {test.shape}, expected 60000 and 10000 of 28×28")
    return normalised(name, train[:, None], train_labels, test[:, None], test_labels, 10)


def _idx(path: Path) -> np.ndarray:
    """Read an idx file of bytes: 0, 0, type 8, the number of dimensions; each dimension, big-endian; the data."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path.parent, f"{path.name}: {error}") from error
    dimensions = raw[3] if len(raw) > 3 else 0
    shape = tuple(int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions))
    if raw[:3] != b"\x00\x00\x08" or not dimensions or len(raw) != 4 + 4 * dimensions + math.prod(shape):
        raise damaged(path.parent, f"{path.name}: its idx header is {raw[:4].hex()} and its size {len(raw)} bytes")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def to_grey(image: Any) -> bool:
    return image.mode in ("1", "L", "LA")


def to_pixels(images: Sequence[Any], mode: str) -> np.ndarray:
    """Images of PIL as uint8 [n, channels, height, width]; mode is "L" or "RGB"."""
    if len(sizes := {image.size for image in images}) > 1:
        few = ", ".join(f"{width}×{height}" for width, height in sorted(sizes)[:3])
        raise ValueError(f"its images have {len(sizes)} sizes ({few}, …); resize them to one")
    pixels = np.stack([np.asarray(image.convert(mode)) for image in images])
    return pixels[:, None] if mode == "L" else pixels.transpose(0, 3, 1, 2)
