"""What the tests of the Flower strategies share: reading the records, and answers that are changed on their way."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, Message


def rows(folder: Path, statement: str) -> list[tuple[Any, ...]]:
    """The rows that a statement selects from a run's records."""
    with closing(sqlite3.connect(folder / "records.sqlite")) as database:
        return database.execute(statement).fetchall()


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The events of a kind, with what their detail holds."""
    selected = rows(
        folder, f"select client, task, version, staleness, detail from events where kind = '{kind}' order by id"
    )
    names = ("client", "task", "version", "staleness")
    return [{**dict(zip(names, row[:4], strict=True)), **json.loads(row[4] or "{}")} for row in selected]


def assert_equal(one: ArrayRecord, two: ArrayRecord) -> None:
    """The same arrays to the bit."""
    assert list(one) == list(two)
    for name in one:
        assert (one[name].numpy() == two[name].numpy()).all(), name


Change = Callable[[int, int, Message], Message]


def at(change: Callable[[Message], None], node: int = 0, job: int | None = 0) -> Change:
    """Change the answer of one node's job (None: of all its jobs)."""

    def on_its_way(number: int, count: int, reply: Message) -> Message:
        if number == node and job in (None, count) and not reply.has_error():
            change(reply)
        return reply

    return on_its_way
