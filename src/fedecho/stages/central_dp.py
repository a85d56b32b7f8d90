"""Central differential privacy: the server clips every change and adds Gaussian noise to what it releases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..algorithms.base import ClientUpdate
from ..core.errors import MissingExtra
from ..core.keys import Key
from ..core.messages import Model
from .base import Stage
from .compute import Compute


@dataclass(frozen=True, slots=True)
class Spent:
    """`squares`: client to Σ_r m_r², m_r its changes in release r; `now`: client to its changes since the last release,
    of which `clipped` were clipped."""

    squares: dict[int, int] = field(default_factory=dict)
    now: dict[int, int] = field(default_factory=dict)
    clipped: int = 0


@dataclass(frozen=True)
class CentralDP(Stage):
    r"""Clips each change to the norm S and adds N(0, z²S²/M) to it, so that the sum of M has the noise N(0, z²S²).

    The Gaussian mechanism of McMahan, Ramage, Talwar, Zhang, *Learning Differentially Private Recurrent Language
    Models*, ICLR 2018 (arXiv 1710.06963), without amplification by sampling: who answers when is not ours to draw. It
    holds for rules from which changes leave only as the plain sum of M of them (FedBuff with constant weights, FADAS,
    asynchronous SGD, FedAsync); others are refused, as are further stages and models with batch-norm statistics.

    A client whose changes are m_r of release r has spent what one Gaussian mechanism of multiplier z/√(Σ_r m_r²)
    spends; ε is that of the client which spent most, by `dp-accounting` (extra `privacy`). It assumes that when clients
    answer tells nothing of their data, and that the seed and the run's records stay secret: they hold the noise and the
    changes themselves. In a simulation the seed is known to all: there it shows what privacy costs, no more.

    Attributes:
        clip: S, the largest norm of a change.
        noise_multiplier: z.
        delta: δ at which ε is told.
        buffer_size: M, the rule's own by default: changes summed before they leave; 1 for rules that step at each.
    """

    name = "central_dp"
    citation = (
        "@inproceedings{mcmahan2018learning, title={Learning Differentially Private Recurrent Language Models}, "
        "author={McMahan, H. Brendan and Ramage, Daniel and Talwar, Kunal and Zhang, Li}, booktitle={ICLR}, "
        "year={2018}}"
    )
    needs_predictions = False
    needs_compute = False
    exclusive = True
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"clip": (0.1, 0.3, 1.0, 3.0)}
    clip: float = 1.0
    noise_multiplier: float = 1.0
    delta: float = 1e-5
    buffer_size: int = 1

    def init(self, clients: int) -> Spent:
        self.epsilon(Spent())  # a missing accountant is told before anything is computed
        return Spent()

    def revise(
        self, state: Spent, update: ClientUpdate, model: Model, compute: Compute, key: Key
    ) -> tuple[Tensor, Spent, Mapping[str, float]]:
        norm = float(torch.linalg.vector_norm(update.delta))
        draws = torch.from_numpy(key.numpy().standard_normal(update.delta.shape)).to(update.delta)
        noise = draws * (self.noise_multiplier * self.clip / self.buffer_size**0.5)
        delta = update.delta * min(1.0, self.clip / max(norm, 1e-30)) + noise
        now = {**state.now, update.client: state.now.get(update.client, 0) + 1}
        return delta, replace(state, now=now, clipped=state.clipped + (norm > self.clip)), {}

    def after_aggregate(
        self, state: Spent, model: Model, compute: Compute, key: Key
    ) -> tuple[Tensor, Spent, Mapping[str, float]]:
        squares = dict(state.squares)
        for client, m in state.now.items():
            squares[client] = squares.get(client, 0) + m * m
        share = state.clipped / max(1, sum(state.now.values()))
        state = Spent(squares)
        return model.weights, state, {"epsilon": self.epsilon(state), "clipped": share}

    def epsilon(self, state: Spent) -> float:
        """What the client that spent most has spent, at δ.

        Raises:
            MissingExtra: without dp-accounting.
        """
        try:
            from dp_accounting import get_epsilon_gaussian
        except ImportError:
            raise MissingExtra("the privacy accountant of central_dp", "privacy") from None
        most = max(state.squares.values(), default=0)
        return float(get_epsilon_gaussian(self.noise_multiplier / most**0.5, self.delta)) if most else 0.0
