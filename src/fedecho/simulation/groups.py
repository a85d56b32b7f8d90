"""Speed groups: which clients are fast, medium and slow."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

from ..core.keys import Key
from .settings import GROUPS, default_counts


def dealt_groups(key: Key, counts: Sequence[int]) -> list[str]:
    order = sorted(range(sum(counts)), key=lambda client: key.fold("class", client).bits())
    return _in_order(order, counts)


def drawn_groups(clients: int, key: Key) -> list[str]:
    """The FADAS code's way: each client's class is the arg-max of a Dirichlet(3, 2, 1) draw."""

    def weight(draws: Key, shape: int) -> float:
        # A Gamma of whole shape is a sum of exponentials, and a Dirichlet draw is Gammas over their sum, which leaves
        # the arg-max as it is.
        return -sum(math.log1p(-draws.uniform(i)) for i in range(shape))

    def group(client: int) -> str:
        draws = {name: key.fold("class", client, name) for name in GROUPS}
        return max(GROUPS, key=lambda name: weight(draws[name], 3 - GROUPS.index(name)))

    return [group(client) for client in range(clients)]


def ranked(means_s: Sequence[float], counts: Sequence[int] | None = None) -> list[str]:
    """Groups by expected time, the slowest `counts[2]` of the clients "slow", and so on; see `class_counts`."""
    counts = default_counts(len(means_s)) if counts is None else counts
    if min(means_s) == max(means_s):
        # Nobody is slower than anybody: to call some "slow" would give a difference a name that it does not have.
        return ["fast"] * len(means_s)
    return _in_order(sorted(range(len(means_s)), key=lambda client: means_s[client]), counts)


def _in_order(order: Sequence[int], counts: Sequence[int]) -> list[str]:
    ends = (counts[0], counts[0] + counts[1])
    groups = [""] * len(order)
    for rank, client in enumerate(order):
        groups[client] = GROUPS[bisect_right(ends, rank)]
    return groups
