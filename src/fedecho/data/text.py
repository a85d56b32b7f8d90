"""Texts: what a data set of text holds, and what the readers of several data sets share."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..core.errors import DataError
from ..core.keys import Key

LEAST_CHARACTERS = 2000
"""A role or a sender with fewer is no owner."""

SHARE = 0.8
"""Of an owner's text that is trained on; the rest, its last part, is kept for judging."""


@dataclass(frozen=True)
class Labelled:
    """Texts with a class each.

    Attributes:
        texts, labels: the train part.
        test_texts, test_labels: the test part.
        classes: what the labels mean.
        owners, test_owners: the owner of each text, an index of `who`; empty where owners are not known.
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
    """Running text by owner: (domain, owner) to text, and the part of it that is kept for judging.

    `hours`: when each owner is active, hours of the day (UTC); None where that is not known.
    """

    texts: Mapping[tuple[str, str], str]
    test_texts: Mapping[tuple[str, str], str]
    hours: Mapping[tuple[str, str], tuple[int, ...]] | None = None


def tables(folder: Path, name: str) -> Labelled:
    """The texts of `NAME-train.tab` and `NAME-test.tab`."""
    parts = {part: _table(folder / f"{name}-{part}.tab") for part in ("train", "test")}
    classes = tuple(sorted({group for group, _ in parts["train"]}))
    number = {group: place for place, group in enumerate(classes)}
    labels = {part: [number[group] for group, _ in rows] for part, rows in parts.items()}
    texts = {part: [text for _, text in rows] for part, rows in parts.items()}
    return Labelled(texts["train"], labels["train"], texts["test"], labels["test"], classes)


def _table(path: Path) -> list[tuple[str, str]]:
    """The rows (class, text) of an Orange table: three lines of header, then tab-separated values."""
    csv.field_size_limit(1 << 24)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(row[0], row[1]) for row in list(csv.reader(file, delimiter="\t"))[3:] if len(row) > 1 and row[0]]
    except (OSError, UnicodeDecodeError, IndexError, csv.Error) as error:
        raise DataError(f"{path} is damaged ({error}); delete its folder and load it again") from error
    if not rows:
        raise DataError(f"{path} is damaged (no row in it); delete its folder and load it again")
    return rows


def cut_for_judging(
    texts: Mapping[tuple[str, str], str], hours: Mapping[tuple[str, str], tuple[int, ...]] | None = None
) -> Spoken:
    """Each text's beginning to train on and its end to judge by, cut between two words."""
    cuts = {who: text.find(" ", int(SHARE * len(text))) for who, text in texts.items()}
    return Spoken(
        {who: text[: cuts[who]] for who, text in texts.items()},
        {who: text[cuts[who] :] for who, text in texts.items()},
        hours,
    )


def divided(
    name: str,
    texts: Sequence[str],
    labels: Sequence[int],
    classes: tuple[str, ...],
    owners: Sequence[int] = (),
    who: tuple[tuple[str, str], ...] = (),
) -> Labelled:
    """A fixed test part: every fifth of the texts in order of owner and class, of these in an order of chance."""
    order = Key(0).fold(name, "split").numpy().permutation(len(texts))
    owner_of = np.asarray(owners) if len(owners) else np.zeros(len(texts), dtype=np.int64)
    order = order[np.lexsort((np.asarray(labels)[order], owner_of[order]))]
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
