"""How long clients' jobs take: distributions of the training time of one job."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import Final, Protocol

from ..core.keys import Key

_STANDARD_NORMAL: Final = NormalDist()


class JobTimes(Protocol):
    """How one client's job times are distributed: seconds of training, without the network.

    Those of a recorded run include the network that it had.
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
        return self.mean_s * lognormal_factor(key, self.sigma)


@dataclass(frozen=True)
class Empirical:
    """One of `times_s`, each as likely as the others.

    Resampled, not played back in order: a plan may not depend on what was dispatched before, and the place of a job in
    its client's history does.
    """

    times_s: tuple[float, ...]

    @property
    def mean_s(self) -> float:
        return fmean(self.times_s)

    def draw(self, key: Key) -> float:
        return self.times_s[key.below(len(self.times_s))]


@dataclass(frozen=True)
class ScaledEmpirical:
    """`mean_s` times one of `factors`, whose mean is 1."""

    mean_s: float
    factors: Empirical

    def draw(self, key: Key) -> float:
        return self.mean_s * self.factors.draw(key)


@dataclass(frozen=True)
class Losses:
    """A share `rate` of a client's jobs is lost; the server hears of it after one of the times `after`."""

    rate: float
    after: Empirical


def standard_normal(key: Key) -> float:
    # `inv_cdf` has no value at 0, which `uniform` may return.
    return _STANDARD_NORMAL.inv_cdf(key.uniform() or 2.0**-54)


def lognormal_factor(key: Key, sigma: float) -> float:
    """A log-normal factor of mean 1."""
    return math.exp(sigma * standard_normal(key) - sigma * sigma / 2)
