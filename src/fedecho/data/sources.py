"""Data sets in memory.

Built in: digits (bundled with scikit-learn, always there), and images and texts that are fetched on first use (see
`fetch`). From outside: the user's own `module:function`, and `hf:NAME` or `hf:./folder` by Hugging Face `datasets`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError
from . import tokens
from .corpora import load_text
from .datasets import ImageDataset, shipped_datasets, text_datasets
from .derived import DerivedCache
from .fetch import fetch
from .hub import load_hub
from .own import load_function
from .source import Source


def names() -> tuple[str, ...]:
    """The built-in data sets, sorted."""
    return tuple(shipped_datasets())


def load(
    name: str,
    cache: Path | None = None,
    tokenizer: str | None = None,
    length: int = 64,
    features: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Source:
    """Load a data set, fetching it first if need be.

    Args:
        name: one of
            - "digits": 1437 + 360 images [1, 8, 8], 10 classes (a fixed split, stratified by class);
            - "fashion_mnist", "mnist": 60000 + 10000 images [1, 28, 28], 10 classes;
            - "cifar10": 50000 + 10000 images [3, 32, 32], 10 classes;
            - "newsgroups": 11293 + 7528 texts, 20 classes;
            - "bbc_news", "imdb", "reuters_r8", "reuters_r52", "sentiment": texts with classes, see `text`;
            - "shakespeare": running text of 431 roles of 36 plays, the last fifth of each for judging;
            - "chat": running text of 471 senders, likewise;
            - "module:function": a user's own function, see `own.load_function`; the current folder's modules are found
              too. Floats and integers are taken as they are; uint8 are scaled to [0, 1], images of PIL among them;
            - "hf:NAME" or "hf:./folder": an image data set that `datasets.load_dataset` knows or can read, with the
              splits "train" and "test" (or "validation"). Needs the extra `hf`.
        cache: the cache folder; None is `fetch.cache_dir()`.
        tokenizer: of texts, one of `tokens.names()` or hf:NAME.
        length: tokens an example, of texts.
        options: keyword arguments of a user's own function.
        features: of texts with classes: the frozen encoder whose features [n, 384] the examples shall be.

    Raises:
        ConfigError: an unknown name.
        DataError: the data cannot be had, are damaged, or are not what they should be.
        MissingExtra: an optional dependency is needed.
    """
    if is_text(name):
        tokenizer = features if features is not None else tokenizer
        if tokenizer is None:
            raise ConfigError(
                f"`dataset` ({name!r}) is text, and nothing says how to cut it into tokens: set data.tokenizer to one "
                f"of {', '.join(tokens.names())}, or take a model that brings its own"
            )
        return load_text(text_datasets()[name], tokenizer, length, features, DerivedCache(cache))
    if features is not None:
        raise ConfigError(f"`features` ({features!r}) are made of text, and {name!r} is none; leave it out")
    entry = shipped_datasets().get(name)
    if isinstance(entry, ImageDataset):
        return entry.load(Path() if entry.archive is None else fetch(entry.archive, cache))
    if name.startswith("hf:") and len(name) > 3:
        return load_hub(name, cache)
    module, colon, function = name.partition(":")
    if colon and module and function:
        return load_function(name, options)
    raise ConfigError(
        f"`dataset` ({name!r}) is unknown; choose from {', '.join(names())}, or give `module:function` or `hf:NAME`"
    )


def is_text(name: str) -> bool:
    """Whether this is a data set of text that ships."""
    return name in text_datasets()
