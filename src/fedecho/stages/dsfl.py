"""DS-FL: distillation of sharpened averages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt
from torch import Tensor

from ..objectives.predictions import Predictions
from .compute import Loss
from .losses import cross_entropy_to
from .round_distillation import RoundDistillation


@dataclass(frozen=True)
class DSFL(RoundDistillation):
    r"""Entropy-reduction aggregation: p = softmax(p̄/T), p̄ the mean of the round's probabilities; L = CE(p, s).

    Itahara, Nishio, Koda, Morikura, Yamamoto, *Distillation-Based Semi-Supervised Federated Learning for
    Communication-Efficient Collaborative Training with Non-IID Private Data*, IEEE Transactions on Mobile Computing
    2021 (arXiv 2008.06180), the aggregation "ERA" and the server's update:

        p̄ ← 1/m·Σ_i softmax(z_i);   p ← softmax(p̄/T);   Q times on B:  x̄ ← x̄ − η_d·∇ mean_B −Σ_c p_c·log s_c

    The softmax is taken of probabilities, as published: p̄ lies in [0, 1], so no label can be more than e^{1/T} times as
    likely as another. In DS-FL only predictions travel, clients distil too, and no parameters are averaged. This stage
    is the server's half of it, on top of an aggregation: the sharpened teacher and its loss, not the small messages.

    Attributes:
        lr: η_d, the distillation step; ours.
        steps: Q, steps per aggregation; ours (the papers' rounds make whole passes over U).
        batch_size: |B|; ours.
        temperature: T; the paper's 0.1. 1 flattens, towards 0 only the most probable class is left.
        clip: the largest gradient norm; 0 does not clip. Not in the paper.
        optimizer: "sgd" or "adam".
        every: run only when this many updates were accepted since the last run; these are then the round. For rules
            that step at every arrival.
    """

    name = "dsfl"
    citation = (
        "@article{itahara2021distillation, title={Distillation-Based Semi-Supervised Federated Learning for "
        "Communication-Efficient Collaborative Training with Non-IID Private Data}, author={Itahara, Sohei and Nishio, "
        "Takayuki and Koda, Yusuke and Morikura, Masahiro and Yamamoto, Koji}, journal={IEEE Transactions on Mobile "
        "Computing}, year={2021}}"
    )
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"lr": (0.02, 0.05, 0.1, 0.2)}
    lr: Annotated[float, Gt(0)] = 0.1
    steps: Annotated[int, Ge(0)] = 10
    batch_size: Annotated[int, Ge(1)] = 50
    temperature: Annotated[float, Gt(0)] = 0.1
    clip: Annotated[float, Ge(0)] = 0.0
    optimizer: Literal["sgd", "adam"] = "sgd"
    every: Annotated[int, Ge(1)] = 1

    def teacher(self, rows: Tensor, predictions: Predictions) -> Tensor:
        return (rows.softmax(-1).mean(0) / self.temperature).softmax(-1)

    def loss(self, p: Tensor, predictions: Predictions) -> Loss:
        return cross_entropy_to(p)
