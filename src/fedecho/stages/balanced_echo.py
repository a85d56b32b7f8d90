"""FedEcho with teachers corrected for their own label skew, and soft labels only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor

from ..core import topk
from ..objectives.predictions import Predictions
from .bank import Bank, class_shares
from .echo import LOGIT_ADJUSTMENT, Echo
from .packed import over_all_classes, packed_class_shares


@dataclass(frozen=True)
class BalancedEcho(Echo):
    r"""`Echo` with two changes that our studies call for (docs/studies.md); not from the FedEcho paper.

    1. Every teacher is corrected for the labels that it expects: with π_i the mean of softmax(z_i) over U, the ensemble
       averages z_i − κ·log(π_i + ε) instead of z_i. A client that has hardly seen a class expects it nowhere, and in
       the plain mean such clients outvote the few that know it: early in a run, and where slow clients have labels of
       their own. It is the logit adjustment of Menon et al., *Long-tail learning via logit adjustment*, ICLR 2021
       (arXiv 2007.07314), with a prior estimated on U, so that clients reveal nothing more about their labels.
    2. α = 1: soft labels only. The hard label of a certain teacher is mostly what the server predicts already. Trained
       on it for some hundred versions, the server memorises U, its clients repeat its predictions, and early errors on
       U are never corrected.

    Attributes:
        lr: as in `Echo`; so are all below but `prior_strength`, `prior_floor` and `target`.
        steps: Q.
        batch_size: |B|.
        max_passes: as in `Echo`.
        clip: ν.
        alpha_min: 1 by default: soft labels only.
        alpha_max: likewise.
        alpha: "sample", "batch" or "agreement".
        average: "logits"; the correction is one of logits.
        temperature: as in `Echo`.
        teacher_weights: weights of the rows.
        staleness_power: for teacher_weights = "staleness".
        optimizer: "sgd" or "adam".
        every: as in `Echo`.
        max_rows: as in `Echo`.
        row_dtype: as in `Echo`.
        top_k: as in `Echo`.
        prior_strength: κ, how strong the correction is; 1 is Menon et al.'s, 0 none.
        prior_floor: ε, the least share of a class: it bounds the correction of a class that a client never saw.
        target: the class frequencies to which teachers are corrected: "uniform", every class alike, or "mean", the mean
            over all teachers of the bank. Classes of a benchmark are about equally frequent; words of a language are
            not.
    """

    name = "balanced_echo"
    citation = f"{Echo.citation}\n{LOGIT_ADJUSTMENT}"
    prediction_kinds: ClassVar[frozenset[str] | None] = frozenset({"classes"})
    alpha_min: Annotated[float, Interval(ge=0, le=1)] = 1.0
    alpha_max: Annotated[float, Interval(ge=0, le=1)] = 1.0
    prior_strength: Annotated[float, Ge(0)] = 1.0
    prior_floor: Annotated[float, Gt(0)] = 1e-3
    target: Literal["uniform", "mean"] = "uniform"

    def prior_of(self, row: Tensor) -> Tensor | None:
        if self.top_k:
            return packed_class_shares(topk.unpack(row))
        if self.target == "uniform":  # then only `values` needs it
            return None
        shares = class_shares(row.float())
        return torch.cat([shares, shares.new_zeros(1)])

    def correction(self, prior: Tensor, classes: int) -> Tensor:
        return -self.prior_strength * (over_all_classes(prior, classes) + self.prior_floor).log()

    def common(self, bank: Bank, classes: int) -> Tensor | None:
        if self.target == "uniform":
            return None
        shares = torch.stack([over_all_classes(prior, classes) for prior in bank.priors.values()]).mean(0)
        return self.prior_strength * (shares + self.prior_floor).log()

    def values(self, row: Tensor, predictions: Predictions) -> Tensor:
        logits = row.double()
        correction = self.prior_strength * (class_shares(logits) + self.prior_floor).log()
        return super().values(logits - correction, predictions)
