"""Asynchronous SGD, plain and delay-adaptive: every arrival is a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..core.messages import View
from .base import Algorithm, ClientUpdate, Step

CITATION = (
    "@inproceedings{koloskova2022sharper, title={Sharper Convergence Guarantees for Asynchronous SGD for "
    "Distributed and Federated Learning}, author={Koloskova, Anastasia and Stich, Sebastian U. and Jaggi, Martin}, "
    "booktitle={NeurIPS}, year={2022}}"
)


@dataclass(frozen=True)
class AsyncSGD(Algorithm):
    r"""Plain asynchronous SGD: x ← x + η·Δ_i at every arrival, however late.

    Koloskova, Stich, Jaggi, *Sharper Convergence Guarantees for Asynchronous SGD for Distributed and Federated
    Learning*, NeurIPS 2022 (arXiv 2206.08307), with a constant step; the rule under FedRevive. The paper's workers send
    one gradient; here Δ_i, the change of the client's local training, takes the place of −η_l·gradient.

    Buffers are those of the arriving client.

    Attributes:
        lr: η, the server step; 0.1 as under FedRevive (arXiv 2511.00655).
    """

    name = "async_sgd"
    citation = CITATION
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"lr": (0.02, 0.05, 0.1, 0.2)}
    lr: float = 0.1

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
        lr: η, the server step, tuned in the paper; 0.1 is ours.
        concurrency: τ_C, the paper's concurrency: the number of jobs in flight; by default the server's.
    """

    name = "da_asgd"
    concurrency: int = 25

    def step_size(self, tau: int) -> float:
        return self.lr * self.concurrency / tau if tau > self.concurrency else self.lr
