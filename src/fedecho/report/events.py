"""What the figures need of one run's events, read from its folder without changing anything there."""

from __future__ import annotations

import dataclasses
import json
import math
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import FedechoError
from ..core.keys import Key
from ..runs import delays
from ..runs.database import reading
from ..simulation.build import build
from ..simulation.groups import ranked
from ..simulation.settings import GROUPS
from ..studies.runs import Run
from .clients import ClientTotals, Refusals, client_totals, endings
from .style import POINTS

CLASSES = (*GROUPS, "unknown")
"""Speed classes. Unknown is that of a live run's client of which not enough was heard."""


@dataclass(frozen=True)
class Share:
    """What the clients of one speed class gave: how many they are, their accepted updates, and how those were."""

    clients: int
    updates: int
    waited_s: float | None
    staleness: float | None


@dataclass(frozen=True)
class RunEvents:
    """One run's events, condensed.

    Attributes:
        clients: how many there ever were.
        groups: the speed class of every client; empty where it cannot be had, or nobody is slower than anybody.
        staleness: accepted updates by staleness.
        shares: by speed class.
        totals: by client, for clients that ever answered or failed.
        norms: [k, 3]: updates so far, median and largest norm of the changes accepted since the row before.
        stage_values: by "stage.quantity": [k, 2] updates so far, value; at most `POINTS` of them.
        refused: refused updates, by kind and reason.
        lost: lost tasks, by kind and reason.
        continuations: of a language model: time in seconds, beginning, what the model wrote.
    """

    clients: int
    groups: tuple[str, ...]
    staleness: dict[int, int]
    shares: dict[str, Share]
    totals: dict[int, ClientTotals] = field(default_factory=dict)
    norms: list[tuple[float, float, float]] = field(default_factory=list)
    stage_values: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    refused: Refusals = field(default_factory=dict)
    lost: Refusals = field(default_factory=dict)
    continuations: list[tuple[float, str, str]] = field(default_factory=list)


def read(run: Run) -> RunEvents:
    """Everything but the single jobs.

    Raises:
        RecordError: where the records cannot be read.
    """
    with reading(run.path) as db:
        (last_client,) = db.execute("select max(client) from events where kind in ('join', 'dispatch')").fetchone()
        accepted = db.execute(
            f"select client, staleness, {_detail('change_norm')}, {_detail('waited_s')} "
            "from events where kind = 'accept' order by id"
        ).fetchall()
        stages = db.execute(
            "select detail, updates from (select id, kind, detail, sum(kind = 'accept') over (order by id) as updates "
            "from events) where kind = 'stage' order by id"
        ).fetchall()
        totals = client_totals(db)
        refused, lost = endings(db, "refuse"), endings(db, "lost")
        continuations = _continuations(db)
    clients = 1 + (-1 if last_client is None else int(last_client))
    if run.live:
        classes = ranked_groups(run.path, clients)
    else:
        clients = int(run.setting("data", "clients", clients))
        classes = drawn_groups(run)
    counts: dict[int, int] = {}
    for _, staleness, *_ in accepted:
        counts[int(staleness or 0)] = counts.get(int(staleness or 0), 0) + 1
    return RunEvents(
        clients=clients,
        groups=classes,
        staleness=dict(sorted(counts.items())),
        shares=_shares(classes, accepted),
        totals=totals,
        norms=_norms([row[2] for row in accepted]),
        stage_values=_stage_values(stages),
        refused=refused,
        lost=lost,
        continuations=continuations,
    )


def drawn_groups(run: Run) -> tuple[str, ...]:
    """The speed class of every client, as drawn for the run; nothing where the population cannot be built here."""
    try:
        config = run.config
    except FedechoError:  # a class of the user's that cannot be imported here
        return ()
    settings = {f.name: getattr(config.population, f.name) for f in dataclasses.fields(config.population)}
    try:
        return build(config.data.clients, Key(config.experiment.seed), **settings).groups
    except FedechoError:  # a trace or a recorded run that is on another machine
        return ()


def ranked_groups(path: Path, clients: int) -> tuple[str, ...]:
    """The speed class of every client of a live run, by the rank of its mean job time."""
    expected_s = delays.expected_s(delays.read(path))
    ranks = ranked(list(expected_s.values())) if expected_s else []
    known = dict(zip(expected_s, ranks, strict=True))
    return tuple(known.get(client, "unknown") for client in range(clients)) if len(set(ranks)) > 1 else ()


def _detail(name: str) -> str:
    return f"case when json_valid(detail) then json_extract(detail, '$.{name}') end"


def _continuations(db: sqlite3.Connection) -> list[tuple[float, str, str]]:
    if db.execute("select 1 from sqlite_master where name = 'continuations'").fetchone() is None:
        return []  # a folder of an earlier version
    rows = db.execute("select virtual_time_s, prompt, text from continuations order by rowid")
    return [(float(at_s), str(prompt), str(text)) for at_s, prompt, text in rows]


def _shares(classes: tuple[str, ...], accepted: list[tuple[Any, ...]]) -> dict[str, Share]:
    shares = {}
    for group in CLASSES:
        members = {client for client, name in enumerate(classes) if name == group}
        if not members:
            continue
        rows = [row for row in accepted if row[0] in members]
        waited = [row[3] for row in rows if row[3] is not None]
        shares[group] = Share(
            clients=len(members),
            updates=len(rows),
            waited_s=float(np.median(waited)) if waited else None,
            staleness=float(np.mean([row[1] or 0 for row in rows])) if rows else None,
        )
    return shares


def _norms(values: list[float | None]) -> list[tuple[float, float, float]]:
    if not values or all(value is None for value in values):
        return []
    norms = []
    parts = min(POINTS // 2, max(len(values) // 10, min(len(values), 10)))
    for part in np.array_split(np.arange(len(values)), parts):
        known = [float(value) for i in part if (value := values[i]) is not None]
        if known:
            norms.append((float(part[-1] + 1), float(np.median(known)), max(known)))
    return norms


def _stage_values(rows: list[tuple[str, int]]) -> dict[str, list[tuple[float, float]]]:
    lines: dict[str, list[tuple[float, float]]] = {}
    for text, updates in rows:
        detail: Mapping[str, Any] = json.loads(text) if text else {}
        stage = str(detail.get("stage", "stage"))
        for name, value in detail.items():
            if name != "stage" and isinstance(value, int | float) and math.isfinite(value):
                lines.setdefault(f"{stage}.{name}", []).append((float(updates), float(value)))
    return {name: _averaged(line) for name, line in lines.items()}


def _averaged(line: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most POINTS points, each the mean of its neighbours."""
    if len(line) <= POINTS:
        return line
    return [(float(part[-1][0]), float(part[:, 1].mean())) for part in np.array_split(np.array(line), POINTS)]
