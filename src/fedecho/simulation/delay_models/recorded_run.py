"""Job times and losses as in a recorded run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from ...core.errors import ConfigError, RecordError
from ...core.keys import Key
from ...runs import delays as recorded
from ...runs.delays import RecordedDelays
from ..job_times import Empirical, JobTimes, Losses, ScaledEmpirical
from .base import ClientDelays, DelayModel

ENOUGH_JOBS: Final = 5
"""A client with so many recorded jobs or more gets its own times; one with fewer its own mean and others' spread."""


@dataclass(frozen=True)
class RecordedRunDelays(DelayModel):
    """The delays of a recorded run, live or simulated; a configuration may also say `from = "RUN_DIR"`.

    A client is the recorded client of its number, or one drawn at random where that run had fewer. One with at least 5
    recorded jobs takes one of their times, drawn at random. One with fewer keeps its own mean, and its jobs vary around
    it as those of the others do. A job that the server gave up, or that was still at work at the end, takes at least so
    long: it counts as that long where no answer of its client took longer. A client that never answered is like one
    drawn from those that on average take at least as long as it was waited for, and takes just that long where nobody
    does. Jobs are lost as often as they were (each client as if it had had one more, of the federation's average), and
    the server hears of it after as long; those that went down with the server do not count. The times include the
    network as it was. When clients came and went is not fitted: all are always there.

    Attributes:
        path: the run's folder.
    """

    name: ClassVar[str] = "run"
    argument: ClassVar[str] = "RUN_DIR"

    path: str = ""

    def delays(self, clients: int, key: Key) -> ClientDelays:
        remedy = "give the folder of a recorded run after `run:`"
        folder = Path(self.path)
        if not folder.is_dir():
            raise ConfigError(f"[population] there is no folder at {self.path!r}: {remedy}")
        if not all((folder / name).is_file() for name in ("config.toml", "records.sqlite")):
            raise ConfigError(
                f"[population] {self.path} is no run's folder (it lacks config.toml or records.sqlite): {remedy}"
            )
        try:
            jobs = recorded.read(folder)
        except RecordError as error:
            raise ConfigError(str(error)) from None
        if not any(own.answered_s for own in jobs.values()):
            raise ConfigError(
                f"[population] no job of the run in {self.path} was ever answered: let it run longer, or give another "
                "run"
            )
        numbers = sorted(jobs)
        job_times, losses = _fitted_job_times(jobs, key), _fitted_losses(jobs)
        models = [
            client if client in jobs else numbers[key.fold("recorded", client).below(len(numbers))]
            for client in range(clients)
        ]
        return ClientDelays([job_times[model] for model in models], None, [losses.get(model) for model in models])


def _fitted_job_times(jobs: Mapping[int, RecordedDelays], key: Key) -> dict[int, JobTimes]:
    """The recorded clients' job times."""
    means_s = recorded.expected_s(jobs)
    for enough in (ENOUGH_JOBS, 2):
        models = [client for client in means_s if len(jobs[client].times_s) >= enough]
        factors = [time_s / means_s[client] for client in models for time_s in jobs[client].times_s]
        if models:
            break
    spread = Empirical(tuple(factors) or (1.0,))
    job_times: dict[int, JobTimes] = {
        client: Empirical(tuple(jobs[client].times_s))
        if len(jobs[client].times_s) >= ENOUGH_JOBS
        else ScaledEmpirical(mean_s, spread)
        for client, mean_s in means_s.items()
    }
    for client in jobs.keys() - means_s.keys():
        waited_s = max(jobs[client].times_s, default=0.0)
        slower = [other for other in sorted(means_s) if means_s[other] >= waited_s]
        job_times[client] = job_times[slower[key.fold("unheard", client).below(len(slower))]]
    return job_times


def _fitted_losses(jobs: Mapping[int, RecordedDelays]) -> dict[int, Losses]:
    """How the recorded clients lose jobs; empty where none was lost."""
    lost_s = [after_s for own in jobs.values() for after_s in own.lost_s]
    if not lost_s:
        return {}
    average = len(lost_s) / (len(lost_s) + sum(len(own.answered_s) for own in jobs.values()))
    return {
        # One more job, of the federation's average: a client that lost its only job can still answer, and the reverse.
        client: Losses(
            (len(own.lost_s) + average) / (len(own.lost_s) + len(own.answered_s) + 1),
            Empirical(tuple(own.lost_s or lost_s)),
        )
        for client, own in jobs.items()
    }
