"""How far a run is."""

from __future__ import annotations

from dataclasses import dataclass

from ..experiment.setup import Setup

ENOUGH_REFUSED = 20
"""Refused updates from which on a run in which most are refused is warned of."""


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        share: of the whole run, from 0 to 1.
        updates: accepted so far.
        refused: updates refused so far.
    """

    share: float = 0.0
    updates: int = 0
    refused: int = 0

    @classmethod
    def of(cls, setup: Setup) -> Progress:
        state = setup.server.state
        return cls(float(setup.server.progress), state.updates, state.refused)

    @property
    def warning(self) -> str | None:
        """One sentence once more updates are refused than accepted, `ENOUGH_REFUSED` at least; else None."""
        if self.refused < max(ENOUGH_REFUSED, self.updates + 1):
            return None
        return (
            f"{self.refused} of {self.updates + self.refused} updates are refused so far; lower client.lr if clients "
            "diverge, or check the limits of the server and the rule"
        )
