"""Port: weights by staleness and by interference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt
from torch import Tensor

from .base import Buffered, ClientUpdate, zeros


@dataclass(frozen=True, slots=True)
class Weighted:
    """Σ w_i·Δ_i and Σ w_i of the buffer so far."""

    total: Tensor
    weight: float = 0.0
    count: int = 0


@dataclass(frozen=True)
class Port(Buffered):
    r"""Buffered aggregation weighted by staleness and interference: x ← x + η·Σ w_i·Δ_i / Σ w_i after M arrivals.

    w_i = n_i·(a·S/(S + τ_i) + b·(cos(x_t − x_{t−τ}, Δ_i) + 1)/2), with cos := 1 where the model has not moved since.

    Su, Li, *How Asynchronous can Federated Learning Be?*, IEEE/ACM IWQoS 2022 (not on arXiv), as the same group's
    framework Plato implements it (https://github.com/TL-System/plato). Plato compares a change with the model's last
    step and takes cos as 1 up to τ = 1; here it is compared with the model's whole change since the version it started
    from, which is what Plato's comments describe. Left out: beyond the bound S the paper's server waits for a client
    and tells it to report at once, whatever it has done.

    Attributes:
        buffer_size: M ≥ 1, updates per aggregation; the server's unless set (15 in Plato's CIFAR-10 configuration).
        lr: η > 0, the server step; Plato has none, which is 1.
        staleness_bound: S ≥ 1, in versions; 10 in Plato.
        staleness_weight: a > 0; 3 in Plato's configuration.
        similarity_weight: b ≥ 0; 1 in Plato's configuration.
    """

    name = "port"
    citation = (
        "@inproceedings{su2022how, title={How Asynchronous can Federated Learning Be?}, author={Su, Ningxin and Li, "
        "Baochun}, booktitle={IEEE/ACM IWQoS}, year={2022}}"
    )
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"lr": (0.1, 0.2, 0.5, 1.0)}
    buffer_size: Annotated[int, Ge(1)] | None = None
    lr: Annotated[float, Gt(0)] = 1.0
    staleness_bound: Annotated[int, Ge(1)] = 10
    staleness_weight: Annotated[float, Gt(0)] = 3.0
    similarity_weight: Annotated[float, Ge(0)] = 1.0

    def weight(self, update: ClientUpdate) -> float:
        """w_i."""
        fresh = self.staleness_bound / (self.staleness_bound + update.staleness)
        similar = (update.alignment + 1.0) / 2.0
        return update.num_examples * (self.staleness_weight * fresh + self.similarity_weight * similar)

    def init(self, weights: Tensor, clients: int) -> Weighted:
        return Weighted(zeros(weights))

    def receive(self, state: Weighted, update: ClientUpdate) -> Weighted:
        w = self.weight(update)
        return Weighted(state.total + w * update.delta, state.weight + w, state.count + 1)

    def aggregate(self, state: Weighted, weights: Tensor, scale: float) -> tuple[Tensor, Weighted]:
        return weights + (scale * self.lr / state.weight) * state.total, Weighted(zeros(weights))
