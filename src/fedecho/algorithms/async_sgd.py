"""Asynchronous SGD, plain and delay-adaptive: every arrival is a step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt
from torch import Tensor

from ..core.messages import View
from .base import DEFAULT_CONCURRENCY, Algorithm, ClientUpdate, RunShape, Step

CITATION = (
    "@inproceedings{koloskova2022sharper, title={Sharper Convergence Guarantees for Asynchronous SGD for "
    "Distributed and Federated Learning}, author={Koloskova, Anastasia and Stich, Sebastian U. and Jaggi, Martin}, "
    "booktitle={NeurIPS}, year={2022}}"
)


@dataclass(frozen=True)
class AsyncSGD(Algorithm):
    r"""Plain asynchronous SGD: x ← x + η·Δ_i at every arrival, however late.

    Koloskova, Stich, Jaggi, *Sharper Convergence Guarantees for Asynchronous SGD for Distributed and Federated
    Learning*, NeurIPS 2022, Algorithm 1 with a constant step; https://arxiv.org/abs/2206.08307. FedRevive builds on
    it. The paper's workers send one gradient; here Δ_i, the change of the client's local training, takes the place of
    −η_l·gradient. Batch-norm statistics are those of the arriving client.

    Attributes:
        lr: η > 0, the server step; 0.1 as in FedRevive (arXiv 2511.00655).
    """

    name = "async_sgd"
    citation = CITATION
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"lr": (0.02, 0.05, 0.1, 0.2)}
    lr: Annotated[float, Gt(0)] = 0.1

    def step_size(self, tau: int) -> float:
        """η_t for an update of staleness τ."""
        return self.lr

    @property
    def plain_sum(self) -> bool:
        return True

    def init(self, weights: Tensor, clients: int) -> Step:
        return Step()

    def receive(self, state: Step, update: ClientUpdate) -> Step:
        return Step(self.step_size(update.staleness) * update.delta)

    def ready(self, state: Step, view: View) -> bool:
        return state.move is not None

    def aggregate(self, state: Step, weights: Tensor, scale: float) -> tuple[Tensor, Step]:
        assert state.move is not None
        return weights + scale * state.move, Step()


@dataclass(frozen=True)
class DelayAdaptiveASGD(AsyncSGD):
    r"""Asynchronous SGD whose step shrinks for late changes: η_t = η if τ ≤ τ_C, else η·τ_C/τ.

    The same paper as `AsyncSGD`: its delay-adaptive step. The theory asks for η_t < min(η, 1/(4Lτ)) above τ_C with the
    unknown smoothness L; with η = 1/(4Lτ_C) that is the form used here.

    Attributes:
        lr: η > 0, the server step; tuned in the paper, 0.1 is ours.
        concurrency: τ_C ≥ 1, the jobs in flight; the server's unless set.
    """

    name = "da_asgd"
    concurrency: Annotated[int, Ge(1)] | None = None

    def for_run(self, shape: RunShape) -> Algorithm:
        return self if self.concurrency is not None else replace(self, concurrency=shape.concurrency)

    def step_size(self, tau: int) -> float:
        tau_c = DEFAULT_CONCURRENCY if self.concurrency is None else self.concurrency
        return self.lr * tau_c / tau if tau > tau_c else self.lr
