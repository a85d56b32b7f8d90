"""Text data sets, as texts: what they say, what it is about, and who said it."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedecho.errors import DataError

SPEAKER = re.compile(r"[A-Z][A-Za-z'. ]{1,30}\.")
"""A line that names who speaks next, where an empty line comes before it."""
NO_SPEAKER = re.compile(r"(ACT|Act|SCENE|Scene)\b.*")
LEAST_CHARACTERS = 2000
"""Of a role, to be a client."""
SHARE = 0.8
"""Of a role's text that is trained on; the rest, its last part, is kept for judging."""


@dataclass(frozen=True)
class Labelled:
    """Texts with a class each."""

    texts: list[str]
    labels: list[int]
    test_texts: list[str]
    test_labels: list[int]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Spoken:
    """Running text by who says it: (domain, owner) to text, and the part of it that judges."""

    texts: Mapping[tuple[str, str], str]
    test_texts: Mapping[tuple[str, str], str]


def newsgroups(folder: Path) -> Labelled:
    """20 Newsgroups, 11,293 + 7,528 posts, its own split by date. The packager left lower-case words alone: no digits,
    no punctuation, no capitals."""
    parts = {part: _table(folder / f"20newsgroups-{part}.tab") for part in ("train", "test")}
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
            found = [(row[0], row[1]) for row in list(csv.reader(file, delimiter="\t"))[3:] if len(row) > 1]
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
    cuts = {who: text.find(" ", int(SHARE * len(text))) for who, text in texts.items()}
    return Spoken(
        {who: text[: cuts[who]] for who, text in texts.items()}, {who: text[cuts[who] :] for who, text in texts.items()}
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
