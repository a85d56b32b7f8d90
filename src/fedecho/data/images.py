"""The image data sets that ship or can be fetched."""

from __future__ import annotations

import gzip
import importlib.util
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.keys import Key
from .source import Source, damaged, normalised


def load_digits() -> Source:
    table = _digits_table()
    pixels, labels = table[:, :-1], table[:, -1].astype(np.int64)
    order = Key(0).fold("digits", "split").numpy().permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    test = np.sort(order[::5])  # every fifth of the images in order of class: 20 % of each class, within one image
    train = np.setdiff1d(order, test)
    images = pixels.astype(np.uint8).reshape(-1, 1, 8, 8)
    return normalised("digits", images[train], labels[train], images[test], labels[test], 10)


def _digits_table() -> np.ndarray:
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


def load_idx(name: str, folder: Path) -> Source:
    suffix = ".gz" if name == "fashion_mnist" else ""
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


def load_cifar10(folder: Path) -> Source:
    parts = {}
    for part, size in {"train": 50_000, "test": 10_000}.items():
        for kind, dtype, shape in (("images", np.uint8, (size, 3, 32, 32)), ("labels", np.int64, (size,))):
            try:
                array = np.load(folder / f"{part}_{kind}.npy", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise damaged(folder, error) from error
            if array.dtype != dtype or array.shape != shape:
                raise damaged(folder, f"{part}_{kind}.npy holds {array.dtype} {array.shape}")
            parts[part, kind] = array
    train, train_labels, test, test_labels = parts.values()
    return normalised("cifar10", train, train_labels, test, test_labels, 10)


def to_grey(image: Any) -> bool:
    return image.mode in ("1", "L", "LA")


def to_pixels(images: Sequence[Any], mode: str) -> np.ndarray:
    """Images of PIL as uint8 [n, channels, height, width]; mode is "L" or "RGB"."""
    if len(sizes := {image.size for image in images}) > 1:
        few = ", ".join(f"{width}×{height}" for width, height in sorted(sizes)[:3])
        raise ValueError(f"its images have {len(sizes)} sizes ({few}, …); resize them to one")
    pixels = np.stack([np.asarray(image.convert(mode)) for image in images])
    return pixels[:, None] if mode == "L" else pixels.transpose(0, 3, 1, 2)
