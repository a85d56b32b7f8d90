"""When clients are present."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

HOURS: Final = 24
"""Hours of a day."""


class Presence(Protocol):
    """When one client is present. Both methods compare times with the same sums only, so they agree to the bit."""

    def present(self, at_s: float) -> bool: ...

    def next_change(self, after_s: float) -> float | None: ...


@dataclass(frozen=True)
class Always:
    """At all times."""

    def present(self, at_s: float) -> bool:
        return True

    def next_change(self, after_s: float) -> float | None:
        return None


@dataclass(frozen=True)
class Window:
    """A share of each day. The client's day begins at `dawn_s`, a time of its own."""

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
class Hours:
    """Some hours of every day."""

    hours: frozenset[int]
    hour_s: float

    def present(self, at_s: float) -> bool:
        return _place(at_s, at_s / self.hour_s, self._begins_at_s) % HOURS in self.hours

    def next_change(self, after_s: float) -> float | None:
        now = _place(after_s, after_s / self.hour_s, self._begins_at_s)
        present = now % HOURS in self.hours
        later = (now + step for step in range(1, HOURS + 1))
        return next((self._begins_at_s(hour) for hour in later if (hour % HOURS in self.hours) != present), None)

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
