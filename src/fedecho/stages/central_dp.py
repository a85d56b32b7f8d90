"""Central differential privacy: the server clips every change and adds Gaussian noise to what it releases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor

from ..algorithms.base import Algorithm, ClientUpdate
from ..core.errors import MissingExtra
from ..core.keys import Key
from ..core.messages import Model
from ..objectives.predictions import Predictions
from .base import Stage
from .compute import Compute


@dataclass(frozen=True, slots=True)
class Spent:
    """What clients have spent of their privacy.

    Attributes:
        squares: client to Σ_r m_r², m_r the number of its changes in release r.
        now: client to the number of its changes since the last release.
        clipped: how many of these changes were clipped.
    """

    squares: dict[int, int] = field(default_factory=dict)
    now: dict[int, int] = field(default_factory=dict)
    clipped: int = 0


@dataclass(frozen=True)
class CentralDP(Stage):
    r"""Clips each change to the norm S and adds N(0, z²S²/M) to it, so that the sum of M has the noise N(0, z²S²).

    The Gaussian mechanism of McMahan, Ramage, Talwar, Zhang, *Learning Differentially Private Recurrent Language
    Models*, ICLR 2018 (arXiv 1710.06963), without amplification by sampling: the server does not draw who answers when.
    It holds for rules that release changes only as the plain sum of M of them (FedBuff with constant weights, FADAS,
    asynchronous SGD, FedAsync); others are refused, as are further stages and models with batch-norm statistics.

    A client with m_r changes in release r has spent what one Gaussian mechanism of multiplier z/√(Σ_r m_r²) spends; ε
    is that of the client which spent most, by `dp-accounting` (extra `privacy`). It assumes that the times at which
    clients answer reveal nothing about their data, and that the seed and the run's records stay secret: they hold the
    noise and the changes themselves. In a simulation the seed is known: there the stage shows what privacy costs, and
    protects nobody.

    Attributes:
        clip: S, the largest norm of a change.
        noise_multiplier: z.
        delta: δ, at which ε is computed.
        buffer_size: M, the number of changes in a release. None, the default, takes the rule's `buffer_size`, or 1 for
            rules that step at every arrival; another number is refused.
    """

    name = "central_dp"
    citation = (
        "@inproceedings{mcmahan2018learning, title={Learning Differentially Private Recurrent Language Models}, "
        "author={McMahan, H. Brendan and Ramage, Daniel and Talwar, Kunal and Zhang, Li}, booktitle={ICLR}, "
        "year={2018}}"
    )
    needs_predictions = False
    needs_compute = False
    prediction_kinds = None
    exclusive = True
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"clip": (0.1, 0.3, 1.0, 3.0)}
    clip: Annotated[float, Ge(0)] = 1.0
    noise_multiplier: Annotated[float, Gt(0)] = 1.0
    delta: Annotated[float, Interval(gt=0, lt=1)] = 1e-5
    buffer_size: Annotated[int, Ge(1)] | None = None

    def check(self, algorithm: Algorithm, others: Sequence[Stage]) -> list[str]:
        faults = []
        if others:
            names = ", ".join(other.name for other in others)
            faults.append(f"stages {self.name!r} protects changes, and {names} would look at them: leave one out")
        if not algorithm.plain_sum:
            faults.append(
                f"stages {self.name!r} needs a rule from which changes leave only as their plain sum, and "
                f"{algorithm.name!r} is none as it is set; take fedbuff, fadas, fadas_da, async_sgd or fedasync"
            )
        elif self.buffer_size not in (None, size := _release_size(algorithm)):
            faults.append(f"stages.buffer_size ({self.buffer_size}) must be the rule's ({size}); leave it out")
        if not self.clip:
            faults.append("stages.clip is 0.0; the noise is measured by it: it must be above 0")
        return faults

    def for_algorithm(self, algorithm: Algorithm) -> CentralDP:
        return replace(self, buffer_size=_release_size(algorithm)) if self.buffer_size is None else self

    def init(self, clients: int, predictions: Predictions | None = None) -> Spent:
        self.epsilon(Spent())  # a missing accountant is reported before anything is computed
        return Spent()

    def revise(
        self, state: Spent, update: ClientUpdate, model: Model, compute: Compute, key: Key
    ) -> tuple[Tensor, Spent, Mapping[str, float]]:
        norm = float(torch.linalg.vector_norm(update.delta))
        draws = torch.from_numpy(key.numpy().standard_normal(update.delta.shape)).to(update.delta)
        noise = draws * (self.noise_multiplier * self.clip / (self.buffer_size or 1) ** 0.5)
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


def _release_size(algorithm: Algorithm) -> int:
    """M: how many changes the rule sums before it releases them."""
    return algorithm.updates_per_step
