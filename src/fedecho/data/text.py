"""Text data sets, as texts: what they say, what it is about, and who said it."""

from __future__ import annotations

import csv
import json
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from ..core.errors import DataError
from ..core.keys import Key

SPEAKER = re.compile(r"[A-Z][A-Za-z'. ]{1,30}\.")
"""A line that names who speaks next, where an empty line comes before it."""


NO_SPEAKER = re.compile(r"(ACT|Act|SCENE|Scene)\b.*")


LEAST_CHARACTERS = 2000
"""Of a role or a sender, to be an owner."""


SHARE = 0.8
"""Of an owner's text that is trained on; the rest, its last part, is kept for judging."""


SHARD = 20
"""Texts of a shard, where a domain does not say whose they are."""


ACTIVE = 0.9
"""Of a sender's messages: its hours of activity are the fewest hours of the day that hold so many."""


@dataclass(frozen=True)
class Labelled:
    """Texts with a class each.

    Attributes:
        texts, labels: the train part.
        test_texts, test_labels: the test part.
        classes: what the labels mean.
        owners, test_owners: whose each text is, a place in `who`; empty where nobody is known.
        who: (domain, owner).
    """

    texts: list[str]
    labels: list[int]
    test_texts: list[str]
    test_labels: list[int]
    classes: tuple[str, ...]
    owners: list[int] = field(default_factory=list)
    test_owners: list[int] = field(default_factory=list)
    who: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Spoken:
    """Running text by who says it: (domain, owner) to text, and the part of it that judges.

    `hours`: when each owner is active, hours of the day (UTC); None where that is not known.
    """

    texts: Mapping[tuple[str, str], str]
    test_texts: Mapping[tuple[str, str], str]
    hours: Mapping[tuple[str, str], tuple[int, ...]] | None = None


def newsgroups(folder: Path) -> Labelled:
    """20 Newsgroups, 11,293 + 7,528 posts, its own split by date. The packager left lower-case words alone: no digits,
    no punctuation, no capitals."""
    return _tables(folder, "20newsgroups")


def reuters(topics: str, folder: Path) -> Labelled:
    """Reuters-21578, stories of the newswire in 1987 with one topic each, the "ModApte" split: the 8 most frequent
    topics ("r8") or all 52 ("r52"). Lower-case words alone, too."""
    return _tables(folder, f"reuters-{topics}")


def _tables(folder: Path, name: str) -> Labelled:
    parts = {part: _table(folder / f"{name}-{part}.tab") for part in ("train", "test")}
    classes = tuple(sorted({group for group, _ in parts["train"]}))
    number = {group: place for place, group in enumerate(classes)}
    labels = {part: [number[group] for group, _ in found] for part, found in parts.items()}
    texts = {part: [text for _, text in found] for part, found in parts.items()}
    return Labelled(texts["train"], labels["train"], texts["test"], labels["test"], classes)


def _table(path: Path) -> list[tuple[str, str]]:
    """The rows (class, text) of an Orange table: three lines of header, then tab-separated values."""
    csv.field_size_limit(1 << 24)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            found = [(row[0], row[1]) for row in list(csv.reader(file, delimiter="\t"))[3:] if len(row) > 1 and row[0]]
    except (OSError, UnicodeDecodeError, IndexError, csv.Error) as error:
        raise DataError(f"{path} is damaged ({error}); delete its folder and load it again") from error
    if not found:
        raise DataError(f"{path} is damaged (no row in it); delete its folder and load it again")
    return found


def shakespeare(folder: Path) -> Spoken:
    """The roles of Shakespeare's plays: what each says, speech after speech, without stage directions.

    A role counts with LEAST_CHARACTERS characters or more. Its last fifth is the test part. The domain is the play.
    """
    texts: dict[tuple[str, str], str] = {}
    for path in sorted(folder.glob("*_gut.txt")):
        try:
            spoken = _roles(path.read_text(encoding="utf-8", errors="replace"))
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error}); delete its folder and load it again") from error
        play = path.name.removesuffix("_gut.txt")
        if len(spoken) >= 3:  # else poems
            texts |= {(play, role): text for role, text in sorted(spoken.items()) if len(text) >= LEAST_CHARACTERS}
    if not texts:
        raise DataError(f"{folder} holds no play; delete it and load it again")
    return _cut(texts)


def _cut(
    texts: Mapping[tuple[str, str], str], hours: Mapping[tuple[str, str], tuple[int, ...]] | None = None
) -> Spoken:
    """Each text's beginning to train on and its end to judge by, cut between two words."""
    cuts = {who: text.find(" ", int(SHARE * len(text))) for who, text in texts.items()}
    return Spoken(
        {who: text[: cuts[who]] for who, text in texts.items()},
        {who: text[cuts[who] :] for who, text in texts.items()},
        hours,
    )


def _roles(play: str) -> dict[str, str]:
    """Each role's speeches in order. Before the first act there is only who is who."""
    start = re.search(r"^ACT\b.*$", play, flags=re.MULTILINE)
    lines = play[start.start() if start else 0 :].splitlines()
    speeches: dict[str, list[str]] = {}
    role, before = None, ""
    for line in lines:
        words = line.strip()
        if SPEAKER.fullmatch(words) and not before.strip() and not NO_SPEAKER.fullmatch(words):
            role = words[:-1].upper()
            speeches.setdefault(role, []).append("")
        elif NO_SPEAKER.fullmatch(words):
            role = None
        elif role is not None:
            speeches[role][-1] += line.rstrip() + "\n"
        before = line
    texts = {role: "\n".join(_spoken(speech) for speech in said) for role, said in speeches.items() if len(said) > 2}
    return {role: re.sub(r"\n{2,}", "\n\n", text).strip() for role, text in texts.items()}


