"""How a labelled data set is dealt to clients.

Most schemes come down to a table, clients × classes, of how many examples to give; `_deal` turns it into indices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..core.errors import ConfigError, DataError
from ..core.keys import Key

REDRAWS = 200
"""Of the "dirichlet" scheme, before it gives up."""


@dataclass(frozen=True)
class _Split:
    """What a scheme is asked for.

    Attributes:
        supply: [C] how many examples there are of each class.
        clients: N.
        alpha, classes_per_client, min_examples, slow, slow_classes, coupling, max_examples: see `partition`.
    """

    supply: np.ndarray
    clients: int
    alpha: float
    classes_per_client: int
    min_examples: int
    slow: Sequence[int]
    slow_classes: int
    coupling: float
    max_examples: int | None


def partition(
    labels: np.ndarray,
    clients: int,
    scheme: str,
    key: Key,
    *,
    alpha: float = 0.1,
    classes_per_client: int = 2,
    min_examples: int = 1,
    slow: Sequence[int] = (),
    slow_classes: int = 2,
    coupling: float = 0.95,
    max_examples: int | None = None,
) -> list[np.ndarray]:
    """Deal examples to clients; no example goes to two of them. `TABLES` and `SIZES` say what each scheme does.

    Args:
        labels: [n] integers; any values.
        clients: N.
        scheme: one of `schemes()`.
        key: where the randomness comes from; the same key gives the same result.
        alpha: the Dirichlet concentration of "dirichlet", "dirichlet_mix", "quantity" and "coupled": small is skewed.
        classes_per_client: for "pathological".
        min_examples: no client may have fewer.
        slow: the slow clients' numbers, for "coupled".
        slow_classes: how many classes they own, for "coupled".
        coupling: the fraction of these classes' examples they own, in (0, 1], for "coupled".
        max_examples: a client that got more keeps a random part of this size (in "dirichlet_mix" it takes no more in
            the first place). None: no cap.

    Returns:
        For each client a sorted int64 array of positions in `labels`.

    Raises:
        ConfigError: an argument is out of range, or the arguments contradict each other.
        DataError: these labels cannot be dealt so that every client has `min_examples`.
    """
    labels = np.asarray(labels)
    _check_arguments(labels, clients, scheme, alpha, min_examples, max_examples)
    classes = np.unique(labels, return_inverse=True)[1]
    split = _Split(
        np.bincount(classes), clients, alpha, classes_per_client, min_examples, slow, slow_classes, coupling,
        max_examples,
    )  # fmt: skip
    rng = key.numpy()
    if scheme in SIZES:
        sizes = SIZES[scheme](split, rng)
        parts = np.split(rng.permutation(len(labels)), np.cumsum(sizes)[:-1])
    else:
        parts = _deal(classes, TABLES[scheme](split, rng), rng)
    if max_examples is not None:
        parts = [rng.choice(part, max_examples, replace=False) if len(part) > max_examples else part for part in parts]
    fewest = min(range(clients), key=lambda client: len(parts[client]))
    if len(parts[fewest]) < min_examples:
        raise DataError(
            f"the scheme {scheme!r} leaves client {fewest} {len(parts[fewest])} examples, below `min_examples` "
            f"({min_examples}); use fewer clients, or lower `min_examples`"
        )
    return [np.sort(part).astype(np.int64) for part in parts]


def _check_arguments(
    labels: np.ndarray, clients: int, scheme: str, alpha: float, min_examples: int, max_examples: int | None
) -> None:
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) == 0:
        raise ConfigError(f"`labels` is {labels.dtype} {list(labels.shape)}; give integers [n], n ≥ 1")
    _check(
        (clients >= 1, f"`clients` ({clients}) must be at least 1"),
        (scheme in schemes(), f"`scheme` ({scheme!r}) is unknown; choose from {', '.join(schemes())}"),
        (0 < alpha < np.inf, f"`alpha` ({alpha}) must be positive and finite; small is skewed, large is even"),
        (min_examples >= 0, f"`min_examples` ({min_examples}) must not be negative"),
        (
            clients * min_examples <= len(labels),
            f"`clients` ({clients}) × `min_examples` ({min_examples}) exceeds the {len(labels)} examples; lower either",
        ),
        (
            max_examples is None or max_examples >= max(1, min_examples),
            f"`max_examples` ({max_examples}) is below max(1, `min_examples` = {min_examples}); raise it or drop it",
        ),
    )


def _check(*conditions: tuple[bool, str]) -> None:
    if faults := [fault for holds, fault in conditions if not holds]:
        raise ConfigError(faults)


def _deal(classes: np.ndarray, table: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Random examples by a table [clients, classes] of how many each client gets of each class."""
    by_class = np.split(np.argsort(classes, kind="stable"), np.cumsum(np.bincount(classes))[:-1])
    shares = [np.split(rng.permutation(own), np.cumsum(table[:, k]))[:-1] for k, own in enumerate(by_class)]
    return [np.concatenate(pieces) for pieces in zip(*shares, strict=True)]


