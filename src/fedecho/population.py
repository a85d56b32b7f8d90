"""Who is slow, who drops out, who is away, and how long the network takes: all that the virtual clock needs to know.

A `Population` answers one question, "what becomes of this job?", as a pure function of its key: a draw is addressed by
(purpose, client, task), so a plan depends neither on the order in which jobs are planned nor on the speed of the host.

    >>> from fedecho.rng import Key
    >>> population = build(50, Key(0), name="large")
    >>> [len(population.members(group)) for group in GROUPS]
    [29, 14, 7]

What is real and what is not: a "trace:PATH" is as real as its file. In "phones" only the *relative* speed of the
devices is real (frame rates of named phones and tablets, npm `detect-gpu`: a graphics benchmark, which stands in for
training speed). "run:RUN_DIR" has the delays and losses of a run that was recorded, and is as real as that was. "mild"
and "large" are the regimes of the FADAS code. With `availability = "data"` the hours at which each client is there are
those at which its owner really wrote (see `data.text.chat`); that it could train at these and at no others is assumed.
Everything else is synthetic, the network, the other availability windows and the dropouts included: no public
per-client record of these was found.
"""

from __future__ import annotations

import copy
import csv
import difflib
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import NormalDist, fmean, median
from typing import Final, Protocol

from fedecho import observed
from fedecho.errors import ConfigError, RecordError
from fedecho.observed import Observed
from fedecho.rng import Key

GROUPS: Final = ("fast", "medium", "slow")

HOURS: Final = 24
"""Of a day."""

FEW: Final = 5
"""Recorded jobs from which on a client's job times are its own; with fewer it has its own mean, and others' spread."""

_TRACE: Final = "trace:"
_RUN: Final = "run:"
_ASSIGNMENTS: Final = ("fixed", "dirichlet")
_AVAILABILITIES: Final = ("windows", "data")
_STANDARD_NORMAL: Final = NormalDist()
# There the slowest of fifty clients is already near a million times slower than the fastest: more can only be a slip.
_LARGEST_SIGMA: Final = 3.0
# The shortest stretch of presence or absence, their product, is above the resolution of a float that holds decades of
# virtual time in seconds, so that each change comes later than the last.
_SHORTEST_DAY_S: Final = 0.001
_SMALLEST_SHARE: Final = 0.001
_SHARES: Final = f"from {_SMALLEST_SHARE:g} to {1 - _SMALLEST_SHARE:g}, or 1"


# ---------------------------------------------------------------------------------------------------------- job times


class Law(Protocol):
    """How one client's job times are distributed. All times in seconds, training alone, without the network.

    Those of a recorded run hold the network that it had.
    """

    @property
    def mean_s(self) -> float:
        """The expected job time."""

    def draw(self, key: Key) -> float:
        """The time of the job that `key` addresses."""


@dataclass(frozen=True)
class Uniform:
    """U(low_s, high_s)."""

    low_s: float
    high_s: float

    @property
    def mean_s(self) -> float:
        return (self.low_s + self.high_s) / 2

    def draw(self, key: Key) -> float:
        return self.low_s + (self.high_s - self.low_s) * key.uniform()


@dataclass(frozen=True)
class Exponential:
    """Exp with mean `mean_s`."""

    mean_s: float

    def draw(self, key: Key) -> float:
        return -self.mean_s * math.log1p(-key.uniform())


@dataclass(frozen=True)
class LogNormal:
    """Log-normal with mean (not median) `mean_s`, and standard deviation `sigma` of the logarithm."""

    mean_s: float
    sigma: float

    def draw(self, key: Key) -> float:
        return self.mean_s * _spread(key, self.sigma)


@dataclass(frozen=True)
class Recorded:
    """One of `times_s`, each as likely as the others.

    Resampled, not played back in order: the place of a job in its client's history depends on what was dispatched
    before, and a plan may not.
    """

    times_s: tuple[float, ...]

    @property
    def mean_s(self) -> float:
        return fmean(self.times_s)

    def draw(self, key: Key) -> float:
        return self.times_s[key.below(len(self.times_s))]


