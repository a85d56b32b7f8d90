"""The delay regimes of FADAS (Wang, Zhou, Wang & Chen 2024, arXiv 2407.18365): three classes of uniform job times."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar

from ...core.keys import Key
from ..groups import dealt_groups, default_counts, drawn_groups
from ..job_times import Uniform
from .base import ClientDelays, DelayModel


@dataclass(frozen=True)
class Regime(DelayModel):
    """Three classes of clients: fast U(1, 2) s, medium U(3, 5) s and slow. One key gives both regimes the same classes.

    Attributes:
        class_counts: how many clients are fast, medium and slow; None: 58, 28 and 14 %.
        assignment: "fixed" deals exactly these counts in a random order; "dirichlet" draws each client's class as the
            FADAS code does.
        slow_s: lowest and highest job time of the slow class, seconds, instead of the regime's own.
    """

    class_counts: tuple[int, int, int] | None = None
    assignment: str = "fixed"
    slow_s: tuple[float, float] | None = None

    @property
    @abc.abstractmethod
    def regime_slow_s(self) -> tuple[float, float]:
        """The regime's own range of the slow class's job times, seconds."""

    def delays(self, clients: int, key: Key) -> ClientDelays:
        if self.assignment == "dirichlet":
            groups = drawn_groups(clients, key)
        else:
            groups = dealt_groups(key, self.class_counts or default_counts(clients))
        slow = Uniform(*(self.slow_s or self.regime_slow_s))
        job_times = {"fast": Uniform(1, 2), "medium": Uniform(3, 5), "slow": slow}
        return ClientDelays([job_times[group] for group in groups], groups)


@dataclass(frozen=True)
class Mild(Regime):
    """Three classes as in FADAS: fast U(1, 2) s, medium U(3, 5) s, slow U(5, 8) s."""

    name: ClassVar[str] = "mild"

    @property
    def regime_slow_s(self) -> tuple[float, float]:
        return 5, 8


@dataclass(frozen=True)
class Large(Regime):
    """Three classes as in FADAS: fast U(1, 2) s, medium U(3, 5) s, slow U(50, 80) s."""

    name: ClassVar[str] = "large"

    @property
    def regime_slow_s(self) -> tuple[float, float]:
        return 50, 80