def _spoken(speech: str) -> str:
    """Without stage directions, which stand in brackets."""
    return re.sub(r"\[[^\]]*\]?", "", speech).strip() + "\n"


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
    return _divided("bbc_news", list(rows), labels, classes)


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


DOMAINS = {"amazon": "amazonReviewSnippets", "movies": "movieReviewSnippets"}


DOMAINS |= {"nyt": "nytEditorialSnippets", "tweets": "tweets"}


def sentiment(folder: Path) -> Labelled:
    """Sentences of four domains, rated by people (Hutto & Gilbert 2014): 3,708 of 300 Amazon reviews, 10,605 of film
    reviews, 5,190 of 498 New York Times editorials, 4,200 tweets. The class is whether the mean rating is above 0.

    Owners are reviews and editorials. Films' sentences and tweets come without their sources: their owners are shards
    of SHARD sentences that follow each other, which is ours. A fixed fifth of the sentences, of each owner alike as far
    as that goes, is the test part.
    """
    texts: list[str] = []
    labels: list[int] = []
    whose: list[tuple[str, str]] = []
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
                        whose.append((domain, source if inside else f"shard {row // SHARD + 1}"))
    except (OSError, EOFError, KeyError, ValueError, tarfile.TarError) as error:
        raise DataError(f"{folder} is damaged ({error}); delete it and load it again") from error
    who = tuple(dict.fromkeys(whose))
    number_of = {owner: place for place, owner in enumerate(who)}
    owners = [number_of[owner] for owner in whose]
    return _divided("sentiment", texts, labels, ("negative", "positive"), owners, who)


def _divided(
    name: str,
    texts: Sequence[str],
    labels: Sequence[int],
    classes: tuple[str, ...],
    owners: Sequence[int] = (),
    who: tuple[tuple[str, str], ...] = (),
) -> Labelled:
    """A fixed test part: every fifth of the texts in order of owner and class, of these in an order of chance."""
    order = Key(0).fold(name, "split").numpy().permutation(len(texts))
    whose = np.asarray(owners) if len(owners) else np.zeros(len(texts), dtype=np.int64)
    order = order[np.lexsort((np.asarray(labels)[order], whose[order]))]
    test = np.sort(order[::5]).tolist()
    train = np.setdiff1d(order, test).tolist()
    return Labelled(
        [texts[i] for i in train],
        [labels[i] for i in train],
        [texts[i] for i in test],
        [labels[i] for i in test],
        classes,
        [owners[i] for i in train] if len(owners) else [],
        [owners[i] for i in test] if len(owners) else [],
        who,
    )


def chat(folder: Path) -> Spoken:
    """The Chit-Chat Challenge (Myers, Etchart & Fulda 2020): messages of real people, a line each, by sender and in
    order of time. A sender counts with LEAST_CHARACTERS characters or more. There is one domain.

    A sender's hours are those at which it really wrote, in UTC: the fewest hours of the day that hold the share ACTIVE
    of its messages. That it could have trained a model at these hours, and at no others, is an assumption.
    """
    try:
        talks = json.loads((folder / "dataset.json").read_bytes())
        messages = [message for talk in talks.values() for turn in talk["messages"] for message in turn]
        said: dict[str, list[tuple[str, str]]] = {}
        for message in messages:
            said.setdefault(str(message["sender"]), []).append((str(message["timestamp"]), str(message["text"])))
        texts, hours = {}, {}
        for sender in sorted(said):
            text = "\n".join(" ".join(words.split()) for _, words in sorted(said[sender], key=lambda pair: pair[0]))
            if len(text) >= LEAST_CHARACTERS:
                texts["", sender] = text
                hours["", sender] = _active(Counter(int(when[11:13]) for when, _ in said[sender]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{folder / 'dataset.json'} is damaged ({error}); delete its folder, load it again") from error
    return _cut(texts, hours)


def _active(counts: Mapping[int, int]) -> tuple[int, ...]:
    """The fewest hours that hold the share ACTIVE of what is counted by hour, sorted; of equals the earlier."""
    chosen: list[int] = []
    for hour in sorted(counts, key=lambda hour: (-counts[hour], hour)):
        if sum(counts[h] for h in chosen) >= ACTIVE * sum(counts.values()):
            break
        chosen.append(hour)
    return tuple(sorted(chosen))


READERS: dict[str, tuple[str, Callable[[Path], Labelled | Spoken]]] = {
    "bbc_news": ("bbc_news", bbc_news),
    "chat": ("chat", chat),
    "imdb": ("imdb", imdb),
    "newsgroups": ("newsgroups", newsgroups),
    "reuters_r8": ("reuters", partial(reuters, "r8")),
    "reuters_r52": ("reuters", partial(reuters, "r52")),
    "sentiment": ("sentiment", sentiment),
    "shakespeare": ("shakespeare", shakespeare),
}
"""The data sets of text: what is fetched, and what reads it."""
