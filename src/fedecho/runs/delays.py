"""What a recorded run tells of its clients' delays, read from its folder without changing anything there."""

from __future__ import annotations

from ..core.errors import RecordError
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from statistics import fmean
from urllib.parse import quote
import contextlib
import sqlite3

RESTARTED = "server restarted"
"""Why a live run's tasks are lost that were in flight when its server went down: no fault of their clients."""


@dataclass
class RecordedDelays:
    """What became of one client's jobs, in seconds since each was dispatched.

    Attributes:
        answered_s: until the answer, accepted or refused. It holds the way there and back.
        waited_s: as long as a job was waited for that the server gave up itself (cancelled, or down with the server)
            or that was still at work at the end: it takes at least so long.
        lost_s: until the server heard that the job is lost.
    """

    answered_s: list[float] = field(default_factory=list)
    waited_s: list[float] = field(default_factory=list)
    lost_s: list[float] = field(default_factory=list)

    @property
    def times_s(self) -> list[float]:
        """Job times: the answers', and what was waited for longer than for any answer, as long as it was.

        Shorter waits say nothing that the answers do not; to leave out the long ones would make a client the faster
        the more often it hangs. Without an answer, the longest wait alone.
        """
        if not self.answered_s:
            return [max(self.waited_s)] if self.waited_s else []
        longest = max(self.answered_s)
        return [*self.answered_s, *(waited for waited in self.waited_s if waited > longest)]


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A run's records, to be read only.

    Raises:
        RecordError: when they cannot be.
    """
    file = path / "records.sqlite"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(file.resolve()))}?mode=ro", uri=True)) as db:
            yield db
    except sqlite3.DatabaseError as fault:
        raise RecordError(f"{file} cannot be read ({fault}); leave this run out") from None


def read(path: Path) -> dict[int, RecordedDelays]:
    """The jobs of every client that was given any, by client.

    A job ends when the server first hears of it (in the inbox), be it cancelled before or not.

    Raises:
        RecordError: when the records cannot be read.
    """
    with reading(path) as db:
        (last_s,) = db.execute(
            "select max(at_s) from (select at_s from inbox union all select at_s from events)"
        ).fetchone()
        cancelled = dict(db.execute("select task, at_s from events where kind = 'cancel'"))
        jobs = db.execute(
            "select began.task, began.client, began.at_s, heard.at_s, heard.kind, heard.reason from events began "
            "left join (select number, at_s, kind, reason, min(seq) from inbox "
            "where kind in ('arrived', 'rejected', 'lost') group by number) heard on heard.number = began.task "
            "where began.kind = 'dispatch' order by began.id"
        ).fetchall()
    found: dict[int, RecordedDelays] = {}
    for task, client, began_s, heard_s, kind, reason in jobs:
        its = found.setdefault(client, RecordedDelays())
        if kind is None:
            its.waited_s.append(cancelled.get(task, last_s) - began_s)
        elif kind == "lost":
            (its.waited_s if reason == RESTARTED else its.lost_s).append(heard_s - began_s)
        elif heard_s > began_s:  # a clock that was set back shows no time at all
            its.answered_s.append(heard_s - began_s)
    return found


def expected_s(jobs: Mapping[int, RecordedDelays]) -> dict[int, float]:
    """Every client's mean job time; without those that nothing is known of.

    A client that never answered is known where it was waited for longer than anybody else takes on average: it is
    taken to need as long as that.
    """
    means = {client: fmean(its.times_s) for client, its in jobs.items() if its.answered_s}
    slowest = max(means.values(), default=0.0)
    unheard = {client: max(its.times_s, default=0.0) for client, its in jobs.items() if not its.answered_s}
    return means | {client: waited for client, waited in unheard.items() if waited > slowest}
