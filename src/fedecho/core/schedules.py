"""Step-size schedules: a factor on a step size, as a function of how much of the run is done."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval


@dataclass(frozen=True)
class Schedule:
    """A factor that multiplies a step size.

    Attributes:
        name: "constant" (1), "linear" or "cosine" (from 1 down to `final`), "step" (times `gamma` at each milestone).
        final: the factor at the end of the run, for linear and cosine.
        milestones: fractions of the run, for step.
        gamma: the factor at each milestone, for step.
        warmup: the fraction of the run over which the factor first rises linearly from 0 to the schedule's value.
    """

    name: Literal["constant", "linear", "cosine", "step"] = "constant"
    final: Annotated[float, Ge(0)] = 0.0
    milestones: tuple[Annotated[float, Interval(ge=0, le=1)], ...] = (0.5, 0.75)
    gamma: Annotated[float, Gt(0)] = 0.1
    warmup: Annotated[float, Interval(ge=0, le=1)] = 0.0

    def unused_settings(self) -> dict[str, str]:
        """Settings without effect, each with the reason."""
        unused = {"constant": ["final", "milestones", "gamma"], "step": ["final"]}.get(
            self.name, ["milestones", "gamma"]
        )
        return dict.fromkeys(unused, f"the schedule is {self.name!r}")

    def __call__(self, progress: float) -> float:
        """The factor when the fraction `progress` in [0, 1] of the run is done."""
        p = min(max(progress, 0.0), 1.0)
        if self.name == "linear":
            value = 1.0 + (self.final - 1.0) * p
        elif self.name == "cosine":
            value = self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * p))
        elif self.name == "step":
            value = self.gamma ** sum(p >= milestone for milestone in self.milestones)
        else:
            value = 1.0
        return value * (p / self.warmup if p < self.warmup else 1.0)
