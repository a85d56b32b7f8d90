"""The `[population]` table."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .job_times import REGIMES

GROUPS: Final = ("fast", "medium", "slow")


TRACE_PREFIX: Final = "trace:"


RUN_PREFIX: Final = "run:"


_ASSIGNMENTS: Final = ("fixed", "dirichlet")


_AVAILABILITIES: Final = ("windows", "data")


# There the slowest of fifty clients is already near a million times slower than the fastest: more can only be a slip.
_LARGEST_SIGMA: Final = 3.0


# The shortest stretch of presence or absence, their product, is above the resolution of a float that holds decades of
# virtual time in seconds, so that each change comes later than the last.
_SHORTEST_DAY_S: Final = 0.001


_SMALLEST_SHARE: Final = 0.001


_SHARES: Final = f"from {_SMALLEST_SHARE:g} to {1 - _SMALLEST_SHARE:g}, or 1"


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

    def unused_settings(self) -> dict[str, str]:
        """Settings without effect, each with the reason."""
        reason = f"population.name is {self.name!r}"
        unused = {
            "class_counts": self.name == "none",
            "assignment": self.name not in REGIMES,
            "mean_s": self.name not in ("exponential", "lognormal", "phones"),
            "sigma": self.name not in ("exponential", "lognormal"),
            "job_sigma": self.name not in ("lognormal", "phones"),
        }
        reasons = {name: reason for name, idle in unused.items() if idle}
        if self.down_mbps == self.up_mbps == 0:
            reasons["network_sigma"] = "the network is infinitely fast (down_mbps and up_mbps are 0)"
        if self.available_fraction == 1 and self.availability == "windows":
            reasons["day_s"] = "population.available_fraction is 1"
        return reasons

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
        if bounds is not None and self.name not in REGIMES:
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
                f"change the counts, or leave them out for {list(default_counts(clients))}"
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
    if not isinstance(name, str) or (not name.startswith((TRACE_PREFIX, RUN_PREFIX)) and name not in _KINDS):
        close = difflib.get_close_matches(str(name), _KINDS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return [f"`name` is no known population, got {name!r}: {hint}one of {known}"]
    return []


def names() -> tuple[str, ...]:
    """The named kinds of populations, sorted; `run:RUN_DIR` and `trace:PATH` stand for any folder and path."""
    return (*_KINDS, f"{RUN_PREFIX}RUN_DIR", f"{TRACE_PREFIX}PATH")


def default_counts(clients: int) -> tuple[int, int, int]:
    medium, slow = ((percent * clients + 50) // 100 for percent in (28, 14))
    return clients - medium - slow, medium, slow


_KINDS: Final = ("exponential", "large", "lognormal", "mild", "none", "phones")
