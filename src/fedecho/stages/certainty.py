"""FedDF's distillation with teachers that count for more where they are certain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from .compute import Loss
from .echo import uncertainty
from .round import Round, kl_to


@dataclass(frozen=True)
class Certainty(Round):
    r"""Certainty-weighted ensemble: p = softmax(Σ_i w_i·z_i / Σ_i w_i), w_i = 1 − h_i for every example; L = KL(p ‖ s).

    Our own reading of an idea that several papers have: every model of the round is weighed, on each example, by how
    certain it is of it; h_i is the entropy of softmax(z_i) over log C. The nearest in print: FedGEMS (Cheng et al.,
    *FedGEMS: Federated Learning of Larger Server Models via Selective Knowledge Fusion*, arXiv 2110.11027, 2021) weighs
    logits by softmax(1/H_i) and, having labels, leaves out models that are wrong; FedAUX (arXiv 2102.02514) takes a
    certainty score from features that were trained beforehand. With all weights 1 this is `feddf`, whose settings it
    has, so the two differ in the weights alone. A client that arrives twice in a round speaks once, with its later
    model.

    Attributes:
        lr: η_d, Adam's step, as in `feddf`.
        steps: Q, steps per aggregation, as in `feddf`.
        batch_size: |B|, as in `feddf`.
        clip: the largest gradient norm, as in `feddf`; 0 does not clip.
        optimizer: "adam" or "sgd".
        every: run only when this many updates were accepted since the last run, which makes these the round: for rules
            that step at every arrival.
    """

    name = "certainty"
    citation = (
        "@article{cheng2021fedgems, title={FedGEMS: Federated Learning of Larger Server Models via Selective Knowledge "
        "Fusion}, author={Cheng, Sijie and Wu, Jingwen and Xiao, Yanghua and Liu, Yang}, journal={arXiv:2110.11027}, "
        "year={2021}}"
    )
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"lr": (0.0001, 0.0003, 0.001, 0.003)}
    lr: float = 0.001
    steps: int = 10
    batch_size: int = 128
    clip: float = 5.0
    optimizer: Literal["sgd", "adam"] = "adam"
    every: int = 1

    def teacher(self, rows: Tensor) -> Tensor:
        w = (1.0 - uncertainty(rows.softmax(-1))).clamp(min=1e-6).unsqueeze(-1)  # all uncertain: then all alike
        return ((w * rows).sum(0) / w.sum(0)).softmax(-1)

    def loss(self, p: Tensor) -> Loss:
        return kl_to(p)
