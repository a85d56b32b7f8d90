"""How a file of this package declares the data set that it ships."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..source import Source
from ..text import Labelled, Spoken


@dataclass(frozen=True)
class ShippedDataset:
    """A data set that ships. A module of this package declares it as a global variable, and it is found by its name.

    Attributes:
        name: what `data.dataset` calls it.
        archive: the name of the `Archive` with its files; None: nothing is fetched.
    """

    name: str
    archive: str | None


@dataclass(frozen=True)
class ImageDataset(ShippedDataset):
    """Images or other numbers.

    Attributes:
        load: makes the data set from the folder of its files.
    """

    load: Callable[[Path], Source]


@dataclass(frozen=True)
class TextDataset(ShippedDataset):
    """Texts, which a tokenizer cuts.

    Attributes:
        read: reads the texts from the folder of their files.
        anonymous: whether there is neither owner nor time to know: cached tokens are then all that is needed.
    """

    archive: str
    read: Callable[[Path], Labelled | Spoken]
    anonymous: bool = False
