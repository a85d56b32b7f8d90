"""How long clients' changes usually are, so that an absurdly long one can be told.

Each client counts once, with its latest change: a client that answers often cannot move the median by itself. A refused
change counts like any other, so that a genuine change of regime is accepted once most clients show it. What is usual is
the highest median so far: norms shrink as clients fit their data, and a straggler, or a client with little or unusual
data, still sends changes as long as everybody's were earlier.
"""

from __future__ import annotations

from dataclasses import dataclass, field

RECENT_CLIENTS = 51
"""The clients heard last, whose latest norms make the median."""

ENOUGH = 10
"""Changes to be heard before the median counts, of as many clients (or of more than half of them where there are
fewer)."""


@dataclass(slots=True)
class NormHistory:
    """The norms heard so far, as far as they are remembered.

    Attributes:
        latest: client to the L2 norm of its latest change, least recently heard first; at most `RECENT_CLIENTS`.
        heard: norms heard in the whole run.
        usual: the highest median of `latest` so far; 0 until enough is known.
    """

    latest: dict[int, float] = field(default_factory=dict)
    heard: int = 0
    usual: float = 0.0

    def remember(self, client: int, norm: float, clients: int) -> None:
        """Hear of a change; `clients` is N. Of an even number of norms the lower middle one is the median: only more
        than half of the clients can raise it."""
        self.latest.pop(client, None)
        self.latest[client] = norm
        if len(self.latest) > RECENT_CLIENTS:
            del self.latest[next(iter(self.latest))]
        self.heard += 1
        if self.heard >= ENOUGH and len(self.latest) >= min(ENOUGH, clients // 2 + 1):
            self.usual = max(self.usual, sorted(self.latest.values())[(len(self.latest) - 1) // 2])

    def copy(self) -> NormHistory:
        """An equal history that can change by itself."""
        return NormHistory(dict(self.latest), self.heard, self.usual)