def _even(total: int, parts: int) -> np.ndarray:
    """`total` in `parts` integers that differ by one at most, the larger ones first."""
    return total // parts + (np.arange(parts) < total % parts)


def _log_dirichlet(rng: np.random.Generator, alpha: float, *shape: int) -> np.ndarray:
    """Dirichlet draws along the last axis, as logarithms up to a constant.

    For small alpha nearly all shares underflow to zero, but which of the classes left is a client's favourite must
    still be known when the first ones have run out. G(alpha) has the law of G(alpha + 1) · U^(1/alpha).
    """
    # 1 - U lies in (0, 1], so the logarithm is finite.
    return np.log(rng.standard_gamma(alpha + 1, shape)) + np.log1p(-rng.random(shape)) / alpha


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights: np.ndarray = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return weights


def _split(total: int, logits: np.ndarray) -> np.ndarray:
    """`total` in integers proportional to exp(logits), each rounded to a neighbour."""
    edges = np.rint(np.cumsum(_softmax(logits)) * total).astype(np.int64)
    edges[-1] = total
    return np.diff(edges, prepend=0)


def _iid(split: _Split, rng: np.random.Generator) -> np.ndarray:
    """A random split; sizes differ by one at most. Every example is dealt."""
    return _even(int(split.supply.sum()), split.clients)


def _quantity(split: _Split, rng: np.random.Generator) -> np.ndarray:
    """Sizes are `min_examples` plus a share of the rest by one Dir(alpha); labels are iid. Every example is dealt."""
    rest = int(split.supply.sum()) - split.clients * split.min_examples
    return split.min_examples + _split(rest, _log_dirichlet(rng, split.alpha, split.clients))


def _dirichlet(split: _Split, rng: np.random.Generator) -> np.ndarray:
    """Each class is split over the clients by its own Dir(alpha) (Yurochkin et al. 2019, arXiv 1905.12022; Lin et al.
    2020, arXiv 2006.07242), redrawn as a whole until every client has `min_examples`. Sizes differ widely. Every
    example is dealt."""
    clients, alpha = split.clients, split.alpha
    for _ in range(REDRAWS):
        logits = _log_dirichlet(rng, alpha, len(split.supply), clients)
        table = np.stack([_split(int(own), row) for own, row in zip(split.supply, logits, strict=True)], axis=1)
        if table.sum(1).min() >= split.min_examples:
            return table
    raise DataError(
        f"the scheme 'dirichlet' with `alpha` {alpha} gave some of {clients} clients fewer than `min_examples` "
        f"({split.min_examples}) in each of {REDRAWS} draws; raise `alpha`, use fewer clients, or take 'dirichlet_mix'"
    )


def _dirichlet_mix(split: _Split, rng: np.random.Generator) -> np.ndarray:
    """Each client draws a label mix from Dir(alpha) and takes exactly ⌊n/N⌋ examples by it (Hsu et al. 2019, arXiv
    1909.06335, with a uniform prior); up to N - 1 examples are left over.

    A class that runs out loses its mass to the classes left. If clients took their whole share in turn, the last would
    get what nobody else took, whatever their mix. Here all take at once: a class of which more is asked than it has is
    shared at random, in proportion to what each client asked for, and only the shortfall is drawn again. So no client
    is favoured, and every request for a class that has enough is met.
    """
    size = int(split.supply.sum()) // split.clients
    size = size if split.max_examples is None else min(size, split.max_examples)
    return _mix(split.supply, np.full(split.clients, size), split.alpha, rng)


