"""The Chit-Chat Challenge: messages of real people to each other."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from ...core.errors import DataError
from ..archive import Archive
from ..text import LEAST_CHARACTERS, Spoken, cut_for_judging
from .base import TextDataset

ARCHIVE = Archive(
    "pip",
    "chitchat-dataset==0.9.0",
    "7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e",
    r"chitchat_dataset/dataset\.json",
    1,
    name="chat",
)

ACTIVE = 0.9
"""Share of a sender's messages: its hours of activity are the fewest hours of the day that hold so many."""


def chat(folder: Path) -> Spoken:
    """The Chit-Chat Challenge (Myers, Etchart & Fulda 2020): messages of real people, a line each, by sender and in
    order of time. A sender counts with LEAST_CHARACTERS characters or more. There is one domain.

    A sender's hours are those at which it really wrote, in UTC: the fewest hours of the day that hold the share ACTIVE
    of its messages. That it could have trained a model at these hours, and at no others, is an assumption.
    """
    try:
        talks = json.loads((folder / "dataset.json").read_bytes())
        messages = [message for talk in talks.values() for turn in talk["messages"] for message in turn]
        sent: dict[str, list[tuple[str, str]]] = {}
        for message in messages:
            sent.setdefault(str(message["sender"]), []).append((str(message["timestamp"]), str(message["text"])))
        texts, hours = {}, {}
        for sender in sorted(sent):
            text = "\n".join(" ".join(words.split()) for _, words in sorted(sent[sender], key=lambda pair: pair[0]))
            if len(text) >= LEAST_CHARACTERS:
                texts["", sender] = text
                hours["", sender] = active_hours(Counter(int(when[11:13]) for when, _ in sent[sender]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{folder / 'dataset.json'} is damaged ({error}); delete its folder, load it again") from error
    return cut_for_judging(texts, hours)


def active_hours(counts: Mapping[int, int]) -> tuple[int, ...]:
    """The fewest hours that hold the share ACTIVE of what is counted by hour, sorted; of equals the earlier."""
    chosen: list[int] = []
    for hour in sorted(counts, key=lambda hour: (-counts[hour], hour)):
        if sum(counts[h] for h in chosen) >= ACTIVE * sum(counts.values()):
            break
        chosen.append(hour)
    return tuple(sorted(chosen))


DATASET = TextDataset("chat", "chat", chat)
