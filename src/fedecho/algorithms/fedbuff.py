"""FedBuff: buffered asynchronous aggregation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ..core.messages import View
from .base import Algorithm, ClientUpdate, zeros


@dataclass(frozen=True, slots=True)
class Filling:
    """Σ w(τ)·Δ_i of the buffer so far, and the server's momentum."""

    total: Tensor
    velocity: Tensor
    count: int = 0


@dataclass(frozen=True)
class FedBuff(Algorithm):
    r"""Buffered aggregation: after every M-th arrival x ← x + η·(1/M)·Σ w(τ_i)·Δ_i.

    Nguyen et al., *Federated Learning with Buffered Asynchronous Aggregation*, AISTATS 2022 (arXiv 2106.06639),
    Algorithm 1; the staleness weight is its §3.2's.

    Attributes:
        buffer_size: M, updates per aggregation; 10 in the paper.
        lr: η, the server step, tuned in the paper.
        weighting: w(τ): "constant" 1, or "polynomial" 1/√(1 + τ).
        momentum: β of v ← β·v + Δ̄, x ← x + η·v; 0 is the plain rule.
        max_staleness: updates with a larger τ are refused; None accepts all.
    """

    name = "fedbuff"
    citation = (
        "@inproceedings{nguyen2022federated, title={Federated Learning with Buffered Asynchronous Aggregation}, "
        "author={Nguyen, John and Malik, Kshitiz and Zhan, Hongyuan and Yousefpour, Ashkan and Rabbat, Mike and Malek, "
        "Mani and Huba, Dzmitry}, booktitle={AISTATS}, year={2022}}"
    )
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"lr": (0.1, 0.2, 0.5, 1.0)}
    buffer_size: int = 10
    lr: float = 1.0
    weighting: Literal["constant", "polynomial"] = "constant"
    momentum: float = 0.0
    max_staleness: int | None = None

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

    def ready(self, state: Filling, view: View) -> bool:
        return state.count >= self.buffer_size

    def aggregate(self, state: Filling, weights: Tensor, scale: float) -> tuple[Tensor, Filling]:
        velocity = self.momentum * state.velocity + state.total / self.buffer_size
        return weights + scale * self.lr * velocity, Filling(zeros(weights), velocity)
