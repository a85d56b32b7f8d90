"""The echo bank: the clients' most recent predictions on the unlabeled set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from torch import Tensor

from ..objectives.predictions import ClassPredictions, Predictions
from .persistent import RecencyMap

LARGEST_LOGIT = 65504.0
"""Logits enter a running sum within ± this, the largest float16. A far larger one would take the digits of the others
and leave a rounding error behind when its row is replaced."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the bank keeps of a client.

    Attributes:
        row: its logits z_i [P, K], or the top k of them as `fedecho.core.topk` packs them.
        version: the server version that its model started from.
        prior: what this teacher expects on the whole, where the stage needs it: as `Echo.prior_of` gives it.
    """

    row: Tensor
    version: int
    prior: Tensor | None = None


Contribution: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A row to w·v [P, K] and w [P, 1], float64: what it adds to the running sums."""


@dataclass(frozen=True, slots=True)
class Bank:
    """The echo bank: one row of predictions on U per client, which stays until that client reports again.

    A bank is a value: `put` and `evict` return another one, in O(P·K) time whatever the number of clients. P is the
    number of predictions on U (|U| for a classifier), K that of classes or labels.

    Attributes:
        predictions: what the rows mean as probabilities.
        entries: client to its entry, least recently heard first.
        total: Σ_i w_i·v_i [P, K] float64 (v_i logits or probabilities), a running sum: float64 keeps it equal to the
            full sum over a long run. None where rows are packed: such a sum would be as large as what packing saves.
        mass: Σ_i w_i [P, 1] float64; likewise.
    """

    predictions: Predictions = field(default_factory=ClassPredictions)
    entries: RecencyMap[Entry] = field(default_factory=RecencyMap)
    total: Tensor | None = None
    mass: Tensor | None = None

    def __post_init__(self) -> None:  # a checkpoint has a plain dict
        object.__setattr__(self, "entries", RecencyMap.of(self.entries))

    @property
    def rows(self) -> Mapping[int, Tensor]:
        """Client to its row, least recently heard first; made anew, O(N)."""
        return {client: entry.row for client, entry in self.entries.items()}

    @property
    def versions(self) -> Mapping[int, int]:
        """Client to the version its model started from; likewise."""
        return {client: entry.version for client, entry in self.entries.items()}

    @property
    def priors(self) -> Mapping[int, Tensor]:
        """Client to its prior, for those that have one; likewise."""
        return {client: entry.prior for client, entry in self.entries.items() if entry.prior is not None}

    def put(
        self, client: int, entry: Entry, contribution: Contribution | None = None, max_rows: int | None = None
    ) -> Bank:
        """The bank with this entry in place of the client's earlier one.

        Args:
            contribution: what a row adds to the sums; None where there are no sums.
            max_rows: where a new client would make them more, the client least recently heard leaves.
        """
        bank = self
        if client not in bank.entries and max_rows is not None and len(bank.entries) >= max_rows:
            bank = bank.evict(next(iter(bank.entries)), contribution)
        rest = bank._without_contribution(client, contribution)
        entries = bank.entries.put(client, entry)
        if contribution is None:
            return replace(rest, entries=entries)
        value, weight = contribution(entry.row)
        if len(entries) > 1 and rest.total is not None and rest.mass is not None:
            value, weight = rest.total + value, rest.mass + weight
        return replace(rest, entries=entries, total=value, mass=weight)

    def evict(self, client: int, contribution: Contribution | None = None) -> Bank:
        """The bank without the client.

        Raises:
            KeyError: when it has no row.
        """
        return replace(self._without_contribution(client, contribution), entries=self.entries.without(client))

    def _without_contribution(self, client: int, contribution: Contribution | None) -> Bank:
        """The bank with sums that do not count the client."""
        entry = self.entries.get(client)
        if entry is None or contribution is None or self.total is None or self.mass is None:
            return self
        value, weight = contribution(entry.row)
        return replace(self, total=self.total - value, mass=self.mass - weight)

    def with_rows_stored(self, store: Callable[[Tensor], Tensor]) -> Bank:
        """The bank with `store(row)` in place of every row."""
        entries = {client: replace(entry, row=store(entry.row)) for client, entry in self.entries.items()}
        return replace(self, entries=RecencyMap(entries))


def class_shares(logits: Tensor) -> Tensor:
    """How frequent a model expects each class on U: the mean over U of softmax(z), [C], for logits [P, C]."""
    return logits.softmax(-1).mean(0)
