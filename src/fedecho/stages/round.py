"""What stages share whose teachers are the models of the round: those that arrived since the stage last ran."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..algorithms.base import ClientUpdate
from ..core.keys import Key
from ..core.messages import Model
from .base import Stage
from .compute import Compute, Distillation, Loss


def kl_to(p: Tensor) -> Loss:
    """mean_B KL(p ‖ s) with s = softmax(logits), for a teacher p [|U|, C]."""
    negative_entropy = -torch.special.entr(p).sum(-1)

    def loss(logits: Tensor, batch: Tensor) -> Tensor:
        mean: Tensor = (negative_entropy[batch] - (p[batch] * F.log_softmax(logits, -1)).sum(-1)).mean()
        return mean

    return loss


def cross_entropy_to(p: Tensor) -> Loss:
    """mean_B −Σ_c p_c·log s_c with s = softmax(logits), for a teacher p [|U|, C]."""

    def loss(logits: Tensor, batch: Tensor) -> Tensor:
        mean: Tensor = -(p[batch] * F.log_softmax(logits, -1)).sum(-1).mean()
        return mean

    return loss


class Round(Stage):
    """Distils, after an aggregation, what the models of the round say together; a leaf has the teacher and the loss.

    The state maps each client of the round to its logits on U, [|U|, C]. In the papers' synchronous rounds a client has
    one model, so here too it has one voice: where it arrives twice in a round, its later model replaces the earlier.
    Nothing is carried over: the next round starts with no teacher (the difference to FedEcho's bank).
    """

    lr: float
    steps: int
    batch_size: int
    clip: float
    optimizer: Literal["sgd", "adam"]

    @abc.abstractmethod
    def teacher(self, rows: Tensor) -> Tensor:
        """p, the probabilities to learn, [|U|, C], from the round's logits [m, |U|, C]."""

    @abc.abstractmethod
    def loss(self, p: Tensor) -> Loss:
        """The loss against the teacher p [|U|, C]."""

    def init(self, clients: int) -> dict[int, Tensor]:
        return {}

    def on_update(self, state: dict[int, Tensor], update: ClientUpdate, predictions: Tensor) -> dict[int, Tensor]:
        return {**state, update.client: predictions}

    def after_aggregate(
        self, state: dict[int, Tensor], model: Model, compute: Compute, key: Key
    ) -> tuple[Tensor, dict[int, Tensor], Mapping[str, float]]:
        if not state:
            return model.weights, state, {}
        p = self.teacher(torch.stack(list(state.values())))
        how = Distillation(self.steps, self.batch_size, self.lr, self.clip, self.optimizer)
        weights, loss = compute.distill(model, self.loss(p), how, key)
        return weights, {}, {"rows": len(state), "loss": loss}
