"""A better echo: teachers freed of their own label skew, and soft labels only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..core import topk as sparse
from .bank import Bank
from .echo import LOGIT_ADJUSTMENT, Echo


@dataclass(frozen=True)
class BalancedEcho(Echo):
    r"""`Echo` with two changes that our studies call for (docs/studies.md); not from the FedEcho paper.

    1. Every teacher is corrected for the labels it expects: with π_i the mean of softmax(z_i) over U, the ensemble
       averages z_i − κ·log(π_i + ε) instead of z_i. A client that has hardly seen a class expects it nowhere, and the
       plain mean lets such clients outvote the few that know it: early in a run, and where delay goes with labels.
       It is the logit adjustment of Menon et al., *Long-tail learning via logit adjustment*, ICLR 2021 (arXiv
       2007.07314), with the prior read off U, so that clients tell nothing about their labels.
    2. α = 1: soft labels only. The hard label of a certain teacher is what the server already says. Trained on it for
       some hundred versions the server knows U by heart, its clients repeat it, and early errors on U are never
       corrected: an echo chamber.

    Attributes:
        lr: as in `Echo`; so are all below but `prior` and `prior_floor`.
        steps: Q.
        batch_size: |B|.
        passes: as in `Echo`.
        clip: ν.
        alpha_min: 1 by default: soft labels only.
        alpha_max: likewise.
        alpha: "sample", "batch" or "agreement".
        average: "logits"; the correction is one of logits.
        temperature: as in `Echo`.
        teachers: weights of the rows.
        staleness_power: for teachers = "staleness".
        optimizer: "sgd" or "adam".
        every: as in `Echo`.
        max_rows: as in `Echo`.
        row_dtype: as in `Echo`.
        top_k: as in `Echo`.
        prior: κ, how much of the correction; 1 is Menon et al.'s, 0 none.
        prior_floor: ε, what a class is expected at least: bounds the correction of a class that a client never saw.
        target: what teachers are corrected to: "uniform", every class alike, or "mean", what all teachers of the bank
            expect together. Classes of a benchmark are about equally frequent; words of a language are not.
    """

    name = "balanced_echo"
    citation = f"{Echo.citation}\n{LOGIT_ADJUSTMENT}"
    alpha_min: float = 1.0
    alpha_max: float = 1.0
    prior: float = 1.0
    prior_floor: float = 1e-3
    target: Literal["uniform", "mean"] = "uniform"

    def prior_of(self, row: Tensor) -> Tensor | None:
        if not self.top_k:
            expected = row.float().softmax(-1).mean(0)
            return torch.cat([expected, expected.new_zeros(1)]) if self.target == "mean" else None
        top = sparse.unpack(row)
        rest = top.rest.exp()
        level = rest.mean()
        above = (top.values.exp() - rest.unsqueeze(-1)) / len(row)
        named = rest.new_zeros(int(top.indices.max()) + 1).index_add_(0, top.indices.flatten(), above.flatten())
        return torch.cat([(named + level).clamp(min=0.0), level.unsqueeze(0)])

    def correction(self, prior: Tensor, classes: int) -> Tensor:
        return -self.prior * (_spread(prior, classes) + self.prior_floor).log()

    def common(self, bank: Bank, classes: int) -> Tensor | None:
        if self.target == "uniform":
            return None
        expected = torch.stack([_spread(prior, classes) for prior in bank.priors.values()]).mean(0)
        return self.prior * (expected + self.prior_floor).log()

    def values(self, row: Tensor) -> Tensor:
        logits = row.double()
        expected = logits.softmax(-1).mean(0)
        return super().values(logits - self.prior * (expected + self.prior_floor).log())


def _spread(prior: Tensor, classes: int) -> Tensor:
    """A prior [n + 1] over all classes, [C]."""
    return torch.cat([prior[:-1], prior[-1:].expand(classes - len(prior) + 1)])