@dataclass(frozen=True)
class Like:
    """Of mean `mean_s`, and spread as `factors`, whose mean is 1."""

    mean_s: float
    factors: Recorded

    def draw(self, key: Key) -> float:
        return self.mean_s * self.factors.draw(key)


@dataclass(frozen=True)
class Losses:
    """A share `rate` of a client's jobs is lost, and heard of after one of the times `after`."""

    rate: float
    after: Recorded


def _normal(key: Key) -> float:
    # `inv_cdf` has no value at 0, which `uniform` may return.
    return _STANDARD_NORMAL.inv_cdf(key.uniform() or 2.0**-54)


def _spread(key: Key, sigma: float) -> float:
    """A log-normal factor of mean 1."""
    return math.exp(sigma * _normal(key) - sigma * sigma / 2)


_FAST: Final = Uniform(1, 2)
_REGIMES: Final[dict[str, dict[str, Law]]] = {
    "mild": {"fast": _FAST, "medium": Uniform(3, 5), "slow": Uniform(5, 8)},
    "large": {"fast": _FAST, "medium": Uniform(3, 5), "slow": Uniform(50, 80)},
}


# ------------------------------------------------------------------------------------------------------------ settings


@dataclass(frozen=True)
class PopulationConfig:
    """The `[population]` table.

    Fields:
        name: who is how fast. Times are redrawn for every job.

            * "none": everyone U(1, 2) s, like the fast class below; all clients are in the group "fast".
            * "mild", "large": three classes, fast U(1, 2) s, medium U(3, 5) s, slow U(5, 8) s (mild) or U(50, 80) s
              (large), as in the code of FADAS (arXiv 2407.18365). One key gives both the same slow clients.
            * "exponential": exponential job times (FedRevive, arXiv 2511.00655) of mean `mean_s`; `sigma` > 0 makes
              the clients differ.
            * "lognormal": each client has its own mean (`sigma`), each job its own noise (`job_sigma`). Synthetic.
            * "phones": each client is a phone or tablet drawn from npm `detect-gpu`; its mean time is proportional to
              1 / frame rate, and its jobs vary by `job_sigma`. Only the relative speed of the devices is real.
            * "trace:PATH": a CSV file with the columns `client,seconds` (client numbers from 0; clients beyond the
              run's are left out) or `device,seconds` (any names; each client is a device drawn at random), a line per
              job seen. A job takes one of its client's times, drawn at random.
            * "run:RUN_DIR": the delays of a recorded run, live or simulated; a configuration may say it as
              `from = "RUN_DIR"`. A client is the recorded client of its number, or one drawn at random where that run
              had fewer. One with at least 5 recorded jobs takes one of their times, drawn at random; one with fewer
              keeps its own mean, and its jobs vary around it as those of the others do. A job that the server gave up,
              or that was still at work at the end, takes at least so long: it counts as that long where no answer of
              its client took longer. A client that never answered is like one drawn from those that on average take
              at least as long as it was waited for, and takes just that long where nobody does. Jobs are lost as often
              as they were (each client as if it had had one more, of the federation's average), and heard of after as
              long; those that went down with the server do not count. The times hold the network as it was. When
              clients came and went is not fitted: all are always there.
        class_counts: how many clients are fast, medium, slow. Unset: 58, 28 and 14 % (29/14/7 of 50; ours: the FADAS
            code's draw gives 64, 28 and 8 % on average, which leaves few slow clients to judge by). Where the kind has
            no classes these are the sizes of the groups, by expected job time; no effect on "none".
        assignment: "fixed" deals exactly `class_counts` classes to the clients, in a random order; "dirichlet" is the
            FADAS code's way, the arg-max of a Dirichlet(3, 2, 1) draw per client (of 50, 1 to 8 are slow; at times
            none). Only "mild" and "large" have classes to assign.
        slow_s: lowest and highest job time of the slow class in "mild" and "large", in seconds, instead of the regime's
            own. [1, 2] makes the slow clients as fast as the fast ones and still counts them apart: the same federation
            without its stragglers, to see what they cost.
        mean_s: mean job time, in seconds, over all clients ("exponential", "lognormal") or of the median device
            ("phones"). Default 1: a unit of time, since with an instant network only ratios matter.
        sigma: spread between clients ("exponential", "lognormal"): the standard deviation of the logarithm of their
            mean times. Unset: 0 for "exponential" (all alike, as in FedRevive, and then all in the group "fast"), 1
            for "lognormal" (ours).
        job_sigma: spread between the jobs of one client ("lognormal", "phones"), likewise. Default 0.25 (ours).
        down_mbps, up_mbps: median bandwidth to and from a client, in 10⁶ bit/s; 0 (the default) is infinitely fast.
            Synthetic.
        network_sigma: spread of the bandwidth between clients, likewise; one factor for both ways, as who has a poor
            line has it both ways. Default 0. Synthetic.
        latency_s: seconds that each way takes besides (so a job pays it twice). Default 0. Synthetic.
        dropout: probability that a job is lost, drawn for each job. Default 0. Synthetic. A recorded run's own losses
            come besides.
        timeout_s: how the server hears of such a loss. Unset: when the result would have come, as from a client that
            fails and says so. Set: exactly this many seconds after the job was issued, as from a client that fell
            silent and no longer answers; never applied to a job that is merely slow, for a slow client is no lost one.
        available_fraction: share of its day that each client is there; 1 (the default) is always. The day begins at a
            moment of its own for each client. A job whose client leaves before it ends is lost at that time, so
            one whose jobs outlast its share of the day never ends any. Synthetic.
        day_s: length of that day in seconds of virtual time. Default 86,400.
        availability: when clients are there. "windows", the default, is the share of the day above. "data": each at its
            own hours of the day, which the data set knows (`data.dataset = "chat"`, in a natural split). Virtual time 0
            is midnight for everybody, in UTC, so that who is awake together in the data is so here, too; an hour takes
            `day_s` / 24, and every day is like the other.
    """

    name: str = "none"
    class_counts: tuple[int, int, int] | None = None
    assignment: str = "fixed"
    slow_s: tuple[float, float] | None = None
    mean_s: float = 1.0
    sigma: float | None = None
    job_sigma: float = 0.25
    down_mbps: float = 0.0
    up_mbps: float = 0.0
    network_sigma: float = 0.0
    latency_s: float = 0.0
    dropout: float = 0.0
    timeout_s: float | None = None
    available_fraction: float = 1.0
    day_s: float = 86_400.0
    availability: str = "windows"

    def faults(self, clients: int | None = None) -> list[str]:
        """Everything wrong with these settings, one line each with its remedy; empty if all is well.

        Args:
            clients: the number of clients, if known: then `class_counts` is checked against it.
        """
        found = [*_name_faults(self.name), *self._class_faults(clients)]
        if self.availability not in _AVAILABILITIES:
            found.append(
                f"`availability` must be one of {', '.join(_AVAILABILITIES)}, got {self.availability!r}: use one of "
                "these"
            )
        elif self.availability == "data" and self.available_fraction != 1:
            found.append(
                f"`available_fraction` ({self.available_fraction!r}) is of windows, and `availability` is 'data': "
                "leave one of them out"
            )
        spread = f"from 0 to {_LARGEST_SIGMA:g}"
        wanted: list[tuple[str, str, Callable[[float], bool], str]] = [
            ("mean_s", "above 0", lambda x: x > 0, "give seconds, such as 1.0"),
            ("sigma", spread, _is_spread, "0 makes all clients alike; at 1 a tenth take over 3.6 times the median"),
            ("job_sigma", spread, _is_spread, "0 makes all jobs of a client alike"),
            ("down_mbps", "0 or above", lambda x: x >= 0, "0 is infinitely fast"),
            ("up_mbps", "0 or above", lambda x: x >= 0, "0 is infinitely fast"),
            ("network_sigma", spread, _is_spread, "0 gives all clients the same bandwidth"),
            ("latency_s", "0 or above", lambda x: x >= 0, "give seconds each way, such as 0.05"),
            ("dropout", "from 0 to below 1", lambda x: 0 <= x < 1, "at 1 no result would ever arrive"),
            ("timeout_s", "above 0", lambda x: x > 0, "leave it out for losses heard of when the result was due"),
            ("available_fraction", _SHARES, _is_share, "1 is always; at 0 nobody would ever come"),
            ("day_s", f"of at least {_SHORTEST_DAY_S:g}", _is_day, "give seconds of virtual time, such as 86400"),
        ]
        for field, bounds, fits, remedy in wanted:
            value = getattr(self, field)
            if value is None and field in ("sigma", "timeout_s"):
                continue
            if not (_is_number(value) and fits(value)):
                found.append(f"`{field}` must be a number {bounds}, got {value!r}: {remedy}")
        return found

    def _class_faults(self, clients: int | None) -> list[str]:
        found = []
        if self.assignment not in _ASSIGNMENTS:
            found.append(
                f"`assignment` must be one of {', '.join(_ASSIGNMENTS)}, got {self.assignment!r}: use one of these"
            )
        bounds: object = self.slow_s
        if bounds is not None and not (
            isinstance(bounds, (tuple, list))
            and len(bounds) == 2
            and all(_is_number(bound) for bound in bounds)
            and 0 < bounds[0] <= bounds[1]
        ):
            found.append(f"`slow_s` must be a lowest and a highest time above 0, got {bounds!r}: give two, as [1, 2]")
        if bounds is not None and self.name not in _REGIMES:
            found.append(f"`slow_s` is the slow class's time, and {self.name!r} has no classes: leave it out")
        counts: object = self.class_counts
        if counts is None:
            return found
        if (
            not isinstance(counts, (tuple, list))
            or len(counts) != len(GROUPS)
            or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in counts)
        ):
            found.append(
                f"`class_counts` must be three numbers of clients (fast, medium, slow), got {counts!r}: "
                "give three integers, such as [29, 14, 7]"
            )
        elif clients is not None and sum(counts) != clients:
            found.append(
                f"`class_counts` {list(counts)} add up to {sum(counts)}, but there are {clients} clients: "
                f"change the counts, or leave them out for {list(_default_counts(clients))}"
            )
        if self.assignment == "dirichlet":
            found.append(
                '`class_counts` fixes what `assignment = "dirichlet"` would draw: leave out the counts, '
                'or use `assignment = "fixed"`'
            )
        return found


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_spread(value: float) -> bool:
    return 0 <= value <= _LARGEST_SIGMA


