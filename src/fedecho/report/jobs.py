"""The single jobs of one run, for the timeline."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ..runs.database import reading

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


def read_jobs(path: Path, until_s: float = math.inf) -> tuple[list[Job], float]:
    """The jobs that began before `until_s`, in order, and the time of the last event.

    Raises:
        RecordError: where the records cannot be read.
    """
    with reading(path) as db:
        (last_s,) = db.execute("select max(at_s) from events").fetchone()
        dispatched = db.execute(
            "select task, client, at_s from events where kind = 'dispatch' and at_s < ? order by id",
            (min(until_s, 1e300),),
        ).fetchall()
        reason = "case when json_valid(detail) then json_extract(detail, '$.reason') end"
        ended = db.execute(
            f"select task, at_s, kind, staleness, {reason} from events "
            f"where kind in {ENDS} and task is not null order by id desc"
        ).fetchall()
    endings = {task: rest for task, *rest in ended}  # the first of a task's ends stays
    jobs = []
    for task, client, begins_s in dispatched:
        ends_s, how, staleness, why = endings.get(task, (last_s, "at work", None, ""))
        jobs.append(Job(client, begins_s, ends_s, how, staleness, str(why or "")))
    return jobs, float(last_s or 0.0)
