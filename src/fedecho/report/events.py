"""What the figures need of one run's events, read from its folder without changing anything there."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..config.config import Config
from ..core.errors import FedechoError
from ..core.keys import Key
from ..runs import delays as observed
from ..runs.delays import reading
from ..simulation.build import build
from ..simulation.groups import ranked
from ..simulation.settings import GROUPS

CLASSES = (*GROUPS, "unknown")
"""Speed classes. Unknown is that of a live run's client of which not enough was heard."""


ENDS = ("accept", "refuse", "lost", "cancel")
"""How a job can end."""


@dataclass(frozen=True)
class Job:
    """One job, from its dispatch to its end; `how` is one of ENDS, or "at work" where it had none."""

    client: int
    begins_s: float
    ends_s: float
    how: str
    staleness: int | None
    reason: str


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
        norms: [k, 3]: updates so far, median and largest norm of the changes accepted since the row before.
        refined: by "stage.quantity": [k, 2] updates so far, value; at most `POINTS` of them.
        refused: refused updates by reason.
        lost: lost tasks by reason.
        texts: of a language model whose continuations were kept: virtual time, beginning, what the model wrote.
    """

    clients: int
    groups: tuple[str, ...]
    staleness: dict[int, int]
    shares: dict[str, Share]
    norms: list[tuple[float, float, float]] = field(default_factory=list)
    refined: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    texts: list[tuple[float, str, str]] = field(default_factory=list)


POINTS = 120
"""At most so many points of a run's line are drawn."""


def drawn_groups(config: Config) -> tuple[str, ...]:
    """The speed class of every client, as drawn for the run; nothing where the population cannot be built here."""
    settings = {f.name: getattr(config.population, f.name) for f in dataclasses.fields(config.population)}
    try:
        return build(config.data.clients, Key(config.experiment.seed), **settings).groups
    except FedechoError:  # a trace or a recorded run that is on another machine
        return ()


def ranked_groups(path: Path, clients: int) -> tuple[str, ...]:
    """The speed class of every client of a live run, by the rank of its mean job time."""
    expected_s = observed.expected_s(observed.read(path))
    ranks = ranked(list(expected_s.values())) if expected_s else []
    known = dict(zip(expected_s, ranks, strict=True))
    return tuple(known.get(client, "unknown") for client in range(clients)) if len(set(ranks)) > 1 else ()


def read(path: Path, config: Config) -> RunEvents:
    """Everything but the single jobs."""
    norm = "case when json_valid(detail) then json_extract(detail, '$.change_norm') end"
    waited = "case when json_valid(detail) then json_extract(detail, '$.waited_s') end"
    with reading(path) as db:
        (last_client,) = db.execute("select max(client) from events where kind in ('join', 'dispatch')").fetchone()
        accepted = db.execute(
            f"select client, staleness, {norm}, {waited} from events where kind = 'accept' order by id"
        ).fetchall()
        refined = db.execute(
            "select detail, updates from (select id, kind, detail, sum(kind = 'accept') over (order by id) as updates "
            "from events) where kind = 'stage' order by id"
        ).fetchall()
        ended = db.execute(
            "select kind, case when json_valid(detail) then json_extract(detail, '$.reason') end, count(*) "
            "from events where kind in ('refuse', 'lost') group by 1, 2 order by 3 desc"
        ).fetchall()
        there = db.execute("select 1 from sqlite_master where name = 'continuations'").fetchone()  # not in old folders
        wrote = "select virtual_time_s, prompt, text from continuations order by rowid"
        texts = db.execute(wrote).fetchall() if there else []
    simulated = config.transport.name == "simulated"
    clients = config.data.clients if simulated else 1 + (-1 if last_client is None else int(last_client))
    classes = drawn_groups(config) if simulated else ranked_groups(path, clients)
    counts: dict[int, int] = {}
    for _, staleness, *_ in accepted:
        counts[int(staleness or 0)] = counts.get(int(staleness or 0), 0) + 1
    return RunEvents(
        clients,
        classes,
        dict(sorted(counts.items())),
        _shares(classes, accepted),
        _norms([row[2] for row in accepted]),
        _refined(refined),
        {str(reason): n for kind, reason, n in ended if kind == "refuse"},
        {str(reason): n for kind, reason, n in ended if kind == "lost"},
        [(float(at_s), str(prompt), str(text)) for at_s, prompt, text in texts],
    )


def jobs(path: Path, until_s: float = math.inf) -> tuple[list[Job], float]:
    """The jobs that began before `until_s`, in order, and the time of the last event."""
    with reading(path) as db:
        (last_s,) = db.execute("select max(at_s) from events").fetchone()
        begun = db.execute(
            "select task, client, at_s from events where kind = 'dispatch' and at_s < ? order by id",
            (min(until_s, 1e300),),
        ).fetchall()
        reason = "case when json_valid(detail) then json_extract(detail, '$.reason') end"
        over = db.execute(
            f"select task, at_s, kind, staleness, {reason} from events "
            f"where kind in {ENDS} and task is not null order by id desc"
        ).fetchall()
    ends = {task: rest for task, *rest in over}  # the first of a task's ends stays
    found = []
    for task, client, begins_s in begun:
        ends_s, how, staleness, why = ends.get(task, (last_s, "at work", None, ""))
        found.append(Job(client, begins_s, ends_s, how, staleness, why or ""))
    return found, float(last_s or 0.0)


def _shares(classes: tuple[str, ...], accepted: list[tuple[Any, ...]]) -> dict[str, Share]:
    found = {}
    for group in CLASSES:
        members = {client for client, name in enumerate(classes) if name == group}
        theirs = [row for row in accepted if row[0] in members]
        waited = [row[3] for row in theirs if row[3] is not None]
        if members:
            found[group] = Share(
                len(members),
                len(theirs),
                float(np.median(waited)) if waited else None,
                float(np.mean([row[1] or 0 for row in theirs])) if theirs else None,
            )
    return found


def _norms(values: list[float | None]) -> list[tuple[float, float, float]]:
    if not values or all(value is None for value in values):
        return []
    found = []
    parts = min(POINTS // 2, max(len(values) // 10, min(len(values), 10)))
    for part in np.array_split(np.arange(len(values)), parts):
        known = [float(values[i]) for i in part if values[i] is not None]
        if known:
            found.append((float(part[-1] + 1), float(np.median(known)), max(known)))
    return found


def _refined(rows: list[tuple[str, int]]) -> dict[str, list[tuple[float, float]]]:
    lines: dict[str, list[tuple[float, float]]] = {}
    for text, updates in rows:
        detail = json.loads(text) if text else {}
        stage = str(detail.pop("stage", "stage"))
        for name, value in detail.items():
            if isinstance(value, int | float) and math.isfinite(value):
                lines.setdefault(f"{stage}.{name}", []).append((float(updates), float(value)))
    return {name: _thinned(line) for name, line in lines.items()}


def _thinned(line: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most POINTS points, each the mean of its neighbours."""
    if len(line) <= POINTS:
        return line
    return [(float(part[-1][0]), float(part[:, 1].mean())) for part in np.array_split(np.array(line), POINTS)]