def _is_share(value: float) -> bool:
    return _SMALLEST_SHARE <= value <= 1 - _SMALLEST_SHARE or value == 1


def _is_day(value: float) -> bool:
    return value >= _SHORTEST_DAY_S


def _name_faults(name: object) -> list[str]:
    known = ", ".join(names())
    if not isinstance(name, str) or (not name.startswith((_TRACE, _RUN)) and name not in _KINDS):
        close = difflib.get_close_matches(str(name), _KINDS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return [f"`name` is no known population, got {name!r}: {hint}one of {known}"]
    return []


# ---------------------------------------------------------------------------------------------------- the population


class _Presence(Protocol):
    """When one client is there. Both methods compare times with the same sums alone, so that they agree to the bit."""

    def present(self, at_s: float) -> bool: ...

    def next_change(self, after_s: float) -> float | None: ...


@dataclass(frozen=True)
class _Always:
    def present(self, at_s: float) -> bool:
        return True

    def next_change(self, after_s: float) -> float | None:
        return None


@dataclass(frozen=True)
class _Window:
    """A share of each day, which begins at a moment of the client's own."""

    dawn_s: float
    day_s: float
    fraction: float

    def present(self, at_s: float) -> bool:
        return at_s < self._leaves_at_s(self._day(at_s))

    def next_change(self, after_s: float) -> float | None:
        day = self._day(after_s)
        leaves_at_s = self._leaves_at_s(day)
        return leaves_at_s if after_s < leaves_at_s else self._joins_at_s(day + 1)

    def _joins_at_s(self, day: int) -> float:
        return self.dawn_s + day * self.day_s

    def _leaves_at_s(self, day: int) -> float:
        return self._joins_at_s(day) + self.fraction * self.day_s

    def _day(self, at_s: float) -> int:
        """The number of the client's own day: the last that has begun by `at_s`."""
        return _place(at_s, (at_s - self.dawn_s) / self.day_s, self._joins_at_s)


@dataclass(frozen=True)
class _Hours:
    """Some hours of every day."""

    hours: frozenset[int]
    hour_s: float

    def present(self, at_s: float) -> bool:
        return _place(at_s, at_s / self.hour_s, self._begins_at_s) % HOURS in self.hours

    def next_change(self, after_s: float) -> float | None:
        now = _place(after_s, after_s / self.hour_s, self._begins_at_s)
        here = now % HOURS in self.hours
        later = (now + step for step in range(1, HOURS + 1))
        return next((self._begins_at_s(hour) for hour in later if (hour % HOURS in self.hours) != here), None)

    def _begins_at_s(self, hour: int) -> float:
        return hour * self.hour_s


def _place(at_s: float, quotient: float, begins_at_s: Callable[[int], float]) -> int:
    """The last of the numbered stretches of time that has begun by `at_s`; the quotient is its number or near it."""
    number = math.floor(quotient)
    # The quotient may be rounded across the start of a stretch.
    if begins_at_s(number) > at_s:
        number -= 1
    elif begins_at_s(number + 1) <= at_s:
        number += 1
    return number


@dataclass(frozen=True)
class Plan:
    """What the clock will do with one job.

    Fields:
        ends_at_s: virtual time at which the server hears of it, be it the result or the loss.
        lost: None if the result arrives; else why it never does: "dropout" (the job failed) or "left" (its client went
            away first).
    """

    ends_at_s: float
    lost: str | None = None


class Population:
    """Who is slow, who drops out, who is away, and how long the network takes. Made by `build`; never changes.

    Args:
        key: all draws are below it.
        laws: how each client's job times are distributed.
        groups: the speed group of each client, see below.
        config: the network, dropout and availability; what it says of job times and groups is not looked at.
        losses: how each client's jobs get lost besides; None for a client that loses none so.

    Attributes:
        clients: how many there are, numbered from 0.
        groups: the speed group of each client: "fast", "medium" or "slow".
    """

    def __init__(
        self,
        key: Key,
        laws: Sequence[Law],
        groups: Sequence[str],
        config: PopulationConfig | None = None,
        losses: Sequence[Losses | None] = (),
    ) -> None:
        config = config or PopulationConfig()
        everyone = range(len(laws))
        self.clients = len(laws)
        self.groups = tuple(groups)
        self._laws = tuple(laws)
        self._expected_s = tuple(law.mean_s for law in laws)
        self._members = {group: tuple(c for c in everyone if groups[c] == group) for group in GROUPS}
        # Folded once a client, so that a plan folds in only the task.
        self._durations = tuple(key.fold("duration", c) for c in everyone)
        self._dropouts = tuple(key.fold("dropout", c) for c in everyone)
        self._losses = tuple(losses) or (None,) * len(laws)
        self._dropout = config.dropout
        self._timeout_s = config.timeout_s
        self._latency_s = config.latency_s
        # A factor of median 1 between clients: `down_mbps` and `up_mbps` are medians.
        lines = [math.exp(config.network_sigma * _normal(key.fold("network", c))) for c in everyone]
        self._down_s_per_byte = tuple(_s_per_byte(config.down_mbps * line) for line in lines)
        self._up_s_per_byte = tuple(_s_per_byte(config.up_mbps * line) for line in lines)
        self._day_s = config.day_s
        self._presence: Sequence[_Presence] = [_Always()] * self.clients
        if config.available_fraction < 1:
            dawns_s = (config.day_s * key.fold("phase", c).uniform() for c in everyone)
            self._presence = [_Window(dawn_s, config.day_s, config.available_fraction) for dawn_s in dawns_s]

    def at_hours(self, hours: Sequence[Sequence[int]]) -> Population:
        """The same population, each client there at its own hours of the day alone; see `availability`.

        Args:
            hours: for each client hours from 0 to 23.

        Raises:
            ConfigError: the number of clients is another, or a client has no hour or one that is none.
        """
        wrong = [c for c, own in enumerate(hours) if not own or not set(own) <= set(range(HOURS))]
        if len(hours) != self.clients or wrong:
            what = f"client {wrong[0]} has {list(hours[wrong[0]])}" if wrong else f"there are those of {len(hours)}"
            raise ConfigError(
                f"`availability` of {self.clients} clients needs some hours from 0 to {HOURS - 1} for each, and "
                f"{what}: mend the data set"
            )
        other = copy.copy(self)
        other._presence = [_Hours(frozenset(own), self._day_s / HOURS) for own in hours]
        return other

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
        ends_at_s = issued_at_s + self._laws[client].draw(self._durations[client].fold(task))
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


# ------------------------------------------------------------------------------------------------------------ building


def build(clients: int, key: Key, **settings: object) -> Population:
    """The population of a run.

    Args:
        clients: how many clients there are.
        key: the run's; the population's draws are below `key.fold("population")`.
        settings: the fields of `PopulationConfig`.

    Raises:
        ConfigError: with every fault of the settings, and of the trace file or the recorded run, a line each.
        MissingExtra, DataError: the data of "phones" cannot be had.
    """
    known = [field.name for field in fields(PopulationConfig)]
    unknown = [name for name in settings if name not in known]
    config = PopulationConfig(**{name: value for name, value in settings.items() if name in known})  # type: ignore[arg-type]
    found = [_unknown(name, known) for name in unknown]
    if isinstance(clients, bool) or not isinstance(clients, int) or clients < 1:
        found.append(f"`clients` must be an integer of at least 1, got {clients!r}: give the number of clients")
        raise ConfigError(found + config.faults())
    found += config.faults(clients)
    key = key.fold("population")
    laws: Sequence[Law] = ()
    losses: Sequence[Losses | None] = ()
    # Files are looked at here and not with the settings: a record can be read where what it was made from is not.
    kind, _, path = config.name.partition(":") if isinstance(config.name, str) else ("", "", "")
    try:
        if f"{kind}:" == _TRACE:
            laws = _trace_laws(clients, key, path)
        elif f"{kind}:" == _RUN:
            laws, losses = _run_laws(clients, key, path)
    except ConfigError as error:
        found += error.faults
    if found:
        raise ConfigError(found)
    counts = config.class_counts or _default_counts(clients)
    if config.name == "none":
        return Population(key, [_FAST] * clients, ["fast"] * clients, config)
    if config.name in _REGIMES:
        groups = _drawn_groups(clients, key) if config.assignment == "dirichlet" else _dealt_groups(key, counts)
        laws_of = {**_REGIMES[config.name], **({"slow": Uniform(*config.slow_s)} if config.slow_s else {})}
        return Population(key, [laws_of[group] for group in groups], groups, config)
    laws = laws or _LAWS[config.name](clients, key, config)
    return Population(key, laws, ranked([law.mean_s for law in laws], counts), config, losses)


def names() -> tuple[str, ...]:
    """The named kinds of populations, sorted; `run:RUN_DIR` and `trace:PATH` stand for any folder and path."""
    return (*_KINDS, f"{_RUN}RUN_DIR", f"{_TRACE}PATH")


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"`{name}` is no setting of a population: " + (
        f"did you mean `{close[0]}`?" if close else f"use one of {', '.join(known)}"
    )


def _default_counts(clients: int) -> tuple[int, int, int]:
    medium, slow = ((percent * clients + 50) // 100 for percent in (28, 14))
    return clients - medium - slow, medium, slow


def _dealt_groups(key: Key, counts: Sequence[int]) -> list[str]:
    order = sorted(range(sum(counts)), key=lambda client: key.fold("class", client).bits())
    return _in_order(order, counts)


def _drawn_groups(clients: int, key: Key) -> list[str]:
    """The FADAS code's way: each client's class is the arg-max of a Dirichlet(3, 2, 1) draw."""

    def weight(draws: Key, shape: int) -> float:
        # A Gamma of whole shape is a sum of exponentials, and a Dirichlet draw is Gammas over their sum, which leaves
        # the arg-max as it is.
        return -sum(math.log1p(-draws.uniform(i)) for i in range(shape))

    def group(client: int) -> str:
        draws = {name: key.fold("class", client, name) for name in GROUPS}
        return max(GROUPS, key=lambda name: weight(draws[name], 3 - GROUPS.index(name)))

    return [group(client) for client in range(clients)]


def ranked(means_s: Sequence[float], counts: Sequence[int] | None = None) -> list[str]:
    """Groups by expected time, the slowest `counts[2]` of the clients "slow", and so on; see `class_counts`."""
    counts = _default_counts(len(means_s)) if counts is None else counts
    if min(means_s) == max(means_s):
        # Nobody is slower than anybody: to call some "slow" would give a difference a name that it does not have.
        return ["fast"] * len(means_s)
    return _in_order(sorted(range(len(means_s)), key=lambda client: means_s[client]), counts)


def _in_order(order: Sequence[int], counts: Sequence[int]) -> list[str]:
    ends = (counts[0], counts[0] + counts[1])
    groups = [""] * len(order)
    for rank, client in enumerate(order):
        groups[client] = GROUPS[bisect_right(ends, rank)]
    return groups


def _exponential_laws(clients: int, key: Key, config: PopulationConfig) -> list[Law]:
    sigma = 0.0 if config.sigma is None else config.sigma
    return [Exponential(config.mean_s * _spread(key.fold("speed", c), sigma)) for c in range(clients)]


def _lognormal_laws(clients: int, key: Key, config: PopulationConfig) -> list[Law]:
    sigma = 1.0 if config.sigma is None else config.sigma
    return [LogNormal(config.mean_s * _spread(key.fold("speed", c), sigma), config.job_sigma) for c in range(clients)]


def _phone_laws(clients: int, key: Key, config: PopulationConfig) -> list[Law]:
    # A device of rate 0 is an entry of the list that was never measured.
    relative = [1 / rate for rate in _device_fps() if rate > 0]
    unit_s = config.mean_s / median(relative)
    drawn = (key.fold("device", c).below(len(relative)) for c in range(clients))
    return [LogNormal(unit_s * relative[device], config.job_sigma) for device in drawn]


def _device_fps() -> list[float]:
    # Here and not above: only phones need the data, and whoever asks for no phones should not import the sources.
    from fedecho.data import sources

    return [float(rate) for rate in sources.device_fps()]


_LAWS: Final[dict[str, Callable[[int, Key, PopulationConfig], list[Law]]]] = {
    "exponential": _exponential_laws,
    "lognormal": _lognormal_laws,
    "phones": _phone_laws,
}
_KINDS: Final = tuple(sorted(("none", *_REGIMES, *_LAWS)))


def _trace_laws(clients: int, key: Key, path: str) -> list[Law]:
    """The laws of a trace file. Raises ConfigError, in one line, if it cannot be used."""
    if not Path(path).is_file():
        raise ConfigError(
            f"[population] there is no trace file at {path!r}: give the path of a CSV file after `{_TRACE}`"
        )
    owner, times_s = _read_trace(path)
    if owner == "device":
        # Sorted, so that the order of the lines in the file changes nothing.
        devices = [Recorded(tuple(times_s[device])) for device in sorted(times_s)]
        return [devices[key.fold("device", c).below(len(devices))] for c in range(clients)]
    missing = [c for c in range(clients) if str(c) not in times_s]
    if missing:
        shown = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        raise ConfigError(
            f"{path}: no times for {len(missing)} of {clients} clients ({shown}): add lines for them, lower the number "
            "of clients, or name the column `device` to draw each client's device from the file"
        )
    return [Recorded(tuple(times_s[str(c)])) for c in range(clients)]


def _read_trace(path: str) -> tuple[str, dict[str, list[float]]]:
    """What its first column is called, and the job times in seconds of each name in it."""
    times_s: dict[str, list[float]] = {}
    bad: list[str] = []
    try:
        # `-sig` as spreadsheets put a byte order mark before the first column's name.
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, skipinitialspace=True)
            columns = [column.strip() for column in rows.fieldnames or ()]
            rows.fieldnames = columns
            owner = next((column for column in ("client", "device") if column in columns), None)
            if owner is None or "seconds" not in columns:
                raise ConfigError(
                    f"{path}: the first line must name the columns `client,seconds` or `device,seconds`, "
                    f"got {','.join(columns)!r}: add it"
                )
            for row in rows:
                name, seconds = (row[owner] or "").strip(), _seconds(row["seconds"])
                if owner == "client" and name.isdecimal():
                    name = str(int(name))
                elif owner == "client" or not name:
                    bad.append(f"line {rows.line_num}: `{owner}` must be {_OWNERS[owner]}, got {name!r}")
                    continue
                if seconds is None:
                    bad.append(f"line {rows.line_num}: `seconds` must be a number above 0, got {row['seconds']!r}")
                    continue
                times_s.setdefault(name, []).append(seconds)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read as a CSV file ({error}): give a text file in UTF-8") from error
    if bad:
        more = f" (and {len(bad) - 1} more such lines)" if len(bad) > 1 else ""
        raise ConfigError(f"{path}: {bad[0]}{more}: mend or remove it")
    if not times_s:
        raise ConfigError(f"{path}: holds no times: add a line for each job seen, such as `0,12.5`")
    return owner, times_s


_OWNERS: Final = {"client": "a client number from 0", "device": "a name"}


def _seconds(text: str | None) -> float | None:
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def _run_laws(clients: int, key: Key, path: str) -> tuple[list[Law], list[Losses | None]]:
    """Job times and losses as in a recorded run. Raises ConfigError, in one line, if it tells of none."""
    remedy = f"give the folder of a recorded run after `{_RUN}`"
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


def _fitted(seen: Mapping[int, Observed], key: Key) -> dict[int, Law]:
    """The recorded clients' job times."""
    means = observed.expected_s(seen)
    for enough in (FEW, 2):
        those = [client for client in means if len(seen[client].times_s) >= enough]
        factors = Recorded(tuple(time / means[client] for client in those for time in seen[client].times_s) or (1.0,))
        if those:
            break
    laws: dict[int, Law] = {
        client: Recorded(tuple(seen[client].times_s)) if len(seen[client].times_s) >= FEW else Like(mean_s, factors)
        for client, mean_s in means.items()
    }
    for client in seen.keys() - means.keys():
        waited_s = max(seen[client].times_s, default=0.0)
        slower = [other for other in sorted(means) if means[other] >= waited_s]
        laws[client] = laws[slower[key.fold("unheard", client).below(len(slower))]]
    return laws


def _fitted_losses(seen: Mapping[int, Observed]) -> dict[int, Losses]:
    """How the recorded clients lose jobs; nothing where none was lost."""
    every = [after_s for jobs in seen.values() for after_s in jobs.lost_s]
    if not every:
        return {}
    usual = len(every) / (len(every) + sum(len(jobs.answered_s) for jobs in seen.values()))
    return {
        # One more job, of the federation's average: a client that lost its only job can still answer, and the reverse.
        client: Losses(
            (len(jobs.lost_s) + usual) / (len(jobs.lost_s) + len(jobs.answered_s) + 1),
            Recorded(tuple(jobs.lost_s or every)),
        )
        for client, jobs in seen.items()
    }
