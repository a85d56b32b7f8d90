"""FedBuff: buffered asynchronous aggregation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Interval
from torch import Tensor

from .base import Buffered, ClientUpdate, zeros


@dataclass(frozen=True, slots=True)
class Filling:
    """Σ w(τ)·Δ_i of the buffer so far, and the server's momentum."""

    total: Tensor
    velocity: Tensor
    count: int = 0


@dataclass(frozen=True)
class FedBuff(Buffered):
    r"""Buffered aggregation: after every M-th arrival x ← x + η·(1/M)·Σ w(τ_i)·Δ_i.

    Nguyen et al., *Federated Learning with Buffered Asynchronous Aggregation*, AISTATS 2022, Algorithm 1 and, for the
    staleness weight, §3.2; https://arxiv.org/abs/2106.06639.

    Attributes:
        buffer_size: M ≥ 1, updates per aggregation; the server's unless set (10 in the paper).
        lr: η > 0, the server step; tuned in the paper, 1 is ours.
        weighting: w(τ): "constant" 1 (the paper's Algorithm 1), or "polynomial" 1/√(1 + τ).
        momentum: β in [0, 1) of v ← β·v + Δ̄, x ← x + η·v; 0 is the plain rule.
        max_staleness: τ ≥ 0 in versions above which updates are refused; None accepts all, as the paper does.
    """

    name = "fedbuff"
    citation = (
        "@inproceedings{nguyen2022federated, title={Federated Learning with Buffered Asynchronous Aggregation}, "
        "author={Nguyen, John and Malik, Kshitiz and Zhan, Hongyuan and Yousefpour, Ashkan and Rabbat, Mike and Malek, "
        "Mani and Huba, Dzmitry}, booktitle={AISTATS}, year={2022}}"
    )
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"lr": (0.1, 0.2, 0.5, 1.0)}
    buffer_size: Annotated[int, Ge(1)] | None = None
    lr: Annotated[float, Gt(0)] = 1.0
    weighting: Literal["constant", "polynomial"] = "constant"
    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    max_staleness: Annotated[int, Ge(0)] | None = None

    @property
    def plain_sum(self) -> bool:
        return self.weighting == "constant"

    def init(self, weights: Tensor, clients: int) -> Filling:
        return Filling(zeros(weights), zeros(weights))

    def is_stale(self, staleness: int) -> bool:
        return self.max_staleness is not None and staleness > self.max_staleness

    def receive(self, state: Filling, update: ClientUpdate) -> Filling:
        w = (1.0 + update.staleness) ** -0.5 if self.weighting == "polynomial" else 1.0
        return Filling(state.total.add(update.delta, alpha=w), state.velocity, state.count + 1)

    def aggregate(self, state: Filling, weights: Tensor, scale: float) -> tuple[Tensor, Filling]:
        velocity = self.momentum * state.velocity + state.total / self.M
        return weights + scale * self.lr * velocity, Filling(zeros(weights), velocity)
