"""FedEcho's distillation stage: the server learns from the latest predictions of every client, stragglers included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor

from ..algorithms.base import Algorithm
from ..core.keys import Key
from ..core.messages import Model
from ..objectives.predictions import Predictions
from .bank import Bank
from .bank_ensemble import BankEnsemble
from .base import Stage
from .compute import Compute, Distillation, Loss
from .losses import CLASSES, Target, UncertaintyWeighted

LOGIT_ADJUSTMENT = (
    "@inproceedings{menon2021longtail, title={Long-tail learning via logit adjustment}, author={Menon, Aditya Krishna "
    "and Jayasumana, Sadeep and Rawat, Ankit Singh and Jain, Himanshu and Veit, Andreas and Kumar, Sanjiv}, "
    "booktitle={ICLR}, year={2021}}"
)
"""Cited, too, by stages that correct teachers by the class frequencies which these expect."""


@dataclass(frozen=True)
class Echo(BankEnsemble):
    r"""FedEcho's distillation: the server learns what its clients predict, by soft labels where they are uncertain.

    Wang, Ma, Chen, *Stragglers Can Contribute More: Uncertainty-Aware Distillation for Asynchronous Federated
    Learning*, arXiv 2511.19966 (2025). After an aggregation gave x̄, with z̄ the mean of the bank's rows:

        p = softmax(z̄);  ŷ = argmax p;  h = H(p)/log C;  α = α_min + (α_max − α_min)·h
        Q times on a mini-batch B of U, s = softmax(f(x̄; u)):
            L = mean_B [ α·KL(p ‖ s) + (1−α)·CE(ŷ, s) ];   x̄ ← x̄ − η_d·clip(∇L, ν)

    Where a prediction is L labels that hold or do not (ours), each label is a Bernoulli variable: p = sigmoid(z̄),
    ŷ = [p > ½], h the mean over the labels of H(p_l)/log 2; KL and CE are sums over the labels.

    The paper's numeric settings are not public; the defaults are from our own experiments (docs/results.md).

    Attributes:
        lr: η_d, the distillation step.
        steps: Q, distillation steps per aggregation.
        batch_size: |B|.
        max_passes: the steps of an aggregation are no more than this many passes over U take, but at least one; 0 is no
            bound.
        clip: ν, the largest gradient norm; 0 does not clip.
        alpha_min: α of a certain teacher. alpha_min = alpha_max = 1 is soft labels only, = 0 hard labels only.
        alpha_max: α of a uniform teacher.
        alpha: "sample" weighs each example by its own h (the paper's reading), "batch" by the mini-batch's mean;
            "agreement" (ours) is "sample" where the student's hard label is not ŷ, and 1 where it is: a hard label that
            the student gives already only makes it more certain. The recorded α does not count these.
        average: what the ensemble averages, "logits" (the paper's) or "probabilities".
        temperature: softens p (also where its uncertainty h is taken) and s in the KL term, which is then multiplied by
            the temperature's square (Hinton et al. 2015).
        teacher_weights: weights w_i of the rows: "uniform" (the paper's), "certainty" (1 − h_i per example), or
            "staleness", (1 + age)^−staleness_power, age in versions since the row's model started.
        staleness_power: for teacher_weights = "staleness".
        optimizer: "sgd" (the paper's) or "adam".
        every: run only when this many updates were accepted since the last run: for rules that step at every arrival.
        max_rows: the largest number of rows in the bank; the client least recently heard leaves first. None is no
            bound.
        row_dtype: "float32" or "float16", the type in which rows are stored.
        top_k: store and send only the k most probable classes of each prediction (float16 log-probabilities, and the
            mass of the others, which is taken to lie evenly on them): for large vocabularies. 0 stores all logits.
    """

    name = "echo"
    citation = (
        "@article{wang2025stragglers, title={Stragglers Can Contribute More: Uncertainty-Aware Distillation for "
        "Asynchronous Federated Learning}, author={Wang, Yujia and Ma, Fenglong and Chen, Jinghui}, "
        "journal={arXiv:2511.19966}, year={2025}}"
    )
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"lr": (0.02, 0.05, 0.1, 0.2)}
    lr: Annotated[float, Gt(0)] = 0.05
    steps: Annotated[int, Ge(0)] = 10
    batch_size: Annotated[int, Ge(1)] = 50
    max_passes: Annotated[float, Ge(0)] = 0.0
    clip: Annotated[float, Ge(0)] = 1.0
    alpha_min: Annotated[float, Interval(ge=0, le=1)] = 0.2
    alpha_max: Annotated[float, Interval(ge=0, le=1)] = 0.8
    alpha: Literal["sample", "batch", "agreement"] = "sample"
    average: Literal["logits", "probabilities"] = "logits"
    temperature: Annotated[float, Gt(0)] = 1.0
    teacher_weights: Literal["uniform", "certainty", "staleness"] = "uniform"
    staleness_power: Annotated[float, Ge(0)] = 0.5
    optimizer: Literal["sgd", "adam"] = "sgd"
    every: Annotated[int, Ge(1)] = 1
    max_rows: Annotated[int, Ge(1)] | None = None
    row_dtype: Literal["float32", "float16"] = "float32"
    top_k: Annotated[int, Ge(0)] = 0

    def check(self, algorithm: Algorithm, others: Sequence[Stage]) -> list[str]:
        if self.alpha_min <= self.alpha_max:
            return []
        low, high = f"stages.alpha_min ({self.alpha_min})", f"stages.alpha_max ({self.alpha_max})"
        return [f"{low} exceeds {high}; lower one or raise the other"]

    def weighted(self, predictions: Predictions) -> UncertaintyWeighted:
        """The loss with this stage's settings."""
        return UncertaintyWeighted(predictions, self.alpha_min, self.alpha_max, self.alpha, self.temperature)

    def loss(self, p: Tensor, predictions: Predictions = CLASSES) -> Loss:
        """The loss against the teacher p [P, K] on all of U."""
        return self.weighted(predictions).against(Target.of(p, predictions))

    def after_aggregate(
        self, state: Bank, model: Model, compute: Compute, key: Key
    ) -> tuple[Tensor, Bank, Mapping[str, float]]:
        if not state.entries:
            return model.weights, state, {}
        weighted, uncertainties = self.weighted(state.predictions), []

        def packed_loss(logits: Tensor, batch: Tensor) -> Tensor:
            """Makes the teacher of a batch at a time: that of all of U would be as large as what packing saves."""
            target = Target.of(self.teach(state, model.version, batch, compute.classes), state.predictions)
            uncertainties.append(target.h)
            return weighted(logits, target)

        if self.top_k:
            loss: Loss = packed_loss
        else:
            target = Target.of(self.teacher(state, model, compute), state.predictions)
            uncertainties.append(target.h)
            loss = weighted.against(target)
        settings = Distillation(self.steps, self.batch_size, self.lr, self.clip, self.optimizer, self.max_passes)
        weights, mean_loss = compute.distill(model, loss, settings, key)
        h = float(torch.cat(uncertainties).mean()) if uncertainties else 0.0  # none: packed rows and no step
        alpha = self.alpha_min + (self.alpha_max - self.alpha_min) * h
        return weights, state, {"rows": len(state.entries), "uncertainty": h, "alpha": alpha, "loss": mean_loss}
