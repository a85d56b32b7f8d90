"""Natural splits: one client is one owner, as the data set has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core.errors import ConfigError
from ..core.keys import Key
from .source import Source


def schemes() -> tuple[str, ...]:
    """The natural splits, sorted."""
    return ("natural", "natural_coupled")


def partition(
    source: Source,
    part: np.ndarray,
    clients: int,
    scheme: str,
    key: Key,
    *,
    min_examples: int = 1,
    max_examples: int | None = None,
    slow: Sequence[int] = (),
) -> tuple[list[int], list[np.ndarray]]:
    """Deal examples to the clients that own them.

    N owners become clients: those with most data (in the whole train part, so that it does not depend on what is held
    out); where the data set has domains, of all domains alike: the largest of each first, then the second of each, and
    so on. An owner that keeps fewer than `min_examples` is passed over. Who is not among them has no part in the run.

    - "natural": client 0 is the first of these, client 1 the second, and so on. Where a user's function returns each
      client's data, the first N of these that have enough are the clients, in the function's order.
    - "natural_coupled": delay coupled with the domain. The slow clients are owners of the same domains, chosen by
      `key`: whole domains as long as they fit, and of one more as many owners as are missing.

    Args:
        source: the data set.
        part: [n] the positions in `source.inputs` that clients may hold.
        clients: N.
        scheme: one of `schemes()`.
        key: where the randomness comes from.
        min_examples: no client has fewer, and at least one.
        max_examples: a client that has more keeps a random part of this size. None: no cap.
        slow: the slow clients' numbers, for "natural_coupled".

    Returns:
        The owner that each client is, and for each a sorted int64 array of positions in `part`.

    Raises:
        ConfigError: the data set knows no owners or no domains, has too few, or the arguments contradict each other.
    """
    _check(source, scheme, min_examples, max_examples)
    assert source.owners is not None
    everyone = int(source.owners.max()) + 1
    whole = np.bincount(source.owners.numpy(), minlength=everyone)
    owners = source.owners.numpy()[part]
    counts = np.bincount(owners, minlength=everyone)
    domains = np.zeros(everyone, dtype=np.int64) if source.domains is None else source.domains.numpy()[:everyone]
    able = np.flatnonzero(counts >= max(1, min_examples))
    if clients > len(able):
        raise ConfigError(
            f"data.clients ({clients}) exceeds the {len(able)} owners in {source.name!r} that have "
            f"{max(1, min_examples)} examples or more to train on (of {everyone}); take at most {len(able)}"
        )
    chosen = (able if source.owners_are_clients else _ranked(able, whole, domains))[:clients]
    rng = key.numpy()
    if scheme == "natural_coupled":
        chosen = _coupled(source, chosen, domains[chosen], sorted(slow), rng)
    rows = [np.flatnonzero(owners == owner) for owner in chosen]
    if max_examples is not None:
        rows = [rng.choice(own, max_examples, replace=False) if len(own) > max_examples else own for own in rows]
    return chosen.tolist(), [np.sort(own).astype(np.int64) for own in rows]


def _check(source: Source, scheme: str, min_examples: int, max_examples: int | None) -> None:
    if source.owners is None:
        raise ConfigError(
            f"data.partition {scheme!r} needs data whose owners are known, and those of {source.name!r} are not; take "
            "another split"
        )
    if max_examples is not None and max_examples < max(1, min_examples):
        raise ConfigError(
            f"`max_examples` ({max_examples}) is below max(1, `min_examples` = {min_examples}); raise it or drop it"
        )


def _ranked(able: np.ndarray, sizes: np.ndarray, domains: np.ndarray) -> np.ndarray:
    """Owners in the order in which they become clients: the largest of each domain, then the second of each, …"""
    able = able[np.lexsort((able, -sizes[able]))]
    rank = np.zeros(len(able), dtype=np.int64)
    for domain in np.unique(domains):
        rank[domains[able] == domain] = np.arange((domains[able] == domain).sum())
    return able[np.argsort(rank, kind="stable")]


def _coupled(
    source: Source, chosen: np.ndarray, domains: np.ndarray, slow: Sequence[int], rng: np.random.Generator
) -> np.ndarray:
    """The owners in such an order that the slow clients are of the same domains."""
    if source.domains is None or len(np.unique(domains)) < 2:
        raise ConfigError(
            f"data.partition 'natural_coupled' needs owners of two domains or more, and the {len(chosen)} of "
            f"{source.name!r} have {'none' if source.domains is None else 'one'}; take 'natural', or more clients"
        )
    if not 0 < len(slow) < len(chosen):
        raise ConfigError(
            f"data.partition 'natural_coupled' needs some clients that are slow, not all; {len(slow)} of {len(chosen)} "
            "are: choose a population with slow clients, or take 'natural'"
        )
    room = len(slow)
    order = rng.permutation(np.unique(domains))
    taken: list[np.ndarray] = []
    left = []
    for domain in order:
        members = np.flatnonzero(domains == domain)
        if len(members) <= room:
            taken.append(members)
            room -= len(members)
        else:
            left.append(members)
    if room:
        taken.append(left[0][:room])
    slow_owners = np.sort(np.concatenate(taken))
    placed = np.empty_like(chosen)
    placed[list(slow)] = chosen[slow_owners]
    others = np.setdiff1d(np.arange(len(chosen)), slow)
    placed[others] = chosen[np.setdiff1d(np.arange(len(chosen)), slow_owners)]
    return placed
