"""No stragglers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...core.keys import Key
from ..job_times import Uniform
from .base import ClientDelays, DelayModel


@dataclass(frozen=True)
class NoStragglers(DelayModel):
    """Every job takes U(1, 2) s; all clients are in the group "fast"."""

    name: ClassVar[str] = "none"

    def delays(self, clients: int, key: Key) -> ClientDelays:
        return ClientDelays([Uniform(1, 2)] * clients, ["fast"] * clients)

    @classmethod
    def settings_used(cls) -> frozenset[str]:
        return frozenset()
