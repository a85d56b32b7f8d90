"""AsyncFedED: staleness as a distance between models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt
from torch import Tensor

from ..core.messages import View
from .base import Algorithm, ClientUpdate, Step


@dataclass(frozen=True)
class AsyncFedED(Algorithm):
    r"""A step that shrinks with how far the model has moved since: x ← x + λ/(γ + ε)·Δ_i at every arrival.

    γ = ‖x_t − x_{t−τ}‖/‖Δ_i‖ is the staleness, measured as a distance instead of a count.

    Wang, Yang, He, Shi, Chen, *AsyncFedED: Asynchronous Federated Learning with Euclidean Distance based Adaptive
    Weight Aggregation*, 2022; https://arxiv.org/abs/2205.13797. The formula was checked against a re-implementation.
    Left out: the paper also adapts every client's number of local steps K to its γ; here K is fixed. Batch-norm
    statistics are those of the arriving client.

    Attributes:
        lr: λ > 0, the server step; tuned per task in the paper, 0.2 is ours.
        eps: ε > 0. The step of a fresh update (γ = 0) is λ/ε, so ε is of order 1, no guard against rounding; 1 is ours.
    """

    name = "asyncfeded"
    citation = (
        "@article{wang2022asyncfeded, title={AsyncFedED: Asynchronous Federated Learning with Euclidean Distance based "
        "Adaptive Weight Aggregation}, author={Wang, Qiyuan and Yang, Qianqian and He, Shibo and Shi, Zhiguo and Chen, "
        "Jiming}, journal={arXiv:2205.13797}, year={2022}}"
    )
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"lr": (0.05, 0.1, 0.2, 0.5)}
    lr: Annotated[float, Gt(0)] = 0.2
    eps: Annotated[float, Gt(0)] = 1.0

    def step_size(self, update: ClientUpdate) -> float:
        """λ/(γ + ε); 0 for a change of length 0, whose γ is infinite."""
        length = float(torch.linalg.vector_norm(update.delta))
        distance = float(torch.linalg.vector_norm(update.current - update.start))
        return self.lr / (distance / length + self.eps) if length else 0.0

    def init(self, weights: Tensor, clients: int) -> Step:
        return Step()

    def receive(self, state: Step, update: ClientUpdate) -> Step:
        return Step(self.step_size(update) * update.delta)

    def ready(self, state: Step, view: View) -> bool:
        return state.move is not None

    def aggregate(self, state: Step, weights: Tensor, scale: float) -> tuple[Tensor, Step]:
        assert state.move is not None
        return weights + scale * state.move, Step()
