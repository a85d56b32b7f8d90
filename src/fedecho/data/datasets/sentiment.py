"""Sentences of four domains, rated by people."""

from __future__ import annotations

import tarfile
from pathlib import Path

from ...core.errors import DataError
from ..archive import Archive
from ..text import Labelled, divided
from .base import TextDataset

ARCHIVE = Archive(
    "pip",
    "vaderSentiment==3.3.2",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    r"vaderSentiment-3\.3\.2/additional_resources/hutto_ICWSM_2014\.tar\.gz",
    1,
    built=False,
    name="sentiment",
)

SHARD = 20
"""Texts of a shard, where the owners of a domain's texts are not known."""

DOMAINS = {
    "amazon": "amazonReviewSnippets",
    "movies": "movieReviewSnippets",
    "nyt": "nytEditorialSnippets",
    "tweets": "tweets",
}
"""Each domain's file."""


def sentiment(folder: Path) -> Labelled:
    """Sentences of four domains, rated by people (Hutto & Gilbert 2014): 3,708 of 300 Amazon reviews, 10,605 of film
    reviews, 5,190 of 498 New York Times editorials, 4,200 tweets. The class is whether the mean rating is above 0.

    Owners are reviews and editorials. Films' sentences and tweets come without their sources: their owners are shards
    of SHARD sentences that follow each other, a choice of ours. A fixed fifth of the sentences, of each owner alike as
    far as that goes, is the test part.
    """
    texts: list[str] = []
    labels: list[int] = []
    owner_names: list[tuple[str, str]] = []
    try:
        with tarfile.open(folder / "hutto_ICWSM_2014.tar.gz") as tar:
            for domain, name in DOMAINS.items():
                file = tar.extractfile(f"hutto_ICWSM_2014/{name}_GroundTruth.txt")
                assert file is not None
                for row, line in enumerate(file.read().decode("latin-1").split("\n")):
                    if line.strip():
                        number, score, sentence = line.rstrip("\r").split("\t")
                        source, inside, _ = number.rpartition("_")
                        texts.append(sentence.strip())
                        labels.append(int(float(score) > 0))
                        owner_names.append((domain, source if inside else f"shard {row // SHARD + 1}"))
    except (OSError, EOFError, KeyError, ValueError, tarfile.TarError) as error:
        raise DataError(f"{folder} is damaged ({error}); delete it and load it again") from error
    who = tuple(dict.fromkeys(owner_names))
    number_of = {owner: place for place, owner in enumerate(who)}
    owners = [number_of[owner] for owner in owner_names]
    return divided("sentiment", texts, labels, ("negative", "positive"), owners, who)


DATASET = TextDataset("sentiment", "sentiment", sentiment)
