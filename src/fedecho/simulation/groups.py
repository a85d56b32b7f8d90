"""Speed groups: which clients are fast, medium and slow."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from ..core.keys import Key

GROUPS: Final = ("fast", "medium", "slow")


def default_counts(clients: int) -> tuple[int, int, int]:
    """How many clients are fast, medium and slow where nothing is set: 58, 28 and 14 %."""
    medium, slow = ((percent * clients + 50) // 100 for percent in (28, 14))
    return clients - medium - slow, medium, slow


def dealt_groups(key: Key, counts: Sequence[int]) -> list[str]:
    """Exactly `counts` clients per group, dealt in a random order."""
    order = sorted(range(sum(counts)), key=lambda client: key.fold("class", client).bits())
    return _in_order(order, counts)


def drawn_groups(clients: int, key: Key) -> list[str]:
    """The FADAS code's way: each client's class is the arg-max of a Dirichlet(3, 2, 1) draw."""

    def weight(draws: Key, shape: int) -> float:
        # A Gamma draw of whole shape is a sum of exponential draws. Dividing all of them by their sum, as a Dirichlet
        # draw does, leaves the arg-max as it is.
        return -sum(math.log1p(-draws.uniform(i)) for i in range(shape))

    def group(client: int) -> str:
        draws = {name: key.fold("class", client, name) for name in GROUPS}
        return max(GROUPS, key=lambda name: weight(draws[name], 3 - GROUPS.index(name)))

    return [group(client) for client in range(clients)]


def ranked(means_s: Sequence[float], counts: Sequence[int] | None = None) -> list[str]:
    """Groups by expected job time: the slowest `counts[2]` clients are "slow", the next `counts[1]` "medium".

    Where all expected times are equal, all clients are "fast".
    """
    counts = default_counts(len(means_s)) if counts is None else counts
    if min(means_s) == max(means_s):
        return ["fast"] * len(means_s)
    return _in_order(sorted(range(len(means_s)), key=lambda client: means_s[client]), counts)


def _in_order(order: Sequence[int], counts: Sequence[int]) -> list[str]:
    """The first `counts[0]` clients of `order` are fast, the next `counts[1]` medium, the others slow."""
    ends = (counts[0], counts[0] + counts[1])
    groups = [""] * len(order)
    for rank, client in enumerate(order):
        groups[client] = GROUPS[bisect_right(ends, rank)]
    return groups
