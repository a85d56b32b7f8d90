"""FedAC: prospective momentum on the server, control variates on the clients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Interval
from torch import Tensor

from ..core.messages import Extra
from .base import Buffered, ClientUpdate, zeros


@dataclass(frozen=True, slots=True)
class Control:
    """Clients step along ∇ − c_i + C. The task brings C and, from the second one on, c_i."""

    def direct(self, gradient: Tensor, weights: Tensor, start: Tensor, extra: Extra) -> None:
        gradient.add_(extra["C"])
        if "c_i" in extra:
            gradient.sub_(extra["c_i"])

    def report(self, start: Tensor, weights: Tensor, steps: int, lr: float, extra: Extra) -> Extra:
        mean = (start - weights) / (max(steps, 1) * lr)  # of the directions taken: the mean gradient − c_i + C
        return {"c_i": mean - extra["C"] + extra.get("c_i", 0.0)}


@dataclass(frozen=True, slots=True)
class Controlled:
    """m and v; C and every c_i in `rows` (0 where absent); Σ w_i·Δ_i, Σ w_i·(c_i' − c_i) and Σ w_i of the buffer."""

    clients: int
    m: Tensor
    v: Tensor
    c: Tensor
    rows: dict[int, Tensor]
    total: Tensor
    moved: Tensor
    weight: float = 0.0
    count: int = 0


@dataclass(frozen=True)
class FedAC(Buffered):
    r"""Buffered changes weighted by where the model went, an adaptive step, and clients that correct their drift.

    w_i ∝ max(cos(x_t − x_{t−τ}, Δ_i), 0.1), Σ w_i = 1, with cos := 1 where the model has not moved; Δ = Σ w_i·Δ_i;
    m ← β₁m + (1−β₁)Δ;  v ← β₂v + (1−β₂)Δ²;  m̂ = β₁m + (1−β₁)Δ;  x ← x + η·m̂/(√v + ε).
    Clients step by −η_l·(∇ − c_i + C); c_i' = (x_start − x_K)/(K·η_l) + c_i − C;  C ← C + (M/N)·Σ w_i·(c_i' − c_i).

    Zang et al., *Efficient Asynchronous Federated Learning with Prospective Momentum Aggregation and Fine-Grained
    Correction*, AAAI 2024; https://doi.org/10.1609/aaai.v38i15.29603. As in a re-implementation but for two things:
    the factor M/N, with which C stays the mean of the c_i as in SCAFFOLD (there it is 1 and C grows with N/M), and that
    the correction enters every local step, not once at the end. c_i' is the clients' mean gradient if they do plain
    SGD: no momentum, no clipping.

    Keeps N·d numbers on the server, which holds the c_i for the clients. Buffers are never touched by the moments.

    Attributes:
        buffer_size: M ≥ 1, updates per aggregation; the server's unless set (5 in the re-implementation).
        lr: η > 0, the server step; 1e-3 in the re-implementation.
        beta1: β₁ in [0, 1), the decay of m; 0.6 in the re-implementation.
        beta2: β₂ in [0, 1), the decay of v; 0.9 in the re-implementation.
        eps: ε > 0; 1e-8 in the re-implementation.
    """

    name = "fedac"
    citation = (
        "@inproceedings{zang2024efficient, title={Efficient Asynchronous Federated Learning with Prospective Momentum "
        "Aggregation and Fine-Grained Correction}, author={Zang, Yu and Xue, Zhe and Ou, Shilong and Chu, Lingyang and "
        "Du, Junping and Long, Yunfei}, booktitle={AAAI}, year={2024}}"
    )
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"lr": (0.0003, 0.001, 0.003, 0.01)}
    client_rule = Control()
    reports = ("c_i",)
    buffer_size: Annotated[int, Ge(1)] | None = None
    lr: Annotated[float, Gt(0)] = 1e-3
    beta1: Annotated[float, Interval(ge=0, lt=1)] = 0.6
    beta2: Annotated[float, Interval(ge=0, lt=1)] = 0.9
    eps: Annotated[float, Gt(0)] = 1e-8

    def init(self, weights: Tensor, clients: int) -> Controlled:
        zero = zeros(weights)
        return Controlled(clients, zero, zero, zero, {}, zero, zero)

    def add_clients(self, state: Controlled, clients: int) -> Controlled:
        return replace(state, clients=clients, c=state.clients / clients * state.c)  # the mean of all c_i, as before

    def memory(self, clients: int) -> int:
        return clients + 5

    def task_extra(self, state: Controlled, client: int) -> Extra:
        return {"C": state.c} | ({"c_i": state.rows[client]} if client in state.rows else {})

    def receive(self, state: Controlled, update: ClientUpdate) -> Controlled:
        w, new = max(update.alignment, 0.1), update.extra["c_i"]
        assert isinstance(new, Tensor)
        return replace(
            state,
            rows={**state.rows, update.client: new},
            total=state.total + w * update.delta,
            moved=state.moved + w * (new - state.rows.get(update.client, 0.0)),
            weight=state.weight + w,
            count=state.count + 1,
        )

    def aggregate(self, state: Controlled, weights: Tensor, scale: float) -> tuple[Tensor, Controlled]:
        b1, b2, delta = self.beta1, self.beta2, state.total / state.weight
        m = b1 * state.m + (1 - b1) * delta
        v = b2 * state.v + (1 - b2) * delta * delta
        m_hat = b1 * m + (1 - b1) * delta
        c = state.c + (state.count / state.clients / state.weight) * state.moved
        x = weights + scale * self.lr * m_hat / (v.sqrt() + self.eps)
        return x, Controlled(state.clients, m, v, c, state.rows, zeros(weights), zeros(weights))
