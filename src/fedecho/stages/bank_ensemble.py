"""Stages whose teacher is the ensemble of all clients' latest predictions."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..algorithms.base import ClientUpdate
from ..core import topk
from ..core.keys import Key
from ..core.messages import Model
from ..objectives.predictions import Predictions
from .bank import LARGEST_LOGIT, Bank, Contribution, Entry
from .base import Stage
from .compute import Compute, PredictionFormat
from .losses import CLASSES
from .packed import PackedSum, packed_uncertainty


class BankEnsemble(Stage):
    """Keeps the bank and makes the teacher of it; a leaf distils. The settings are explained in `Echo`."""

    prediction_kinds: ClassVar[frozenset[str] | None] = frozenset({"classes", "labels"})
    average: Literal["logits", "probabilities"]
    temperature: float
    teacher_weights: Literal["uniform", "certainty", "staleness"]
    staleness_power: float
    max_rows: int | None
    row_dtype: Literal["float32", "float16"]
    top_k: int

    @abc.abstractmethod
    def after_aggregate(
        self, state: Bank, model: Model, compute: Compute, key: Key
    ) -> tuple[Tensor, Bank, Mapping[str, float]]: ...

    def check_objective(self, objective: str, kind: str | None) -> list[str]:
        faults = super().check_objective(objective, kind)
        if self.top_k and kind == "labels" and not faults:
            faults.append(
                f"stages.top_k is {self.top_k}: packed rows need one class per example, and the objective is "
                f"{objective!r}; set it to 0"
            )
        return faults

    # -- the bank

    @property
    def form(self) -> PredictionFormat:
        return PredictionFormat(self.top_k, not self.top_k and self.row_dtype == "float16")

    def init(self, clients: int, predictions: Predictions | None = None) -> Bank:
        return Bank(CLASSES if predictions is None else predictions)

    def memory_bytes(self, clients: int, predictions: int, classes: int) -> int:
        rows = clients if self.max_rows is None else min(clients, self.max_rows)
        sums = 0 if self.top_k else 8 * classes * predictions
        return rows * predictions * self.form.bytes(classes) + sums

    def with_rows_stored(self, state: Bank, store: Callable[[Tensor], Tensor]) -> Bank:
        return state.with_rows_stored(store)

    def on_update(self, state: Bank, update: ClientUpdate, predictions: Tensor) -> Bank:
        return self.put(state, update.client, predictions, update.version - update.staleness)

    def put(self, bank: Bank, client: int, row: Tensor, version: int) -> Bank:
        """The bank with `row`, [P, K] logits or in this stage's form, in place of the client's earlier one."""
        if row.is_floating_point() and (self.top_k or row.dtype != getattr(torch, self.row_dtype)):
            row = self.form.of(row.float())  # else it came in that form
        return bank.put(client, Entry(row, version, self.prior_of(row)), self.contribution(bank), self.max_rows)

    def contribution(self, bank: Bank) -> Contribution | None:
        """What a row adds to the bank's sums; None where rows are packed and there are no sums."""
        return None if self.top_k else partial(self._contribution, bank.predictions)

    def _contribution(self, predictions: Predictions, row: Tensor) -> tuple[Tensor, Tensor]:
        """w·v [P, K] and w [P, 1] of one row, float64."""
        value = self.values(row, predictions)
        if self.teacher_weights != "certainty":
            return value, torch.ones(len(row), 1, dtype=torch.float64, device=row.device)
        h = predictions.uncertainty(predictions.probabilities(row.double()))
        weight = 1.0 - h.unsqueeze(-1).clamp(max=1.0 - 1e-6)
        return weight * value, weight

    def values(self, row: Tensor, predictions: Predictions) -> Tensor:
        """What a row [P, K] adds to the ensemble's mean, float64: its logits, or its probabilities."""
        if self.average == "probabilities":
            return predictions.probabilities(row.double() / self.temperature)
        return row.double().clamp(-LARGEST_LOGIT, LARGEST_LOGIT)

    # -- corrections of teachers by the classes that they expect

    def prior_of(self, row: Tensor) -> Tensor | None:
        """How frequent a teacher with this row expects the classes: [C], or where rows are packed [n + 1], of the first
        n classes and of each other; None where the stage does not need it, or need not remember it."""
        return None

    def correction(self, prior: Tensor, classes: int) -> Tensor:
        """What is added to the log-probabilities of a teacher with this prior and a packed row, [C] float32."""
        raise NotImplementedError

    def common(self, bank: Bank, classes: int) -> Tensor | None:
        """What is added to the ensemble's log-probabilities, [C] float32."""
        return None

    # -- the teacher

    def mean(self, bank: Bank, version: int) -> Tensor:
        """The weighted mean of the rows' values, [P, K] float64, for the server at `version`."""
        if self.teacher_weights != "staleness":
            assert bank.total is not None
            assert bank.mass is not None
            return bank.total / bank.mass
        # every row's weight changes with every version, so that there is no running sum
        entries = bank.entries.values()
        weights = [(1.0 + version - entry.version) ** -self.staleness_power for entry in entries]
        values = (self.values(entry.row, bank.predictions) for entry in entries)
        total = sum(weight * value for weight, value in zip(weights, values, strict=True))
        mean: Tensor = torch.as_tensor(total) / sum(weights)
        return mean

    def ensemble(self, bank: Bank, version: int) -> Tensor:
        """p, the teacher's probabilities on U, [P, K] float32, for the server at `version`."""
        mean = self.mean(bank, version)
        return self._probabilities(mean, self.common(bank, mean.shape[-1]), bank.predictions).float()

    def teacher(self, bank: Bank, model: Model, compute: Compute) -> Tensor:
        """p, what the aggregated model learns on U, [P, K] float32, on its device; a bank may lie elsewhere."""
        return self.ensemble(bank, model.version).to(model.weights.device)

    def teach(self, bank: Bank, version: int, places: Tensor, classes: int) -> Tensor:
        """p where rows are packed: the ensemble's probabilities at these places [B] of the predictions on U, [B, C]."""
        ensemble = PackedSum(len(places), classes, places.device)
        for entry in bank.entries.values():
            top = topk.unpack(entry.row[places])
            correction = None if entry.prior is None else self.correction(entry.prior, classes)
            weight = self._packed_weight(top, version - entry.version, classes)
            if self.average == "probabilities":
                ensemble.add_probabilities(top, weight, correction, self.temperature)
            else:
                ensemble.add_log_probabilities(top, weight, correction)
        return self._probabilities(ensemble.mean(), self.common(bank, classes), bank.predictions)

    def _packed_weight(self, top: topk.Top, age: int, classes: int) -> Tensor:
        """w of a packed row's predictions [B, 1], or of all of them, [1]."""
        if self.teacher_weights == "staleness":
            return top.values.new_tensor([(1.0 + age) ** -self.staleness_power])
        if self.teacher_weights == "uniform":
            return top.values.new_ones(1)
        return 1.0 - packed_uncertainty(top, classes).clamp(max=1.0 - 1e-6)

    def _probabilities(self, mean: Tensor, common: Tensor | None, predictions: Predictions) -> Tensor:
        """p [..., K] from the ensemble's mean."""
        if self.average == "probabilities":  # rounding may leave a running sum slightly below 0, or its mean above 1
            p = mean.clamp(min=0.0, max=1.0 if predictions.kind == "labels" else None)
            return p if common is None else (p.log() + common).softmax(-1)
        return predictions.probabilities((mean if common is None else mean + common) / self.temperature)
