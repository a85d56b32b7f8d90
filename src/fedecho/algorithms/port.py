"""Port: weights by staleness and by interference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..core.messages import View
from .base import Algorithm, ClientUpdate, zeros


@dataclass(frozen=True, slots=True)
class Weighted:
    """Σ w_i·Δ_i and Σ w_i of the buffer so far."""

    total: Tensor
    weight: float = 0.0
    count: int = 0


@dataclass(frozen=True)
class Port(Algorithm):
    r"""Buffered aggregation weighted by staleness and interference: x ← x + η·Σ w_i·Δ_i / Σ w_i after M arrivals.

    w_i = n_i·(a·S/(S + τ_i) + b·(cos(x_t − x_{t−τ}, Δ_i) + 1)/2), with cos := 1 where the model has not moved since.

    Su, Li, *How Asynchronous can Federated Learning Be?*, IWQoS 2022 (not on arXiv), as the same group's framework
    Plato has it. That code compares a change with the model's last step and takes cos as 1 up to τ = 1; here it is
    compared with all of the way since the version it started from, which is what its comments describe. Left out: past
    the bound S the paper's server waits for a client and tells it to report at once, whatever it has done.

    Attributes:
        buffer_size: M, updates per aggregation; 15 in Plato's CIFAR-10 configuration, 10 is ours.
        lr: η, the server step. Plato has none: 1.
        staleness_bound: S, versions; 10 in Plato.
        staleness_weight: a; 3 in Plato's configuration.
        similarity_weight: b; 1 in Plato's configuration.
    """

    name = "port"
    citation = (
        "@inproceedings{su2022how, title={How Asynchronous can Federated Learning Be?}, author={Su, Ningxin and Li, "
        "Baochun}, booktitle={IEEE/ACM IWQoS}, year={2022}}"
    )
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"lr": (0.1, 0.2, 0.5, 1.0)}
    buffer_size: int = 10
    lr: float = 1.0
    staleness_bound: int = 10
    staleness_weight: float = 3.0
    similarity_weight: float = 1.0

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

    def ready(self, state: Weighted, view: View) -> bool:
        return state.count >= self.buffer_size

    def aggregate(self, state: Weighted, weights: Tensor, scale: float) -> tuple[Tensor, Weighted]:
        return weights + (scale * self.lr / state.weight) * state.total, Weighted(zeros(weights))
