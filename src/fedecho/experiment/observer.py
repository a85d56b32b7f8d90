"""The interface of whoever follows a run while it goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from .setup import Setup


class Observer(Protocol):
    """Follows a run while it goes."""

    def started(self, setup: Setup) -> None: ...

    def progressed(self, setup: Setup) -> None:
        """After every event."""
        ...

    def evaluated(self, row: Mapping[str, float]) -> None:
        """After an evaluation. `row` has the keys of `fedecho.runs.schema.BOOKKEEPING`, and for each metric of the
        objective `NAME`, `slow_client_NAME` and `fast_client_NAME`; values that are not known are None."""
        ...
