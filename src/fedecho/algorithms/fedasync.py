"""FedAsync."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ..core.messages import Extra, View
from .base import Algorithm, ClientUpdate


@dataclass(frozen=True, slots=True)
class Proximal:
    """The client's loss gains μ/2·‖x − x_start‖²."""

    mu: float

    def direct(self, gradient: Tensor, weights: Tensor, start: Tensor, extra: Extra) -> None:
        gradient.add_(weights - start, alpha=self.mu)

    def report(self, start: Tensor, weights: Tensor, steps: int, lr: float, extra: Extra) -> Extra:
        return {}


@dataclass(frozen=True, slots=True)
class Arrival:
    weights: Tensor | None = None
    staleness: int = 0


@dataclass(frozen=True)
class FedAsync(Algorithm):
    r"""Mix every model in as it arrives: x ← (1 − α_t)·x + α_t·x_i with α_t = α·s(τ).

    Xie, Koyejo, Gupta, *Asynchronous Federated Optimization*, arXiv 1903.03934 (2019), Algorithm 1 and §5.2.

    Attributes:
        mixing: α, the mixing factor of a fresh model, in (0, 1]; the paper's default is 0.6. Always mixed from this
            constant: it never compounds from arrival to arrival.
        staleness: s(τ): "constant" 1; "polynomial" (1 + τ)^−a; "hinge" 1 if τ ≤ b else 1/(a·(τ − b) + 1).
        a: a of s; the paper uses 0.5 for polynomial and 10 for hinge.
        b: b of hinge; the paper uses 4.
        mu: μ, the weight of the clients' proximal term; the paper uses 0.005.
    """

    name = "fedasync"
    citation = (
        "@article{xie2019asynchronous, title={Asynchronous Federated Optimization}, author={Xie, Cong and Koyejo, "
        "Sanmi and Gupta, Indranil}, journal={arXiv:1903.03934}, year={2019}}"
    )
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"mixing": (0.1, 0.3, 0.6, 0.9)}
    mixing: float = 0.6
    staleness: Literal["constant", "polynomial", "hinge"] = "polynomial"
    a: float = 0.5
    b: float = 4.0
    mu: float = 0.005

    @property
    def client_rule(self) -> Proximal | None:  # type: ignore[override]
        return Proximal(self.mu) if self.mu else None

    def alpha(self, tau: int) -> float:
        """α_t for an update of staleness τ."""
        if self.staleness == "polynomial":
            return self.mixing * math.pow(1.0 + tau, -self.a)
        if self.staleness == "hinge":
            return self.mixing if tau <= self.b else self.mixing / (self.a * (tau - self.b) + 1.0)
        return self.mixing

    @property
    def plain_sum(self) -> bool:
        return True

    def init(self, weights: Tensor, clients: int) -> Arrival:
        return Arrival()

    def receive(self, state: Arrival, update: ClientUpdate) -> Arrival:
        return Arrival(update.weights, update.staleness)

    def ready(self, state: Arrival, view: View) -> bool:
        return state.weights is not None

    def aggregate(self, state: Arrival, weights: Tensor, scale: float) -> tuple[Tensor, Arrival]:
        assert state.weights is not None
        return weights.lerp(state.weights, scale * self.alpha(state.staleness)), Arrival()

    def mix_buffers(self, state: Arrival, current: Tensor, arrived: Tensor) -> Tensor:
        return current.lerp(arrived, self.alpha(state.staleness))
