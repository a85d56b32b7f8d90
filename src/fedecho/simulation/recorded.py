"""Job times and losses as in a recorded run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ..core.errors import ConfigError, RecordError
from ..core.keys import Key
from ..runs import delays as observed
from ..runs.delays import RecordedDelays
from .job_times import Empirical, JobTimes, Losses, ScaledEmpirical
from .settings import RUN_PREFIX

FEW: Final = 5
"""Recorded jobs from which on a client's job times are its own; with fewer it has its own mean, and others' spread."""


def recorded_job_times(clients: int, key: Key, path: str) -> tuple[list[JobTimes], list[Losses | None]]:
    """Job times and losses as in a recorded run. Raises ConfigError, in one line, if it tells of none."""
    remedy = f"give the folder of a recorded run after `{RUN_PREFIX}`"
    if not Path(path).is_dir():
        raise ConfigError(f"[population] there is no folder at {path!r}: {remedy}")
    if not all((Path(path) / name).is_file() for name in ("config.toml", "records.sqlite")):
        raise ConfigError(f"[population] {path} is no run's folder (it lacks config.toml or records.sqlite): {remedy}")
    try:
        seen = observed.read(Path(path))
    except RecordError as error:
        raise ConfigError(str(error)) from None
    if not any(jobs.answered_s for jobs in seen.values()):
        raise ConfigError(
            f"[population] no job of the run in {path} was ever answered: let it run longer, or give another run"
        )
    order, laws, losses = sorted(seen), _fitted(seen, key), _fitted_losses(seen)
    whose = [c if c in seen else order[key.fold("recorded", c).below(len(order))] for c in range(clients)]
    return [laws[client] for client in whose], [losses.get(client) for client in whose]


def _fitted(seen: Mapping[int, RecordedDelays], key: Key) -> dict[int, JobTimes]:
    """The recorded clients' job times."""
    means = observed.expected_s(seen)
    for enough in (FEW, 2):
        those = [client for client in means if len(seen[client].times_s) >= enough]
        factors = Empirical(tuple(time / means[client] for client in those for time in seen[client].times_s) or (1.0,))
        if those:
            break
    laws: dict[int, JobTimes] = {
        client: Empirical(tuple(seen[client].times_s))
        if len(seen[client].times_s) >= FEW
        else ScaledEmpirical(mean_s, factors)
        for client, mean_s in means.items()
    }
    for client in seen.keys() - means.keys():
        waited_s = max(seen[client].times_s, default=0.0)
        slower = [other for other in sorted(means) if means[other] >= waited_s]
        laws[client] = laws[slower[key.fold("unheard", client).below(len(slower))]]
    return laws


def _fitted_losses(seen: Mapping[int, RecordedDelays]) -> dict[int, Losses]:
    """How the recorded clients lose jobs; nothing where none was lost."""
    every = [after_s for jobs in seen.values() for after_s in jobs.lost_s]
    if not every:
        return {}
    usual = len(every) / (len(every) + sum(len(jobs.answered_s) for jobs in seen.values()))
    return {
        # One more job, of the federation's average: a client that lost its only job can still answer, and the reverse.
        client: Losses(
            (len(jobs.lost_s) + usual) / (len(jobs.lost_s) + len(jobs.answered_s) + 1),
            Empirical(tuple(jobs.lost_s or every)),
        )
        for client, jobs in seen.items()
    }
