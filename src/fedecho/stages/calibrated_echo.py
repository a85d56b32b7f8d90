"""FedEcho with a calibrated teacher, of which the server's own prediction is a part, and soft labels only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor

from ..algorithms.base import Algorithm
from ..core.messages import Model
from .bank import Bank, class_shares
from .base import Stage
from .compute import Compute
from .echo import LOGIT_ADJUSTMENT, Echo

MAX_STEPS = 50
"""`calibrated` ends after this many steps at the latest."""
TOLERANCE = 0.01
"""It ends earlier when every class is within this share of its target."""


def calibrated(logits: Tensor, target: Tensor, floor: float = 1e-6) -> Tensor:
    """log softmax(z + b), with the biases b [C] that give each class its target frequency: the mean over all
    predictions of softmax(z + b) is `target` [C], scaled to sum to 1, to within `TOLERANCE` of each share, or as near
    as `MAX_STEPS` steps come. Logits z [P, C]; the result is float32, on their device.

    With u = exp b and E = exp z, the fixed point u ← u · target / mean_x(u·E_x / Σ_c u_c·E_xc), from u = 1: Sinkhorn's
    iteration. A class that nobody expects gains at most 1/`floor` a step.
    """
    z = logits.double()
    e = (z - z.amax(-1, keepdim=True)).exp()
    shares = target.to(e)
    shares = (shares / shares.sum()).clamp(min=floor)
    shares = shares / shares.sum()
    u = torch.ones_like(shares)
    for _ in range(MAX_STEPS):
        ratio = u * (e.T @ (1.0 / (e @ u))) / (len(e) * shares)
        if bool(((ratio - 1.0).abs() <= TOLERANCE).all()):
            break
        u = u / ratio.clamp(min=floor)
    return (z + u.log()).log_softmax(-1).float()


@dataclass(frozen=True)
class CalibratedEcho(Echo):
    r"""`Echo` with a calibrated teacher, the server's own prediction and soft labels only; ours, from docs/studies.md.

    After an aggregation gave x̄, with z̄ the mean of the bank's rows and c(z) = log softmax(z + b), b ∈ ℝ^C such that the
    mean over U of c's probabilities is π*:

        p = softmax((1 − λ)·c(z̄) + λ·c(f(x̄; U)));   Q times on a mini-batch B of U:   L = mean_B KL(p ‖ s)

    1. Calibration. In a mean of logits each teacher has a veto: a client that never saw a class expects it nowhere, and
       the few that know it cannot outvote that. So the ensemble expects such classes less often than its members do on
       average. One bias per class restores their mean expectation, mean_i mean_u softmax(z_i), and by default no less
       than an even share: a class that few clients expect, or none yet, may still be as frequent as the rest. It is the
       logit adjustment of Menon et al., *Long-tail learning via logit adjustment*, ICLR 2021 (arXiv 2007.07314), with a
       bias that is solved for instead of taken from a prior.
    2. The server's own prediction, λ. The server has the newest model, but it leans to the labels of the few clients
       whose changes it just took; calibrated alike it is a teacher, too. With λ = 1 clients' predictions only give π*.
    3. α = 1, soft labels only, as in `BalancedEcho`.

    Attributes:
        lr: η_d. All below are as in `Echo`, but `server_weight` and `target`.
        steps: Q.
        batch_size: |B|.
        max_passes: .5 by default, so that a small U is not memorised: of the Q = 10 steps on batches of 50, a U of 300
            inputs gets three, and a U of 1,000 or more all.
        clip: ν.
        alpha_min: 1 by default: soft labels only.
        alpha_max: likewise.
        alpha: "sample", "batch" or "agreement".
        average: "logits" or "probabilities".
        temperature: as in `Echo`; it softens the bank's and the server's predictions, and those behind π*.
        teacher_weights: weights of the rows.
        staleness_power: for teacher_weights = "staleness".
        optimizer: "sgd" or "adam".
        every: as in `Echo`.
        max_rows: as in `Echo`.
        row_dtype: as in `Echo`.
        top_k: 0: a calibration needs all of the teacher's probabilities on all of U; `balanced_echo` can pack its rows.
        server_weight: λ, the weight of the server's own prediction in the teacher; 0 is the bank alone, 1 the server
            alone.
        target: π*. "mean" is the mean expectation of the bank's teachers (each counts alike), and assumes nothing of U;
            "fair" is the mean raised to at least an even share of each class (and normalised), for a U whose classes
            are about equally frequent; "uniform" is every class alike, for a U that is known to be so. Where some
            classes are ten times as frequent as others, "mean" is better (docs/studies.md).
    """

    name = "calibrated_echo"
    citation = f"{Echo.citation}\n{LOGIT_ADJUSTMENT}"
    prediction_kinds: ClassVar[frozenset[str] | None] = frozenset({"classes"})
    lr: Annotated[float, Gt(0)] = 0.1
    max_passes: Annotated[float, Ge(0)] = 0.5
    alpha_min: Annotated[float, Interval(ge=0, le=1)] = 1.0
    alpha_max: Annotated[float, Interval(ge=0, le=1)] = 1.0
    server_weight: Annotated[float, Interval(ge=0, le=1)] = 0.5
    target: Literal["fair", "mean", "uniform"] = "fair"

    def check(self, algorithm: Algorithm, others: Sequence[Stage]) -> list[str]:
        faults = super().check(algorithm, others)
        if self.top_k:
            faults.append(
                f"stages.top_k is {self.top_k}: a calibrated teacher needs all of its probabilities; set it to 0, or "
                "take the stage 'balanced_echo'"
            )
        return faults

    def prior_of(self, row: Tensor) -> Tensor | None:
        return class_shares(row.float() / self.temperature) if self.target != "uniform" else None

    def target_shares(self, bank: Bank, classes: int) -> Tensor:
        """π* [C], up to a factor."""
        if self.target == "uniform":
            return torch.ones(classes)
        mean = torch.stack(list(bank.priors.values())).mean(0)
        return mean if self.target == "mean" else mean.clamp(min=1.0 / classes)

    def teacher(self, bank: Bank, model: Model, compute: Compute) -> Tensor:
        target = self.target_shares(bank, compute.classes)
        parts = []
        if self.server_weight < 1.0:
            mean = self.mean(bank, model.version).to(model.weights.device)
            logits = mean.clamp(min=1e-30).log() if self.average == "probabilities" else mean / self.temperature
            parts.append((1.0 - self.server_weight) * calibrated(logits, target))
        if self.server_weight > 0.0:
            parts.append(self.server_weight * calibrated(compute.predict(model) / self.temperature, target))
        return torch.stack(parts).sum(0).softmax(-1)