def _mix(supply: np.ndarray, sizes: np.ndarray, alpha: float, rng: np.random.Generator) -> np.ndarray:
    """Clients of given sizes, each with its own label mix from Dir(alpha); see "dirichlet_mix"."""
    logits = _log_dirichlet(rng, alpha, len(sizes), len(supply))
    supply, wanted = supply.copy(), sizes.copy()
    table = np.zeros(logits.shape, dtype=np.int64)
    while wanted.any():  # each pass empties a class, or is the last
        requests = rng.multinomial(wanted, _softmax(np.where(supply > 0, logits, -np.inf)))
        for k in np.flatnonzero(requests.sum(0) > supply):
            requests[:, k] = rng.multivariate_hypergeometric(requests[:, k], supply[k], method="marginals")
        table += requests
        supply -= requests.sum(0)
        wanted -= requests.sum(1)
    return table


def _pathological(split: _Split, rng: np.random.Generator) -> np.ndarray:
    """Each client holds exactly `classes_per_client` classes; each class is cut into equal shards, one for each of its
    clients, and every class has the same number of clients, give or take one. Every example is dealt.

    McMahan et al. (2017, arXiv 1602.05629) cut the sorted examples into equal shards, which may straddle two classes;
    these do not.
    """
    supply, clients, each, classes = split.supply, split.clients, split.classes_per_client, len(split.supply)
    _check(
        (
            1 <= each <= classes,
            f"`classes_per_client` ({each}) must be from 1 to the number of classes ({classes})",
        ),
        (
            clients * max(each, 1) >= classes,
            f"`clients` ({clients}) × `classes_per_client` ({each}) is below the {classes} classes, so nobody "
            "would hold some; raise either",
        ),
    )
    holds = np.zeros((clients, classes), dtype=bool)
    for client in range(clients):
        # The classes that fewest clients hold so far, ties at random.
        holds[client, np.lexsort((rng.random(classes), holds.sum(0)))[:each]] = True
    table = np.zeros(holds.shape, dtype=np.int64)
    for k, own in enumerate(supply):
        holders = np.flatnonzero(holds[:, k])
        table[rng.permutation(holders), k] = _even(int(own), len(holders))
    return table


def _coupled(split: _Split, rng: np.random.Generator) -> np.ndarray:
    """Delay coupled with labels. `slow_classes` classes, chosen at random, belong to the slow clients: together these
    get the fraction `coupling` of each such class (rounded to an example) and nothing else. The rest of these classes
    and all other classes go to the other clients. Every example is dealt.

    Within each of the two groups label mixes are as in "dirichlet_mix" and sizes differ by one at most. The groups'
    sizes agree if |slow| / N is about `coupling` × the slow classes' share of the examples (20 % slow clients, 2 of 10
    classes); otherwise `max_examples` can level them, at the price of another fraction.
    """
    supply, clients, slow = split.supply, split.clients, split.slow
    slow_classes, coupling = split.slow_classes, split.coupling
    members = np.unique(np.asarray(slow, dtype=np.int64))
    _check(
        (
            0 < len(members) < clients and members[0] >= 0 and members[-1] < clients,
            f"`slow` ({list(slow)[:8]}) must name some, not all, of the clients 0 to {clients - 1}",
        ),
        (len(members) == len(slow), f"`slow` ({list(slow)[:8]}) names a client twice"),
        (
            1 <= slow_classes < len(supply),
            f"`slow_classes` ({slow_classes}) must be from 1 to the number of classes - 1 ({len(supply) - 1})",
        ),
        (0 < coupling <= 1, f"`coupling` ({coupling}) must be in (0, 1]; use another scheme for none"),
    )
    owned = np.zeros_like(supply)
    chosen = rng.choice(len(supply), slow_classes, replace=False)
    owned[chosen] = np.rint(coupling * supply[chosen]).astype(owned.dtype)
    table = np.zeros((clients, len(supply)), dtype=np.int64)
    for group, pool in ((members, owned), (np.setdiff1d(np.arange(clients), members), supply - owned)):
        sizes = rng.permutation(_even(int(pool.sum()), len(group)))
        table[group] = _mix(pool, sizes, split.alpha, rng)
    return table


Scheme = Callable[[_Split, np.random.Generator], np.ndarray]

SIZES: dict[str, Scheme] = {"iid": _iid, "quantity": _quantity}
"""Schemes that say how many examples each client gets, [N], of any class."""

TABLES: dict[str, Scheme] = {
    "coupled": _coupled,
    "dirichlet": _dirichlet,
    "dirichlet_mix": _dirichlet_mix,
    "pathological": _pathological,
}
"""Schemes that say how many examples each client gets of each class, [N, C]."""


def schemes() -> tuple[str, ...]:
    """The schemes that `partition` knows, sorted."""
    return tuple(sorted({**SIZES, **TABLES}))
