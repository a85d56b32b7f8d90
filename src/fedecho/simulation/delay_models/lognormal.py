"""Log-normal job times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...core.keys import Key
from ..job_times import LogNormal, lognormal_factor
from .base import ClientDelays, DelayModel


@dataclass(frozen=True)
class LogNormalDelays(DelayModel):
    """Each client has its own mean job time (`sigma`), and its jobs vary around it (`job_sigma`). Synthetic.

    Attributes:
        mean_s: mean job time over all clients, seconds.
        sigma: spread between clients: the standard deviation of the logarithm of their means. The default is ours.
        job_sigma: spread between the jobs of one client, likewise. The default is ours.
    """

    name: ClassVar[str] = "lognormal"

    mean_s: float = 1.0
    sigma: float = 1.0
    job_sigma: float = 0.25

    def delays(self, clients: int, key: Key) -> ClientDelays:
        factors = (lognormal_factor(key.fold("speed", client), self.sigma) for client in range(clients))
        return ClientDelays([LogNormal(self.mean_s * factor, self.job_sigma) for factor in factors])
