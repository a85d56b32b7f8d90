"""Who is told how a run goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from .setup import Setup


class Observer(Protocol):
    """Is told how a run goes."""

    def started(self, setup: Setup) -> None: ...

    def progressed(self, setup: Setup) -> None:
        """After every event."""
        ...

    def evaluated(self, row: Mapping[str, float]) -> None:
        """After an evaluation; `row` has the keys of `fedecho.runs.schema.METRICS`."""
        ...
