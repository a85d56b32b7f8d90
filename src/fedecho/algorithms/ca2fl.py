"""CA2FL: cached update calibration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from ..core.messages import View
from .base import Algorithm, ClientUpdate, zeros


@dataclass(frozen=True, slots=True)
class Cache:
    """`rows[i]` is h_i, the last change of client i ([d]; 0 where absent); `mean` their mean over all N now, `start`
    the mean at the round's start; `residual` is Σ (Δ_i − h_i) over the round."""

    clients: int
    rows: dict[int, Tensor]
    mean: Tensor
    start: Tensor
    residual: Tensor
    count: int = 0


@dataclass(frozen=True)
class CA2FL(Algorithm):
    r"""Cached update calibration: x ← x + η·v with v = h + (1/M)·Σ (Δ_i − h_i).

    h_i caches client i's last change (0 before its first) and h is their mean over all N at the round's start.

    Wang, Cao, Wu, Chen, *Tackling the Data Heterogeneity in Asynchronous Federated Learning with Cached Update
    Calibration*, ICLR 2024, Algorithm 2. A client that reports twice in one buffer telescopes.

    Keeps N·d numbers on the server. Buffers (batch-norm statistics) are never cached.

    Attributes:
        buffer_size: M, updates per aggregation; 10 in the paper.
        lr: η, the server step, tuned in the paper.
    """

    name = "ca2fl"
    citation = (
        "@inproceedings{wang2024tackling, title={Tackling the Data Heterogeneity in Asynchronous Federated Learning "
        "with Cached Update Calibration}, author={Wang, Yujia and Cao, Yuanpu and Wu, Jingcheng and Chen, Ruoyu "
        "and Chen, Jinghui}, booktitle={ICLR}, year={2024}}"
    )
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"lr": (0.1, 0.2, 0.5, 1.0)}
    buffer_size: int = 10
    lr: float = 1.0

    def init(self, weights: Tensor, clients: int) -> Cache:
        zero = zeros(weights)
        return Cache(clients, {}, zero, zero, zero)

    def add_clients(self, state: Cache, clients: int) -> Cache:
        share = state.clients / clients  # a mean over more clients, the new ones' rows being 0
        return replace(state, clients=clients, mean=share * state.mean, start=share * state.start)

    def memory(self, clients: int) -> int:
        return clients + 4

    def receive(self, state: Cache, update: ClientUpdate) -> Cache:
        cached = state.rows.get(update.client)
        moved = update.delta if cached is None else update.delta - cached
        return replace(
            state,
            rows={**state.rows, update.client: update.delta},
            mean=state.mean + moved / state.clients,
            residual=state.residual + moved,
            count=state.count + 1,
        )

    def ready(self, state: Cache, view: View) -> bool:
        return state.count >= self.buffer_size

    def aggregate(self, state: Cache, weights: Tensor, scale: float) -> tuple[Tensor, Cache]:
        v = state.start + state.residual / self.buffer_size
        return weights + scale * self.lr * v, replace(state, start=state.mean, residual=zeros(weights), count=0)
