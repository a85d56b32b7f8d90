"""Populations: who is slow, who drops out, who is away, and how long the network takes.

A `Population` answers one question, "what becomes of this job?", as a pure function of its key: a draw is addressed by
(purpose, client, task), so a plan depends neither on the order in which jobs are planned nor on the speed of the host.

    >>> from fedecho.core.keys import Key
    >>> population = build(50, Key(0), name="large")
    >>> [len(population.members(group)) for group in GROUPS]
    [29, 14, 7]

What is real: a "trace:PATH" is as real as its file; "run:RUN_DIR" has the delays and losses of a recorded run, and is
as real as that was. In "phones" only the *relative* speed of the devices is real (frame rates of named phones and
tablets, npm `detect-gpu`: a graphics benchmark, which stands in for training speed). "mild" and "large" are the
regimes of the FADAS code. With `availability = "data"` each client is present at the hours at which its owner really
wrote (see `data.datasets.chat`); that it could train at these hours and at no others is assumed. Everything else is
synthetic, with the network, the other availability windows and the dropouts: no public per-client record of these was
found.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..core.errors import ConfigError
from ..core.keys import Key
from .availability import HOURS, Always, Hours, Presence, Window
from .job_times import JobTimes, Losses, standard_normal
from .settings import GROUPS, PopulationConfig


@dataclass(frozen=True)
class Plan:
    """What the clock will do with one job.

    Fields:
        ends_at_s: virtual time at which the server hears of it, be it the result or the loss.
        lost: None if the result arrives; else why it never does: "dropout" (the job failed) or "left" (its client left
            first).
    """

    ends_at_s: float
    lost: str | None = None


class Population:
    """Who is slow, who drops out, who is away, and how long the network takes. Made by `build`; never changes.

    Args:
        key: all draws are below it.
        job_times: how each client's job times are distributed.
        groups: the speed group of each client, see below.
        config: the network, dropout and availability; its settings of job times and groups are not used.
        losses: how each client loses jobs in addition; None for a client that loses none so.

    Attributes:
        clients: how many there are, numbered from 0.
        groups: the speed group of each client: "fast", "medium" or "slow".
    """

    def __init__(
        self,
        key: Key,
        job_times: Sequence[JobTimes],
        groups: Sequence[str],
        config: PopulationConfig | None = None,
        losses: Sequence[Losses | None] = (),
    ) -> None:
        config = config or PopulationConfig()
        everyone = range(len(job_times))
        self.clients = len(job_times)
        self.groups = tuple(groups)
        self._job_times = tuple(job_times)
        self._expected_s = tuple(times.mean_s for times in job_times)
        self._members = {group: tuple(c for c in everyone if groups[c] == group) for group in GROUPS}
        # Folded once a client, so that a plan folds in only the task.
        self._durations = tuple(key.fold("duration", c) for c in everyone)
        self._dropouts = tuple(key.fold("dropout", c) for c in everyone)
        self._losses = tuple(losses) or (None,) * len(job_times)
        self._dropout = config.dropout
        self._timeout_s = config.timeout_s
        self._latency_s = config.latency_s
        # A factor of median 1 between clients: `down_mbps` and `up_mbps` are medians.
        factors = [math.exp(config.network_sigma * standard_normal(key.fold("network", c))) for c in everyone]
        self._down_s_per_byte = tuple(_s_per_byte(config.down_mbps * factor) for factor in factors)
        self._up_s_per_byte = tuple(_s_per_byte(config.up_mbps * factor) for factor in factors)
        self._day_s = config.day_s
        self._presence: Sequence[Presence] = [Always()] * self.clients
        if config.available_fraction < 1:
            dawns_s = (config.day_s * key.fold("phase", c).uniform() for c in everyone)
            self._presence = [Window(dawn_s, config.day_s, config.available_fraction) for dawn_s in dawns_s]

    def at_hours(self, hours: Sequence[Sequence[int]]) -> Population:
        """The same population, with each client present at its own hours of the day only; see `availability`.

        Args:
            hours: for each client hours from 0 to 23.

        Raises:
            ConfigError: the number of clients is another, or a client has no hour or one that is none.
        """
        invalid = [c for c, own in enumerate(hours) if not own or not set(own) <= set(range(HOURS))]
        if len(hours) != self.clients or invalid:
            what = (
                f"client {invalid[0]} has {list(hours[invalid[0]])}" if invalid else f"there are those of {len(hours)}"
            )
            raise ConfigError(
                f"`availability` of {self.clients} clients needs some hours from 0 to {HOURS - 1} for each, and "
                f"{what}: mend the data set"
            )
        population = copy.copy(self)
        population._presence = [Hours(frozenset(own), self._day_s / HOURS) for own in hours]
        return population

    def plan(self, client: int, task: int, issued_at_s: float, down_bytes: int, up_bytes: int) -> Plan:
        """What becomes of job `task`, issued to `client` at `issued_at_s`.

        The way down, the training and the way up follow each other. The server hears of whichever comes first: the
        end of the job (its result, or its failure) or the departure of its client. A job issued to a client that is
        away is lost there and then.

        Args:
            client: from 0 to `clients` - 1.
            task: the number of the job, unique in the run.
            issued_at_s: virtual time.
            down_bytes: what the job carries to the client.
            up_bytes: what its result carries back.
        """
        if not self.present(client, issued_at_s):
            return Plan(issued_at_s, "left")
        ends_at_s = issued_at_s + self._job_times[client].draw(self._durations[client].fold(task))
        ends_at_s += self.network_s(client, down_bytes, up_bytes)
        lost = None
        losses = self._losses[client]
        if losses is not None and (draw := self._dropouts[client].fold(task, "recorded")).uniform() < losses.rate:
            lost = "dropout"
            ends_at_s = issued_at_s + losses.after.draw(draw.fold("after"))
        elif self._dropout and self._dropouts[client].fold(task).uniform() < self._dropout:
            lost = "dropout"
            if self._timeout_s is not None:
                ends_at_s = issued_at_s + self._timeout_s
        leaves_at_s = self.next_change(client, issued_at_s)
        if leaves_at_s is not None and leaves_at_s < ends_at_s:
            return Plan(leaves_at_s, "left")
        return Plan(ends_at_s, lost)

    def network_s(self, client: int, down_bytes: int, up_bytes: int) -> float:
        """Seconds that the network takes for a job, both ways together: latency + bytes · 8 / bandwidth, each way."""
        return 2 * self._latency_s + down_bytes * self._down_s_per_byte[client] + up_bytes * self._up_s_per_byte[client]

    def expected_time_s(self, client: int) -> float:
        """The expected training time of one of the client's jobs, in seconds, without the network."""
        return self._expected_s[client]

    def members(self, group: str) -> tuple[int, ...]:
        """The clients of one speed group, in ascending order; may be none.

        Raises:
            ConfigError: no group is called that.
        """
        if group not in self._members:
            raise ConfigError(f"no speed group is called {group!r}: use one of {', '.join(GROUPS)}")
        return self._members[group]

    def present(self, client: int, at_s: float) -> bool:
        """Whether the client is there at that time: from the moment it joins until just before it leaves."""
        return self._presence[client].present(at_s)

    def next_change(self, client: int, after_s: float) -> float | None:
        """When the client next joins or leaves, strictly after `after_s`; None if it never does."""
        return self._presence[client].next_change(after_s)


def _s_per_byte(mbps: float) -> float:
    return 8 / (mbps * 1e6) if mbps else 0.0
