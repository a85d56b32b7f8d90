"""The `[population]` table."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .delay_models import delay_model_classes, delay_settings, settings_used, split_name
from .delay_models.trace import SECONDS
from .groups import GROUPS as GROUPS
from .groups import default_counts as default_counts

_ASSIGNMENTS: Final = ("fixed", "dirichlet")
_AVAILABILITIES: Final = ("windows", "data")

_LARGEST_SIGMA: Final = 3.0
"""There the slowest of fifty clients is near a million times slower than the fastest: more can only be a slip."""

# The shortest time of presence or absence, the product of these two, is above the resolution of a float that holds
# decades of virtual time in seconds, so each change comes later than the last.
_SHORTEST_DAY_S: Final = 0.001
_SMALLEST_SHARE: Final = 0.001
_SPREAD: Final = f"from 0 to {_LARGEST_SIGMA:g}"
_SHARES: Final = f"from {_SMALLEST_SHARE:g} to {1 - _SMALLEST_SHARE:g}, or 1"


@dataclass(frozen=True)
class PopulationConfig:
    """The `[population]` table.

    Fields:
        name: the delay model (`fedecho list populations`, `fedecho.simulation.delay_models`): "none", "mild", "large",
            "exponential", "lognormal", "phones", "trace:PATH", "run:RUN_DIR", or a user's own `module:Class`. Job times
            are drawn anew for every job. Which of the settings below a model uses, its class says.
        class_counts: how many clients are fast, medium, slow. Unset: 58, 28 and 14 % (29/14/7 of 50; ours: the FADAS
            code's draw gives 64, 28 and 8 % on average, which leaves few slow clients to judge by). Where the model has
            no classes these are the sizes of the groups, by expected job time; no effect on "none".
        assignment: "fixed" deals exactly `class_counts` classes to the clients, in a random order; "dirichlet" is the
            FADAS code's way, the arg-max of a Dirichlet(3, 2, 1) draw per client (of 50, 1 to 8 are slow; at times
            none). Used by "mild" and "large".
        slow_s: lowest and highest job time of the slow class in "mild" and "large", in seconds, instead of the regime's
            own. [1, 2] makes the slow clients as fast as the fast ones and still counts them as slow: the same
            federation without its stragglers, to see what they cost.
        mean_s: mean job time, in seconds, over all clients ("exponential", "lognormal") or of the median device
            ("phones"). Default 1: a unit of time, because with an instant network only ratios matter.
        sigma: spread between clients ("exponential", "lognormal"): the standard deviation of the logarithm of their
            mean times. Unset: 0 for "exponential" (all alike, as in FedRevive, and then all in the group "fast"), 1
            for "lognormal" (ours).
        job_sigma: spread between the jobs of one client ("lognormal", "phones"), likewise. Default 0.25 (ours).
        down_mbps, up_mbps: median bandwidth to and from a client, in 10⁶ bit/s; 0 (the default) is infinitely fast.
            Synthetic.
        network_sigma: spread of the bandwidth between clients, likewise; one factor for both directions, because a poor
            connection is poor in both. Default 0. Synthetic.
        latency_s: seconds that each direction takes in addition, so a job pays them twice. Default 0. Synthetic.
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
    client_column: str | None = None
    seconds_column: str = "seconds"
    unit: str = "s"
    options: Mapping[str, Any] = field(default_factory=dict)

    def faults(self, clients: int | None = None) -> list[str]:
        """Everything wrong with these settings, one line each with its remedy; empty if all is well.

        Args:
            clients: the number of clients, if known: then `class_counts` is checked against it.
        """
        faults = [*_name_faults(self.name), *self._class_faults(clients), *self._trace_faults()]
        if self.availability not in _AVAILABILITIES:
            faults.append(
                f"`availability` must be one of {', '.join(_AVAILABILITIES)}, got {self.availability!r}: use one of "
                "these"
            )
        elif self.availability == "data" and self.available_fraction != 1:
            faults.append(
                f"`available_fraction` ({self.available_fraction!r}) is of windows, and `availability` is 'data': "
                "leave one of them out"
            )
        options: object = self.options
        if not isinstance(options, Mapping):
            faults.append(f"`options` must be a table of settings, got {options!r}: write [population.options]")
        elif options and isinstance(self.name, str) and split_name(self.name)[0] is not None:
            faults.append(f"`options` are for a delay model of your own, and `name` is {self.name!r}: leave them out")
        for name, bounds, fits, remedy in _NUMBERS:
            value = getattr(self, name)
            if value is None and name in ("sigma", "timeout_s"):
                continue
            if not (_is_number(value) and fits(value)):
                faults.append(f"`{name}` must be a number {bounds}, got {value!r}: {remedy}")
        return faults

    def unused_settings(self) -> dict[str, str]:
        """Settings without effect, each with the reason."""
        reasons: dict[str, str] = {}
        used = settings_used(self.name)
        if used is not None:  # else nobody knows what a user's own delay model uses, but `options`
            reasons = dict.fromkeys(sorted(delay_settings() - used), f"population.name is {self.name!r}")
            reasons["options"] = f"population.name is {self.name!r}, no delay model of your own"
        if self.down_mbps == self.up_mbps == 0:
            reasons["network_sigma"] = "the network is infinitely fast (down_mbps and up_mbps are 0)"
        if self.available_fraction == 1 and self.availability == "windows":
            reasons["day_s"] = "population.available_fraction is 1"
        return reasons

    def _trace_faults(self) -> list[str]:
        faults = []
        if self.unit not in SECONDS:
            faults.append(f"`unit` must be one of {', '.join(SECONDS)}, got {self.unit!r}: use one of these")
        columns: dict[str, object] = {"seconds_column": self.seconds_column}
        if self.client_column is not None:
            columns["client_column"] = self.client_column
        for name, column in columns.items():
            if not isinstance(column, str) or not column.strip():
                faults.append(f"`{name}` must be the name of a column, got {column!r}: give a name of the first line")
        return faults

    def _class_faults(self, clients: int | None) -> list[str]:
        faults = []
        if self.assignment not in _ASSIGNMENTS:
            faults.append(
                f"`assignment` must be one of {', '.join(_ASSIGNMENTS)}, got {self.assignment!r}: use one of these"
            )
        bounds: object = self.slow_s
        if bounds is not None and not (
            isinstance(bounds, (tuple, list))
            and len(bounds) == 2
            and all(_is_number(bound) for bound in bounds)
            and 0 < bounds[0] <= bounds[1]
        ):
            faults.append(f"`slow_s` must be a lowest and a highest time above 0, got {bounds!r}: give two, as [1, 2]")
        used = settings_used(self.name) if isinstance(self.name, str) else frozenset()
        if bounds is not None and (used is None or "slow_s" not in used):
            faults.append(f"`slow_s` is the slow class's time, and {self.name!r} has no classes: leave it out")
        counts: object = self.class_counts
        if counts is None:
            return faults
        if (
            not isinstance(counts, (tuple, list))
            or len(counts) != len(GROUPS)
            or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in counts)
        ):
            faults.append(
                f"`class_counts` must be three numbers of clients (fast, medium, slow), got {counts!r}: "
                "give three integers, such as [29, 14, 7]"
            )
        elif clients is not None and sum(counts) != clients:
            faults.append(
                f"`class_counts` {list(counts)} add up to {sum(counts)}, but there are {clients} clients: "
                f"change the counts, or leave them out for {list(default_counts(clients))}"
            )
        if self.assignment == "dirichlet":
            faults.append(
                '`class_counts` fixes what `assignment = "dirichlet"` would draw: leave out the counts, '
                'or use `assignment = "fixed"`'
            )
        return faults


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_spread(value: float) -> bool:
    return 0 <= value <= _LARGEST_SIGMA


