"""FedDF: ensemble distillation of the round's models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt
from torch import Tensor

from ..objectives.predictions import Predictions
from .compute import Loss
from .losses import kl_to
from .round_distillation import RoundDistillation


@dataclass(frozen=True)
class FedDF(RoundDistillation):
    r"""Ensemble distillation: p = softmax(mean of the round's logits), L = KL(p ‖ s).

    Lin, Kong, Stich, Jaggi, *Ensemble Distillation for Robust Model Fusion in Federated Learning*, NeurIPS 2020 (arXiv
    2006.07242), Algorithm 1, lines 7–10 (AvgLogits):

        Q times on a mini-batch B of U:  x̄ ← x̄ − η_d·Adam(∇ mean_B KL(softmax(1/m·Σ_i z_i) ‖ softmax(f(x̄; u))))

    The authors distil up to 10,000 mini-batches after every round and stop when a labelled validation set has seen no
    progress for 1,000 of them. The server here has no labelled data, and an asynchronous round is a few updates, not a
    cohort's whole training: so a fixed, small number of steps. A client that arrives twice in a round counts once, with
    its later model. Where a prediction is several labels (ours), sigmoid stands for softmax, and KL is the sum over the
    labels.

    Attributes:
        lr: η_d, Adam's step; the paper's 1e-3.
        steps: Q, steps per aggregation; ours, as many as `echo` has.
        batch_size: |B|; 128 in the authors' code.
        clip: the largest gradient norm; 0 does not clip. 5 as in the authors' code.
        optimizer: "adam" (the paper's) or "sgd".
        every: run only when this many updates were accepted since the last run; these are then the round. For rules
            that step at every arrival.
    """

    name = "feddf"
    citation = (
        "@inproceedings{lin2020ensemble, title={Ensemble Distillation for Robust Model Fusion in Federated Learning}, "
        "author={Lin, Tao and Kong, Lingjing and Stich, Sebastian U. and Jaggi, Martin}, booktitle={NeurIPS}, "
        "year={2020}}"
    )
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"lr": (0.0001, 0.0003, 0.001, 0.003)}
    prediction_kinds: ClassVar[frozenset[str] | None] = frozenset({"classes", "labels"})
    lr: Annotated[float, Gt(0)] = 0.001
    steps: Annotated[int, Ge(0)] = 10
    batch_size: Annotated[int, Ge(1)] = 128
    clip: Annotated[float, Ge(0)] = 5.0
    optimizer: Literal["sgd", "adam"] = "adam"
    every: Annotated[int, Ge(1)] = 1

    def teacher(self, rows: Tensor, predictions: Predictions) -> Tensor:
        return predictions.probabilities(rows.mean(0))

    def loss(self, p: Tensor, predictions: Predictions) -> Loss:
        return kl_to(p, predictions)
