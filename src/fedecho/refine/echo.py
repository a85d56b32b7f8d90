"""FedEcho's distillation stage: stragglers speak through their predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..algorithms.base import Change
from ..messages import Model
from ..rng import Key
from .base import Compute, Distillation, Loss, Stage


def uncertainty(p: Tensor) -> Tensor:
    """h = −Σ_c p_c·log p_c / log C ∈ [0, 1] (0·log 0 = 0), for p [..., C]."""
    h: Tensor = torch.special.entr(p).sum(-1) / math.log(p.shape[-1])
    return h


@dataclass(frozen=True, slots=True)
class Bank:
    """The echo bank: one row of logits on U per client, kept until that client reports again.

    Attributes:
        rows: client to its logits z_i [|U|, C]; least recently heard first.
        versions: client to the server version its row's model started from.
        total: Σ_i w_i·v_i [|U|, C] float64 (v_i logits or probabilities), kept incrementally: a new row costs
            O(|U|·C) whatever the number of clients. float64 keeps it equal to the full sum over a long run.
        mass: Σ_i w_i [|U|, 1] float64.
    """

    rows: dict[int, Tensor] = field(default_factory=dict)
    versions: dict[int, int] = field(default_factory=dict)
    total: Tensor | None = None
    mass: Tensor | None = None


@dataclass(frozen=True)
class Echo(Stage):
    r"""FedEcho's distillation: teach the server what its clients predict, softly where they are unsure.

    Wang, Ma, Chen, *Stragglers Can Contribute More: Uncertainty-Aware Distillation for Asynchronous Federated
    Learning*, arXiv 2511.19966 (2025). After an aggregation gave x̄, with z̄ the mean of the bank's rows:

        p = softmax(z̄);  ŷ = argmax p;  h = H(p)/log C;  α = α_min + (α_max − α_min)·h
        Q times on a mini-batch B of U, s = softmax(f(x̄; u)):
            L = mean_B [ α·KL(p ‖ s) + (1−α)·CE(ŷ, s) ];   x̄ ← x̄ − η_d·clip(∇L, ν)

    The paper's numeric settings are not public; the defaults are from our own experiments (docs/results.md).

    Attributes:
        lr: η_d, the distillation step.
        steps: Q, distillation steps per aggregation.
        batch_size: |B|.
        clip: ν, the largest gradient norm; 0 does not clip.
        alpha_min: α of a certain teacher. alpha_min = alpha_max = 1 is soft labels only, = 0 hard labels only.
        alpha_max: α of a uniform teacher.
        alpha: "sample" weighs each example by its own h (the paper's reading), "batch" by the mini-batch's mean.
        average: what the ensemble averages, "logits" (the paper's) or "probabilities".
        temperature: softens p (also where its uncertainty h is taken) and s in the KL term, which is then multiplied by
            the temperature's square (Hinton et al. 2015).
        teachers: weights w_i of the rows: "uniform" (the paper's), "certainty" (1 − h_i per example), or "staleness"
            (1 + age)^−staleness_power, age in versions since the row's model started.
        staleness_power: for teachers = "staleness".
        optimizer: "sgd" (the paper's) or "adam".
        every: run only when this many updates were accepted since the last run: for rules that step at every arrival.
        max_rows: bound on the bank; the client least recently heard leaves first. None keeps all.
        row_dtype: "float32" or "float16", how rows are kept.
    """

    name = "echo"
    citation = (
        "@article{wang2025stragglers, title={Stragglers Can Contribute More: Uncertainty-Aware Distillation for "
        "Asynchronous Federated Learning}, author={Wang, Yujia and Ma, Fenglong and Chen, Jinghui}, "
        "journal={arXiv:2511.19966}, year={2025}}"
    )
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"lr": (0.02, 0.05, 0.1, 0.2)}
    lr: float = 0.05
    steps: int = 10
    batch_size: int = 50
    clip: float = 1.0
    alpha_min: float = 0.2
    alpha_max: float = 0.8
    alpha: Literal["sample", "batch"] = "sample"
    average: Literal["logits", "probabilities"] = "logits"
    temperature: float = 1.0
    teachers: Literal["uniform", "certainty", "staleness"] = "uniform"
    staleness_power: float = 0.5
    optimizer: Literal["sgd", "adam"] = "sgd"
    every: int = 1
    max_rows: int | None = None
    row_dtype: Literal["float32", "float16"] = "float32"

    # -- the bank

    def init(self, clients: int) -> Bank:
        return Bank()

    def memory_bytes(self, clients: int, outputs: int) -> int:
        rows = clients if self.max_rows is None else min(clients, self.max_rows)
        return rows * outputs * (4 if self.row_dtype == "float32" else 2)

    def on_update(self, state: Bank, change: Change, predictions: Tensor) -> Bank:
        return self.put(state, change.client, predictions, change.version - change.staleness)

    def put(self, bank: Bank, client: int, row: Tensor, version: int) -> Bank:
        """The bank with `row` [|U|, C] in place of the client's earlier one."""
        if client in bank.rows:
            bank = self.evict(bank, client)
        elif self.max_rows is not None and len(bank.rows) >= self.max_rows:
            bank = self.evict(bank, next(iter(bank.rows)))
        dtype: torch.dtype = getattr(torch, self.row_dtype)
        if dtype == torch.float16:  # an infinity could never be taken out of the running sum again
            row = row.clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max)
        row = row.to(dtype)
        value, weight = self._contribution(row)
        total = value if bank.total is None or not bank.rows else bank.total + value
        mass = weight if bank.mass is None or not bank.rows else bank.mass + weight
        return Bank({**bank.rows, client: row}, {**bank.versions, client: version}, total, mass)

    def evict(self, bank: Bank, client: int) -> Bank:
        """The bank without the client's row."""
        assert bank.total is not None
        assert bank.mass is not None
        value, weight = self._contribution(bank.rows[client])
        rows, versions = dict(bank.rows), dict(bank.versions)
        del rows[client], versions[client]
        return Bank(rows, versions, bank.total - value, bank.mass - weight)

    def values(self, row: Tensor) -> Tensor:
        """What a row [|U|, C] adds to the ensemble's mean, float64: its logits, or its probabilities."""
        value: Tensor = row.double()
        if self.average == "probabilities":
            value = (value / self.temperature).softmax(-1)
        return value

    def _contribution(self, row: Tensor) -> tuple[Tensor, Tensor]:
        """w·v [|U|, C] and w [|U|, 1] of one row."""
        value = self.values(row)
        weight = torch.ones(len(row), 1, dtype=torch.float64, device=row.device)
        if self.teachers == "certainty":
            weight = 1.0 - uncertainty(row.double().softmax(-1)).unsqueeze(-1).clamp(max=1.0 - 1e-6)
            value = weight * value
        return value, weight

    def ensemble(self, bank: Bank, version: int) -> Tensor:
        """p, the teacher's probabilities on U, [|U|, C] float32, for the server at `version`."""
        assert bank.total is not None
        assert bank.mass is not None
        if self.teachers == "staleness":  # every row's weight changes with every version: no sum can be kept
            weights = [(1.0 + version - bank.versions[i]) ** -self.staleness_power for i in bank.rows]
            total = sum(w * self.values(row) for w, row in zip(weights, bank.rows.values(), strict=True))
            mean = torch.as_tensor(total) / sum(weights)
        else:
            mean = bank.total / bank.mass
        if self.average == "probabilities":
            p: Tensor = mean.clamp(min=0.0)  # a class that nobody expects any more can end up at −1e-17
        else:
            p = (mean / self.temperature).softmax(-1)
        return p.float()

    # -- the distillation

    def loss(self, p: Tensor) -> Loss:
        """The loss against the teacher p [|U|, C]."""
        hard, h, negative_entropy = p.argmax(-1), uncertainty(p), -torch.special.entr(p).sum(-1)
        alphas = self.alpha_min + (self.alpha_max - self.alpha_min) * h

        def loss(logits: Tensor, batch: Tensor) -> Tensor:
            a = alphas[batch] if self.alpha == "sample" else alphas[batch].mean()
            log_s = F.log_softmax(logits / self.temperature, -1)
            kl = negative_entropy[batch] - (p[batch] * log_s).sum(-1)
            ce = F.cross_entropy(logits, hard[batch], reduction="none")
            mean: Tensor = (a * self.temperature**2 * kl + (1 - a) * ce).mean()
            return mean

        return loss

    def after_aggregate(
        self, state: Bank, model: Model, compute: Compute, key: Key
    ) -> tuple[Tensor, Bank, Mapping[str, float]]:
        if not state.rows:
            return model.weights, state, {}
        p = self.ensemble(state, model.version)
        how = Distillation(self.steps, self.batch_size, self.lr, self.clip, self.optimizer)
        weights, loss = compute.distill(model, self.loss(p), how, key)
        h = float(uncertainty(p).mean())
        alpha = self.alpha_min + (self.alpha_max - self.alpha_min) * h
        return weights, state, {"rows": len(state.rows), "uncertainty": h, "alpha": alpha, "loss": loss}
