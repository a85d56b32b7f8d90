"""FedEcho's distillation stage: stragglers speak through their predictions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..algorithms.base import ClientUpdate
from ..core import topk as sparse
from ..core.keys import Key
from ..core.messages import Model
from .bank import Bank
from .base import Stage
from .compute import Compute, Distillation, Loss, PredictionFormat

LOGIT_ADJUSTMENT = (
    "@inproceedings{menon2021longtail, title={Long-tail learning via logit adjustment}, author={Menon, Aditya Krishna "
    "and Jayasumana, Sadeep and Rawat, Ankit Singh and Jain, Himanshu and Veit, Andreas and Kumar, Sanjiv}, "
    "booktitle={ICLR}, year={2021}}"
)
"""What those cite, too, that correct teachers by what these expect on the whole."""


def uncertainty(p: Tensor) -> Tensor:
    """h = −Σ_c p_c·log p_c / log C ∈ [0, 1] (0·log 0 = 0), for p [..., C]."""
    h: Tensor = torch.special.entr(p).sum(-1) / math.log(p.shape[-1])
    return h


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
        passes: no more steps per aggregation than so many passes over U take, but at least one; 0 does not bound them.
        clip: ν, the largest gradient norm; 0 does not clip.
        alpha_min: α of a certain teacher. alpha_min = alpha_max = 1 is soft labels only, = 0 hard labels only.
        alpha_max: α of a uniform teacher.
        alpha: "sample" weighs each example by its own h (the paper's reading), "batch" by the mini-batch's mean;
            "agreement" (ours) is "sample" where the student's most probable class is not ŷ, and 1 where it is: a hard
            label that the student gives already teaches it nothing but to be sure of it. α as recorded does not count
            these.
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
        top_k: keep and send only the k most probable classes of each prediction (float16 log-probabilities, and the
            rest's mass, which is taken to lie evenly on the others): for large vocabularies. 0 keeps all logits.
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
    passes: float = 0.0
    clip: float = 1.0
    alpha_min: float = 0.2
    alpha_max: float = 0.8
    alpha: Literal["sample", "batch", "agreement"] = "sample"
    average: Literal["logits", "probabilities"] = "logits"
    temperature: float = 1.0
    teachers: Literal["uniform", "certainty", "staleness"] = "uniform"
    staleness_power: float = 0.5
    optimizer: Literal["sgd", "adam"] = "sgd"
    every: int = 1
    max_rows: int | None = None
    row_dtype: Literal["float32", "float16"] = "float32"
    top_k: int = 0

    # -- the bank

    @property
    def form(self) -> PredictionFormat:
        return PredictionFormat(self.top_k, not self.top_k and self.row_dtype == "float16")

    def init(self, clients: int) -> Bank:
        return Bank()

    def memory_bytes(self, clients: int, predictions: int, classes: int) -> int:
        rows = clients if self.max_rows is None else min(clients, self.max_rows)
        sums = 0 if self.top_k else 8 * classes * predictions
        return rows * predictions * self.form.bytes(classes) + sums

    def on_update(self, state: Bank, update: ClientUpdate, predictions: Tensor) -> Bank:
        return self.put(state, update.client, predictions, update.version - update.staleness)

    def moved(self, state: Bank, keep: Callable[[Tensor], Tensor]) -> Bank:
        return replace(state, rows={client: keep(row) for client, row in state.rows.items()})

    def put(self, bank: Bank, client: int, row: Tensor, version: int) -> Bank:
        """The bank with `row`, [P, C] logits or in this stage's form, in place of the client's earlier one."""
        if client in bank.rows:
            bank = self.evict(bank, client)
        elif self.max_rows is not None and len(bank.rows) >= self.max_rows:
            bank = self.evict(bank, next(iter(bank.rows)))
        if row.is_floating_point() and (self.top_k or row.dtype != getattr(torch, self.row_dtype)):
            row = self.form.of(row.float())  # else it came in that form
        rows, versions = {**bank.rows, client: row}, {**bank.versions, client: version}
        prior = self.prior_of(row)
        priors = bank.priors if prior is None else {**bank.priors, client: prior}
        if self.top_k:
            return Bank(rows, versions, priors=priors)
        value, weight = self._contribution(row)
        total = value if bank.total is None or not bank.rows else bank.total + value
        mass = weight if bank.mass is None or not bank.rows else bank.mass + weight
        return Bank(rows, versions, total, mass, priors)

    def evict(self, bank: Bank, client: int) -> Bank:
        """The bank without the client's row."""
        rows, versions, priors = dict(bank.rows), dict(bank.versions), dict(bank.priors)
        row = rows.pop(client)
        del versions[client]
        priors.pop(client, None)
        if bank.total is None or bank.mass is None:
            return Bank(rows, versions, priors=priors)
        value, weight = self._contribution(row)
        return Bank(rows, versions, bank.total - value, bank.mass - weight, priors)

    def prior_of(self, row: Tensor) -> Tensor | None:
        """What a teacher with this row expects on the whole: [C], or where rows are packed [n + 1], of the first n
        classes and of each other; None where the stage does not ask, or needs no memory of it."""
        return None

    def correction(self, prior: Tensor, classes: int) -> Tensor:
        """What is added to the log-probabilities of a teacher with this prior and a packed row, [C] float32."""
        raise NotImplementedError

    def common(self, bank: Bank, classes: int) -> Tensor | None:
        """What is added to the ensemble's log-probabilities, [C] float32."""
        return None

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

    def mean(self, bank: Bank, version: int) -> Tensor:
        """The weighted mean of the rows' values, [|U|, C] float64, for the server at `version`."""
        assert bank.total is not None
        assert bank.mass is not None
        if self.teachers != "staleness":
            return bank.total / bank.mass
        # every row's weight changes with every version: no sum can be kept
        weights = [(1.0 + version - bank.versions[i]) ** -self.staleness_power for i in bank.rows]
        total = sum(w * self.values(row) for w, row in zip(weights, bank.rows.values(), strict=True))
        mean: Tensor = torch.as_tensor(total) / sum(weights)
        return mean

    def ensemble(self, bank: Bank, version: int) -> Tensor:
        """p, the teacher's probabilities on U, [|U|, C] float32, for the server at `version`."""
        mean = self.mean(bank, version)
        return self._probabilities(mean, self.common(bank, mean.shape[-1])).float()

    def teacher(self, bank: Bank, model: Model, compute: Compute) -> Tensor:
        """p, what the aggregated model is taught on U, [|U|, C] float32, on its device; a bank may lie elsewhere."""
        return self.ensemble(bank, model.version).to(model.weights.device)

    def _probabilities(self, mean: Tensor, common: Tensor | None) -> Tensor:
        """p [..., C] from the ensemble's mean."""
        if self.average == "probabilities":
            p = mean.clamp(min=0.0)  # a class that nobody expects any more can end up at -1e-17
            return p if common is None else (p.log() + common).softmax(-1)
        return ((mean if common is None else mean + common) / self.temperature).softmax(-1)

    def teach(self, bank: Bank, version: int, places: Tensor, classes: int) -> Tensor:
        """p where rows are packed: the ensemble's probabilities at these places [B] of the predictions on U, [B, C].

        A teacher's missing mass lies evenly on the classes that it does not name, so this is the exact ensemble of the
        packed rows; every class that any of them names counts.
        """
        total = torch.zeros(len(places), classes, device=places.device)
        mass = torch.zeros(len(places), 1, device=places.device)
        for client, row in bank.rows.items():
            top = sparse.unpack(row[places])
            correction = self.correction(bank.priors[client], classes) if client in bank.priors else None
            weight = self._weight(top, version - bank.versions[client], classes)
            if self.average == "probabilities":
                z = top.rest.unsqueeze(-1).expand(-1, classes).scatter(-1, top.indices, top.values)
                z = z if correction is None else z + correction
                total += weight * (z / self.temperature).softmax(-1)
            else:
                rest = top.rest.unsqueeze(-1)
                total += weight * (rest if correction is None else rest + correction)
                total.scatter_add_(-1, top.indices, weight * (top.values - rest))
            mass += weight
        return self._probabilities(total / mass, self.common(bank, classes))

    def _weight(self, top: sparse.Top, age: int, classes: int) -> Tensor:
        """w of a packed row's predictions [B, 1], or of all of them, [1]."""
        if self.teachers == "staleness":
            return top.values.new_tensor([(1.0 + age) ** -self.staleness_power])
        if self.teachers == "uniform":
            return top.values.new_ones(1)
        others = classes - top.values.shape[-1]
        entropy = -(top.values.exp() * top.values).sum(-1) - others * top.rest.exp() * top.rest
        return 1.0 - (entropy / math.log(classes)).clamp(max=1.0 - 1e-6).unsqueeze(-1)

    # -- the distillation

    def loss(self, p: Tensor) -> Loss:
        """The loss against the teacher p [P, C]."""
        hard, h, negative_entropy = p.argmax(-1), uncertainty(p), -torch.special.entr(p).sum(-1)

        def loss(logits: Tensor, batch: Tensor) -> Tensor:
            return self._divergence(logits, p[batch], hard[batch], h[batch], negative_entropy[batch])

        return loss

    def _divergence(self, logits: Tensor, p: Tensor, hard: Tensor, h: Tensor, negative_entropy: Tensor) -> Tensor:
        """The mean over a batch of α·KL(p ‖ s) + (1 − α)·CE(ŷ, s)."""
        a = self.alpha_min + (self.alpha_max - self.alpha_min) * h
        if self.alpha == "batch":
            a = a.mean()
        elif self.alpha == "agreement":
            a = torch.where(logits.argmax(-1) == hard, torch.ones_like(a), a)
        log_s = F.log_softmax(logits / self.temperature, -1)
        kl = negative_entropy - (p * log_s).sum(-1)
        ce = F.cross_entropy(logits, hard, reduction="none")
        mean: Tensor = (a * self.temperature**2 * kl + (1 - a) * ce).mean()
        return mean

    def after_aggregate(
        self, state: Bank, model: Model, compute: Compute, key: Key
    ) -> tuple[Tensor, Bank, Mapping[str, float]]:
        if not state.rows:
            return model.weights, state, {}
        how = Distillation(self.steps, self.batch_size, self.lr, self.clip, self.optimizer, self.passes)
        if self.top_k:  # the teacher of a batch at a time: that of all of U would be as large as what packing saves
            seen: list[Tensor] = []

            def lazy(logits: Tensor, batch: Tensor) -> Tensor:
                p = self.teach(state, model.version, batch, compute.classes)
                entropy = torch.special.entr(p).sum(-1)
                h = entropy / math.log(p.shape[-1])
                seen.append(h)
                return self._divergence(logits, p, p.argmax(-1), h, -entropy)

            weights, loss = compute.distill(model, lazy, how, key)
            h = float(torch.cat(seen).mean())
        else:
            p = self.teacher(state, model, compute)
            weights, loss = compute.distill(model, self.loss(p), how, key)
            h = float(uncertainty(p).mean())
        alpha = self.alpha_min + (self.alpha_max - self.alpha_min) * h
        return weights, state, {"rows": len(state.rows), "uncertainty": h, "alpha": alpha, "loss": loss}
