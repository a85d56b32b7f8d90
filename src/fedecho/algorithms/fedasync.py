"""FedAsync: every model is mixed in as it arrives."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Interval
from torch import Tensor

from ..core.messages import Extra, View
from .base import Algorithm, ClientUpdate, RunShape


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
    """The client's model that is to be mixed in, and its staleness."""

    weights: Tensor | None = None
    staleness: int = 0


@dataclass(frozen=True)
class FedAsync(Algorithm):
    r"""Mix every model in as it arrives: x ← (1 − α_t)·x + α_t·x_i with α_t = α·s(τ).

    Xie, Koyejo, Gupta, *Asynchronous Federated Optimization*, 2019, Algorithm 1 and §5.2;
    https://arxiv.org/abs/1903.03934. Batch-norm statistics are mixed by the same factor.

    Attributes:
        mixing: α in (0, 1], the mixing factor of a fresh model; 0.6 in the paper. α_t is always computed from this
            constant: it never compounds from arrival to arrival.
        staleness: s(τ): "constant" 1; "polynomial" (1 + τ)^−a; "hinge" 1 if τ ≤ b else 1/(a·(τ − b) + 1).
        a: a ≥ 0 of s; None is the paper's: 0.5 for polynomial, 10 for hinge.
        b: b ≥ 0 of hinge, in versions; None is the paper's 4.
        mu: μ ≥ 0, the weight of the clients' proximal term; 0.005 in the paper.
    """

    name = "fedasync"
    citation = (
        "@article{xie2019asynchronous, title={Asynchronous Federated Optimization}, author={Xie, Cong and Koyejo, "
        "Sanmi and Gupta, Indranil}, journal={arXiv:1903.03934}, year={2019}}"
    )
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"mixing": (0.1, 0.3, 0.6, 0.9)}
    mixing: Annotated[float, Interval(gt=0, le=1)] = 0.6
    staleness: Literal["constant", "polynomial", "hinge"] = "polynomial"
    a: Annotated[float, Ge(0)] | None = None
    b: Annotated[float, Ge(0)] | None = None
    mu: Annotated[float, Ge(0)] = 0.005

    @property
    def a_b(self) -> tuple[float, float]:
        """a and b of s(τ): as set, else the paper's."""
        a = 10.0 if self.staleness == "hinge" else 0.5
        return a if self.a is None else self.a, 4.0 if self.b is None else self.b

    def for_run(self, shape: RunShape) -> FedAsync:
        (a, b), unused = self.a_b, self.unused_settings()
        return replace(self, a=self.a if "a" in unused else a, b=self.b if "b" in unused else b)

    def unused_settings(self) -> dict[str, str]:
        unused = {"constant": ["a", "b"], "polynomial": ["b"]}.get(self.staleness, [])
        return dict.fromkeys(unused, f"algorithm.staleness is {self.staleness!r}")

    @property
    def client_rule(self) -> Proximal | None:  # type: ignore[override]
        return Proximal(self.mu) if self.mu else None

    def alpha(self, tau: int) -> float:
        """α_t for an update of staleness τ."""
        a, b = self.a_b
        if self.staleness == "polynomial":
            return self.mixing * math.pow(1.0 + tau, -a)
        if self.staleness == "hinge":
            return self.mixing if tau <= b else self.mixing / (a * (tau - b) + 1.0)
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
