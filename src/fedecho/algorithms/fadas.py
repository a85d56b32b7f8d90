"""FADAS: an adaptive (AMSGrad) server step on buffered changes, plain and delay-adaptive."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor

from .base import Buffered, ClientUpdate, zeros

CITATION = (
    "@inproceedings{wang2024fadas, title={FADAS: Towards Federated Adaptive Asynchronous Optimization}, author={Wang, "
    "Yujia and Wang, Shiqiang and Lu, Songtao and Chen, Jinghui}, booktitle={ICML}, year={2024}}"
)


@dataclass(frozen=True, slots=True)
class Moments:
    """The buffer (Σ Δ_i, count, the round's largest staleness) and the moments m, v, v̂ after `steps` steps."""

    total: Tensor
    m: Tensor
    v: Tensor
    v_hat: Tensor
    steps: int = 0
    count: int = 0
    tau_max: int = 0


@dataclass(frozen=True)
class FADAS(Buffered):
    r"""An adaptive (AMSGrad) server step on buffered changes.

    Δ = (1/M)·Σ Δ_i;  m ← β₁m + (1−β₁)Δ;  v ← β₂v + (1−β₂)Δ²;  v̂ ← max(v̂, v);
    x ← x + η/(1−β₁ᵗ)·m/(√v̂/√(1−β₂ᵗ) + ε).

    Wang, Wang, Lu, Chen, *FADAS: Towards Federated Adaptive Asynchronous Optimization*, ICML 2024, Algorithm 1;
    https://arxiv.org/abs/2407.18365.

    Attributes:
        buffer_size: M ≥ 1, updates per aggregation; the server's unless set (5 in the authors' code).
        lr: η > 0, the server step; 1e-4 in the authors' code.
        beta1: β₁ in [0, 1), the decay of m; 0.9 in the authors' code.
        beta2: β₂ in [0, 1), the decay of v; 0.99 in the authors' code.
        eps: ε > 0; 1e-8 in the authors' code.
        rule: "code" corrects the moments' bias as the authors' code does; "paper" does not (a third party's summary of
            the paper has no correction; we have not seen the authors say which is meant).
    """

    name = "fadas"
    citation = CITATION
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"lr": (0.0003, 0.001, 0.003, 0.01)}
    buffer_size: Annotated[int, Ge(1)] | None = None
    lr: Annotated[float, Gt(0)] = 1e-4
    beta1: Annotated[float, Interval(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Interval(ge=0, lt=1)] = 0.99
    eps: Annotated[float, Gt(0)] = 1e-8
    rule: Literal["code", "paper"] = "code"

    @property
    def plain_sum(self) -> bool:
        return True

    def step_size(self, tau_max: int) -> float:
        """η_t for a round whose largest staleness is `tau_max`."""
        return self.lr

    def init(self, weights: Tensor, clients: int) -> Moments:
        return Moments(zeros(weights), zeros(weights), zeros(weights), zeros(weights))

    def receive(self, state: Moments, update: ClientUpdate) -> Moments:
        tau_max = max(state.tau_max, update.staleness)
        return replace(state, total=state.total + update.delta, count=state.count + 1, tau_max=tau_max)

    def aggregate(self, state: Moments, weights: Tensor, scale: float) -> tuple[Tensor, Moments]:
        b1, b2, t = self.beta1, self.beta2, state.steps + 1
        delta = state.total / self.M
        m = b1 * state.m + (1 - b1) * delta
        v = b2 * state.v + (1 - b2) * delta * delta
        v_hat = torch.maximum(state.v_hat, v)
        c1, c2 = (1 - b1**t, 1 - b2**t) if self.rule == "code" else (1.0, 1.0)
        direction = (m / c1) / ((v_hat / c2).sqrt() + self.eps)
        return weights + scale * self.step_size(state.tau_max) * direction, Moments(zeros(m), m, v, v_hat, t)


@dataclass(frozen=True)
class DelayAdaptiveFADAS(FADAS):
    r"""FADAS with a step that shrinks in rounds with a late update.

    η_t = η/τ_max if τ_max > τ_c, else η, where τ_max is the largest staleness in the round's buffer. The same paper as
    `FADAS`: its delay-adaptive variant.

    Attributes:
        buffer_size: M ≥ 1, updates per aggregation; the server's unless set (5 in the authors' code).
        lr: η > 0, the server step; 1e-3 in the authors' code.
        beta1: β₁ in [0, 1), the decay of m; 0.9 in the authors' code.
        beta2: β₂ in [0, 1), the decay of v; 0.99 in the authors' code.
        eps: ε > 0; 1e-8 in the authors' code.
        rule: as in `FADAS`; with "paper" the step is min(η, 1/τ_max) besides (from memory of the paper).
        tau_c: τ_c ≥ 0, the staleness in versions above which the step shrinks; 1 in the authors' code.
    """

    name = "fadas_da"
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"lr": (0.001, 0.003, 0.01, 0.03)}
    lr: Annotated[float, Gt(0)] = 1e-3
    tau_c: Annotated[int, Ge(0)] = 1

    def step_size(self, tau_max: int) -> float:
        if tau_max <= self.tau_c:
            return self.lr
        return self.lr / tau_max if self.rule == "code" else min(self.lr, 1.0 / tau_max)
