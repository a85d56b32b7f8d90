"""Exponential job times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...core.keys import Key
from ..job_times import Exponential, lognormal_factor
from .base import ClientDelays, DelayModel


@dataclass(frozen=True)
class ExponentialDelays(DelayModel):
    """Exponential job times of mean `mean_s`, as in FedRevive (arXiv 2511.00655).

    Attributes:
        mean_s: mean job time over all clients, seconds.
        sigma: spread between clients: the standard deviation of the logarithm of their means. At 0 all are alike, as in
            FedRevive, and all are in the group "fast".
    """

    name: ClassVar[str] = "exponential"

    mean_s: float = 1.0
    sigma: float = 0.0

    def delays(self, clients: int, key: Key) -> ClientDelays:
        factors = (lognormal_factor(key.fold("speed", client), self.sigma) for client in range(clients))
        return ClientDelays([Exponential(self.mean_s * factor) for factor in factors])
