"""A better echo: a teacher that expects each class as often as its members do, and soft labels only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..core.errors import ConfigError
from ..core.messages import Model
from .bank import Bank
from .compute import Compute
from .echo import LOGIT_ADJUSTMENT, Echo

ROUNDS, ENOUGH = 50, 0.01
"""`calibrated` ends after so many steps, or when every class is expected within this share of its target."""


def calibrated(logits: Tensor, target: Tensor, floor: float = 1e-6) -> Tensor:
    """log softmax(z + b), with b [C] such that each class is expected as often as the target says: the mean over all
    predictions of softmax(z + b) is `target` [C], scaled to sum to 1, to within `ENOUGH` of each share or as near as
    `ROUNDS` steps come. Logits z [P, C]; the answer is float32, on their device.

    With u = exp b and E = exp z, the fixed point u ← u · target / mean_x(u·E_x / Σ_c u_c·E_xc), from u = 1: Sinkhorn's
    iteration. A class that nobody expects gains at most 1/`floor` a step.
    """
    z = logits.double()
    e = (z - z.amax(-1, keepdim=True)).exp()
    wanted = target.to(e)
    wanted = (wanted / wanted.sum()).clamp(min=floor)
    wanted = wanted / wanted.sum()
    u = torch.ones_like(wanted)
    for _ in range(ROUNDS):
        ratio = u * (e.T @ (1.0 / (e @ u))) / (len(e) * wanted)
        if bool(((ratio - 1.0).abs() <= ENOUGH).all()):
            break
        u = u / ratio.clamp(min=floor)
    return (z + u.log()).log_softmax(-1).float()


@dataclass(frozen=True)
class CalibratedEcho(Echo):
    r"""`Echo` with a calibrated teacher, the server's own voice and soft labels only; ours, from docs/studies.md.

    After an aggregation gave x̄, with z̄ the mean of the bank's rows and c(z) = log softmax(z + b), b ∈ ℝ^C such that the
    mean over U of c's probabilities is π*:

        p = softmax((1 − λ)·c(z̄) + λ·c(f(x̄; U)));   Q times on a mini-batch B of U:   L = mean_B KL(p ‖ s)

    1. Calibration. A mean of logits has a veto in it: who never saw a class expects it nowhere, and a few who know it
       cannot outvote that. So the ensemble expects such classes less often than its members do on average. One bias a
       class gives it back what they expect, mean_i mean_u softmax(z_i), and by default no less than an even share: what
       few expect, or nobody yet, may still be as frequent as the rest. It is the logit adjustment of Menon et al.,
       *Long-tail learning via logit adjustment*, ICLR 2021 (arXiv 2007.07314), with a bias that is solved for instead
       of read off a prior.
    2. The server's own voice, λ. It knows the newest, but leans to the labels of the few clients whose changes it just
       took; calibrated alike it is a teacher, too. With λ = 1 clients' predictions only tell π*.
    3. α = 1, soft labels only, as in `BalancedEcho`.

    Attributes:
        lr: η_d. All below are as in `Echo`, but `own` and `target`.
        steps: Q.
        batch_size: |B|.
        passes: .5 by default, so that a small U is not learned by heart: of the Q = 10 steps on batches of 50, 300
            inputs get three, and 1,000 or more all.
        clip: ν.
        alpha_min: 1 by default: soft labels only.
        alpha_max: likewise.
        alpha: "sample", "batch" or "agreement".
        average: "logits" or "probabilities".
        temperature: as in `Echo`; it softens all voices, and is that of π*, too.
        teachers: weights of the rows.
        staleness_power: for teachers = "staleness".
        optimizer: "sgd" or "adam".
        every: as in `Echo`.
        max_rows: as in `Echo`.
        row_dtype: as in `Echo`.
        top_k: 0: a calibration needs all of the teacher's probabilities on all of U; `balanced_echo` can pack its rows.
        own: λ, the weight of the server's own prediction in the teacher; 0 is the bank alone, 1 the server alone.
        target: π*. "mean" is what the teachers of the bank expect on average (each counts alike), and assumes nothing
            of U; "fair" is the mean raised to at least an even share of each class (and normalised), for a U whose
            classes are about equally frequent; "uniform" is every class alike, for a U that is known to be so. Where
            some classes are ten times as frequent as others, "mean" is better (docs/studies.md).
    """

    name = "calibrated_echo"
    citation = f"{Echo.citation}\n{LOGIT_ADJUSTMENT}"
    lr: float = 0.1
    passes: float = 0.5
    alpha_min: float = 1.0
    alpha_max: float = 1.0
    own: float = 0.5
    target: Literal["fair", "mean", "uniform"] = "fair"

    def __post_init__(self) -> None:
        if self.top_k:
            raise ConfigError(
                f"stages.top_k is {self.top_k}: a calibrated teacher needs all of its probabilities; "
                "set it to 0, or take the stage 'balanced_echo'"
            )

    def prior_of(self, row: Tensor) -> Tensor | None:
        return (row.float() / self.temperature).softmax(-1).mean(0) if self.target != "uniform" else None

    def wanted(self, bank: Bank, classes: int) -> Tensor:
        """π* [C], up to a factor."""
        if self.target == "uniform":
            return torch.ones(classes)
        mean = torch.stack(list(bank.priors.values())).mean(0)
        return mean if self.target == "mean" else mean.clamp(min=1.0 / classes)

    def teacher(self, bank: Bank, model: Model, compute: Compute) -> Tensor:
        target, voices = self.wanted(bank, compute.classes), []
        if self.own < 1.0:
            mean = self.mean(bank, model.version).to(model.weights.device)
            said = mean.clamp(min=1e-30).log() if self.average == "probabilities" else mean / self.temperature
            voices.append((1.0 - self.own) * calibrated(said, target))
        if self.own > 0.0:
            voices.append(self.own * calibrated(compute.predict(model) / self.temperature, target))
        return torch.stack(voices).sum(0).softmax(-1)
