"""Data sets from a user's own function or file."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..core.errors import ConfigError, DataError
from .images import to_grey, to_pixels
from .source import Source, check_source, to_floats, to_targets


def load_function(name: str, module: str, function: str) -> Source:
    with _current_folder_importable():
        try:
            make = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"`dataset` ({name!r}) cannot be imported: {error}; give `module:function`") from error
        try:
            parts = make()
            count = len(parts)
            if count == 2:
                parts = [side for part in parts for side in _unzip(part)]
        except Exception as error:  # whatever the user's own code raises
            raise DataError(f"{name}: the function raised {type(error).__name__}: {error}; mend it") from error
    if count not in (2, 4):
        raise DataError(
            f"{name}: the function returned {count} things; return (train_x, train_y, test_x, test_y), or two Datasets"
        )
    x, y, test_x, test_y = parts
    return check_source(
        name, to_floats(name, x), to_targets(name, y), to_floats(name, test_x), to_targets(name, test_y)
    )


@contextlib.contextmanager
def _current_folder_importable() -> Iterator[None]:
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _unzip(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """A map-style Dataset of (input, target) pairs as two arrays."""
    pairs = [dataset[i] for i in range(len(dataset))]
    inputs = [x for x, _ in pairs]
    if hasattr(inputs[0], "getbands"):  # images of PIL, without importing it
        stacked = to_pixels(inputs, "L" if all(map(to_grey, inputs)) else "RGB")
    else:
        stacked = np.stack([np.asarray(x) for x in inputs])
    return stacked, np.stack([np.asarray(y) for _, y in pairs])
