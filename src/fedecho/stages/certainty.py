"""FedDF's distillation with teachers weighted by their certainty."""

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
class CertaintyWeighted(RoundDistillation):
    r"""Certainty-weighted ensemble: p = softmax(Σ_i w_i·z_i / Σ_i w_i), w_i = 1 − h_i for every example; L = KL(p ‖ s).

    Our own reading of an idea that several papers share: on each example, every model of the round has the weight of
    its certainty; h_i is the entropy of softmax(z_i) over log C. The nearest in print: FedGEMS (Cheng et al., *FedGEMS:
    Federated Learning of Larger Server Models via Selective Knowledge Fusion*, arXiv 2110.11027, 2021) weights logits
    by softmax(1/H_i) and, having labels, leaves out models that are wrong; FedAUX (arXiv 2102.02514) takes a certainty
    score from features that were trained beforehand. With all weights 1 this is `feddf`, whose settings it has, so the
    two differ in the weights alone. A client that arrives twice in a round counts once, with its later model. Where a
    prediction is several labels, sigmoid stands for softmax, and h_i is the mean over the labels of H/log 2.

    Attributes:
        lr: η_d, Adam's step, as in `feddf`.
        steps: Q, steps per aggregation, as in `feddf`.
        batch_size: |B|, as in `feddf`.
        clip: the largest gradient norm, as in `feddf`; 0 does not clip.
        optimizer: "adam" or "sgd".
        every: run only when this many updates were accepted since the last run; these are then the round. For rules
            that step at every arrival.
    """

    name = "certainty"
    citation = (
        "@article{cheng2021fedgems, title={FedGEMS: Federated Learning of Larger Server Models via Selective Knowledge "
        "Fusion}, author={Cheng, Sijie and Wu, Jingwen and Xiao, Yanghua and Liu, Yang}, journal={arXiv:2110.11027}, "
        "year={2021}}"
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
        h = predictions.uncertainty(predictions.probabilities(rows))
        w = (1.0 - h).clamp(min=1e-6).unsqueeze(-1)  # where all are uncertain, all count alike
        return predictions.probabilities((w * rows).sum(0) / w.sum(0))

    def loss(self, p: Tensor, predictions: Predictions) -> Loss:
        return kl_to(p, predictions)
