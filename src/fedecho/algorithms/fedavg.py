"""Federated averaging: the synchronous reference."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..core.keys import Key
from ..core.messages import View
from .base import Algorithm, ClientUpdate, sample, zeros


@dataclass(frozen=True, slots=True)
class Cohort:
    """Σ n_i·Δ_i and Σ n_i of the round so far, who has answered, and when the first of them was asked."""

    total: Tensor
    examples: int = 0
    answered: tuple[int, ...] = ()
    asked_s: float | None = None


@dataclass(frozen=True)
class FedAvg(Algorithm):
    r"""The synchronous reference: x ← x + η·Σ_i (n_i/n)·Δ_i over a cohort that everybody waits for.

    McMahan et al., *Communication-Efficient Learning of Deep Networks from Decentralized Data*, AISTATS
    2017 (arXiv 1602.05629), Algorithm 1. Over-selection and deadline: Bonawitz et al., MLSys 2019 (arXiv 1902.01046).

    Attributes:
        cohort: clients whose updates are averaged in a round; at most the server's concurrency is asked at once.
        lr: η, the server step; the paper's is 1.
        over_selection: fraction of the cohort asked in addition; a round ends with the first `cohort` answers and the
            others are told to stop. Bonawitz et al. used 0.3.
        round_deadline_s: a round also ends this long after it began, with whoever has answered by then; with nobody, at
            the first answer. 0: no deadline.
    """

    name = "fedavg"
    citation = (
        "@inproceedings{mcmahan2017communication, title={Communication-Efficient Learning of Deep Networks from "
        "Decentralized Data}, author={McMahan, Brendan and Moore, Eider and Ramage, Daniel and Hampson, Seth and "
        'y Arcas, Blaise Ag{\\"u}era}, booktitle={AISTATS}, year={2017}}'
    )
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"lr": (0.25, 0.5, 1.0, 1.5)}
    cohort: int = 10
    lr: float = 1.0
    over_selection: float = 0.0
    round_deadline_s: float = 0.0

    def init(self, weights: Tensor, clients: int) -> Cohort:
        return Cohort(zeros(weights))

    def _free(self, state: Cohort, view: View) -> list[int]:
        answered = set(state.answered)
        return [client for client in view.idle if client not in answered]

    def select(self, state: Cohort, view: View, key: Key) -> Sequence[int]:
        beginning = not view.in_flight and not state.answered
        extra = 1.0 + self.over_selection if beginning else 1.0  # later only those that were lost are replaced
        missing = math.ceil(self.cohort * extra) - len(state.answered) - len(view.in_flight)
        return sample(self._free(state, view), min(missing, view.slots), key)

    def receive(self, state: Cohort, update: ClientUpdate) -> Cohort:
        return Cohort(
            total=state.total + update.num_examples * update.delta,
            examples=state.examples + update.num_examples,
            answered=(*state.answered, update.client),
            asked_s=update.issued_at_s if state.asked_s is None else min(state.asked_s, update.issued_at_s),
        )

    def ready(self, state: Cohort, view: View) -> bool:
        if not state.answered:
            return False
        deadline = self.deadline_s(state, view)
        nobody_left = not view.in_flight and not self._free(state, view)
        return len(state.answered) >= self.cohort or nobody_left or (deadline is not None and view.now_s >= deadline)

    def deadline_s(self, state: Cohort, view: View) -> float | None:
        asked = [task.issued_at_s for task in view.in_flight.values()]
        asked += [] if state.asked_s is None else [state.asked_s]
        return min(asked) + self.round_deadline_s if self.round_deadline_s and asked else None

    def aggregate(self, state: Cohort, weights: Tensor, scale: float) -> tuple[Tensor, Cohort]:
        return weights + (scale * self.lr / state.examples) * state.total, Cohort(zeros(weights))

    def cancelled(self, state: Cohort, view: View) -> Iterable[int]:
        return tuple(view.in_flight)
