"""CA2FL: cached update calibration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt
from torch import Tensor

from .base import Buffered, ClientUpdate, zeros


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
class CA2FL(Buffered):
    r"""Cached update calibration: x ← x + η·v with v = h + (1/M)·Σ (Δ_i − h_i).

    h_i caches client i's last change (0 before its first) and h is their mean over all N at the round's start.

    Wang, Cao, Wu, Chen, *Tackling the Data Heterogeneity in Asynchronous Federated Learning with Cached Update
    Calibration*, ICLR 2024, Algorithm 2; https://openreview.net/forum?id=4aywmeb97I. Of a client that reports twice in
    one buffer the differences Δ_i − h_i add up to that of its last change.

    Keeps N·d numbers on the server. Buffers (batch-norm statistics) are never cached.

    Attributes:
        buffer_size: M ≥ 1, updates per aggregation; the server's unless set (10 in the paper).
        lr: η > 0, the server step; tuned in the paper, 1 is ours.
    """

    name = "ca2fl"
    citation = (
        "@inproceedings{wang2024tackling, title={Tackling the Data Heterogeneity in Asynchronous Federated Learning "
        "with Cached Update Calibration}, author={Wang, Yujia and Cao, Yuanpu and Wu, Jingcheng and Chen, Ruoyu "
        "and Chen, Jinghui}, booktitle={ICLR}, year={2024}}"
    )
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"lr": (0.1, 0.2, 0.5, 1.0)}
    buffer_size: Annotated[int, Ge(1)] | None = None
    lr: Annotated[float, Gt(0)] = 1.0

    def init(self, weights: Tensor, clients: int) -> Cache:
        zero = zeros(weights)
        return Cache(clients, {}, zero, zero, zero)

    def add_clients(self, state: Cache, clients: int) -> Cache:
        share = state.clients / clients  # the new clients' h_i are 0
        return replace(state, clients=clients, mean=share * state.mean, start=share * state.start)

    def memory(self, clients: int) -> int:
        return clients + 4

    def receive(self, state: Cache, update: ClientUpdate) -> Cache:
        cached = state.rows.get(update.client)
        difference = update.delta if cached is None else update.delta - cached  # Δ_i − h_i
        return replace(
            state,
            rows={**state.rows, update.client: update.delta},
            mean=state.mean + difference / state.clients,
            residual=state.residual + difference,
            count=state.count + 1,
        )

    def aggregate(self, state: Cache, weights: Tensor, scale: float) -> tuple[Tensor, Cache]:
        v = state.start + state.residual / self.M
        return weights + scale * self.lr * v, replace(state, start=state.mean, residual=zeros(weights), count=0)