def _is_share(value: float) -> bool:
    return _SMALLEST_SHARE <= value <= 1 - _SMALLEST_SHARE or value == 1


def _is_day(value: float) -> bool:
    return value >= _SHORTEST_DAY_S


def _name_faults(name: object) -> list[str]:
    if isinstance(name, str):
        module, _, cls = name.partition(":")
        if split_name(name)[0] is not None or (module and cls):  # a user's own class is imported when it is needed
            return []
    close = difflib.get_close_matches(str(name), delay_model_classes(), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return [f"`name` is no known population, got {name!r}: {hint}one of {', '.join(names())}, or `module:Class`"]


_NUMBERS: Final[list[tuple[str, str, Callable[[float], bool], str]]] = [
    ("mean_s", "above 0", lambda x: x > 0, "give seconds, such as 1.0"),
    ("sigma", _SPREAD, _is_spread, "0 makes all clients alike; at 1 a tenth take over 3.6 times the median"),
    ("job_sigma", _SPREAD, _is_spread, "0 makes all jobs of a client alike"),
    ("down_mbps", "0 or above", lambda x: x >= 0, "0 is infinitely fast"),
    ("up_mbps", "0 or above", lambda x: x >= 0, "0 is infinitely fast"),
    ("network_sigma", _SPREAD, _is_spread, "0 gives all clients the same bandwidth"),
    ("latency_s", "0 or above", lambda x: x >= 0, "give seconds each way, such as 0.05"),
    ("dropout", "from 0 to below 1", lambda x: 0 <= x < 1, "at 1 no result would ever arrive"),
    ("timeout_s", "above 0", lambda x: x > 0, "leave it out for losses heard of when the result was due"),
    ("available_fraction", _SHARES, _is_share, "1 is always; at 0 nobody would ever come"),
    ("day_s", f"of at least {_SHORTEST_DAY_S:g}", _is_day, "give seconds of virtual time, such as 86400"),
]
"""Setting, its bounds in words and as a test, and the remedy."""


def names() -> tuple[str, ...]:
    """The delay models that ship, sorted; `run:RUN_DIR` and `trace:PATH` stand for any folder and path."""
    return tuple(
        f"{name}:{model.argument}" if model.argument else name for name, model in delay_model_classes().items()
    )
