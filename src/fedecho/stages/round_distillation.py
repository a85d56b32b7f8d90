"""Stages whose teachers are the models of the round: those that arrived since the stage last ran."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from ..algorithms.base import ClientUpdate
from ..core.errors import ConfigError
from ..core.keys import Key
from ..core.messages import Model
from ..objectives.predictions import Predictions
from .base import Stage
from .compute import Compute, Distillation, Loss


class RoundDistillation(Stage):
    """Distils, after an aggregation, the ensemble of the round's models; a leaf gives the teacher and the loss.

    The state maps each client of the round to its logits on U, [P, K]. In the papers' synchronous rounds a client has
    one model, so here too a client counts once: where it arrives twice in a round, its later model replaces the
    earlier. The next round starts with no teacher, unlike FedEcho's bank.
    """

    lr: float
    steps: int
    batch_size: int
    clip: float
    optimizer: Literal["sgd", "adam"]

    @abc.abstractmethod
    def teacher(self, rows: Tensor, predictions: Predictions) -> Tensor:
        """p, the probabilities to learn, [P, K], from the round's logits [m, P, K]."""

    @abc.abstractmethod
    def loss(self, p: Tensor, predictions: Predictions) -> Loss:
        """The loss against the teacher p [P, K]."""

    def init(self, clients: int, predictions: Predictions | None = None) -> dict[int, Tensor]:
        return {}

    def on_update(self, state: dict[int, Tensor], update: ClientUpdate, predictions: Tensor) -> dict[int, Tensor]:
        return {**state, update.client: predictions}

    def after_aggregate(
        self, state: dict[int, Tensor], model: Model, compute: Compute, key: Key
    ) -> tuple[Tensor, dict[int, Tensor], Mapping[str, float]]:
        if not state:
            return model.weights, state, {}
        predictions = compute.predictions
        if predictions is None:
            raise ConfigError(f"stages.name {self.name!r} needs probabilities, and the objective's outputs are none")
        p = self.teacher(torch.stack(list(state.values())), predictions)
        settings = Distillation(self.steps, self.batch_size, self.lr, self.clip, self.optimizer)
        weights, loss = compute.distill(model, self.loss(p, predictions), settings, key)
        return weights, {}, {"rows": len(state), "loss": loss}
