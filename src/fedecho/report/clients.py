"""What each client of one run gave, and what became of the rest: read from the run's events."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Refusals: TypeAlias = dict[tuple[str, str], int]
"""By (kind, reason), how many; the kind is "" where the record names none."""

_KIND = "case when json_valid(detail) then coalesce(json_extract(detail, '$.kind'), '') else '' end"
_REASON = "case when json_valid(detail) then coalesce(json_extract(detail, '$.reason'), '') else '' end"


@dataclass
class ClientTotals:
    """One client over a whole run.

    Attributes:
        accepted: its accepted updates.
        staleness: their mean staleness, in versions.
        loss: mean of their training losses.
        examples: the number of examples it said it trained on, last.
        refused: its refused answers, by kind (by reason, where the record names no kind).
        lost: its lost tasks.
        judged: what it found when it evaluated, last, by name.
    """

    accepted: int = 0
    staleness: float | None = None
    loss: float | None = None
    examples: int | None = None
    refused: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    judged: dict[str, float] = field(default_factory=dict)


def endings(db: sqlite3.Connection, ending: str) -> Refusals:
    """How often answers were refused (`ending` "refuse") or tasks lost ("lost"), the most frequent reason first."""
    rows = db.execute(
        f"select {_KIND}, {_REASON}, count(*) from events where kind = ? group by 1, 2 order by 3 desc, 1, 2", (ending,)
    )
    return {(str(kind), str(reason)): int(count) for kind, reason, count in rows}


def client_totals(db: sqlite3.Connection) -> dict[int, ClientTotals]:
    """By client number, for every client of which an update was accepted, refused or lost."""
    totals: dict[int, ClientTotals] = {}

    def of(client: int) -> ClientTotals:
        return totals.setdefault(int(client), ClientTotals())

    loss = "case when json_valid(detail) then json_extract(detail, '$.loss') end"
    examples = "case when json_valid(detail) then json_extract(detail, '$.num_examples') end"
    rows = db.execute(
        f"select client, count(*), avg(staleness), avg({loss}), max({examples}) from events "
        "where kind = 'accept' and client is not null group by client order by client"
    )
    for client, count, staleness, mean_loss, most_examples in rows:
        one = of(client)
        one.accepted, one.staleness, one.loss = int(count), staleness, mean_loss
        one.examples = int(most_examples) if isinstance(most_examples, int | float) else None
    rows = db.execute(
        f"select client, kind, coalesce(nullif({_KIND}, ''), {_REASON}), count(*) from events "
        "where kind in ('refuse', 'lost') and client is not null group by 1, 2, 3 order by 4 desc"
    )
    for client, ending, kind, count in rows:
        if ending == "lost":
            of(client).lost += int(count)
        else:
            of(client).refused[str(kind)] = int(count)
    _add_judged(db, totals)
    return totals


def _add_judged(db: sqlite3.Connection, totals: dict[int, ClientTotals]) -> None:
    """On a live federation, what clients found who evaluated: a node's name leads to its client."""
    rows = db.execute("select detail from events where kind = 'evaluate' order by id").fetchall()
    if not rows:
        return
    joined = db.execute("select reason, number from inbox where kind = 'joined' order by seq")
    clients = {str(name): int(number) for name, number in joined}
    for (text,) in rows:
        detail = _read(text)
        client = clients.get(str(detail.get("node", "")))
        if client is not None:
            numbers = {name: float(value) for name, value in detail.items() if isinstance(value, int | float)}
            totals.setdefault(client, ClientTotals()).judged.update(numbers)


def _read(text: str | None) -> Mapping[str, Any]:
    try:
        detail = json.loads(text) if text else {}
    except ValueError:
        return {}
    return detail if isinstance(detail, dict) else {}
