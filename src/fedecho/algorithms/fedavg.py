"""Federated averaging: the synchronous reference."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt
from torch import Tensor

from ..core.keys import Key
from ..core.messages import View
from .base import DEFAULT_CONCURRENCY, Algorithm, ClientUpdate, RunShape, sample, zeros


@dataclass(frozen=True, slots=True)
class Cohort:
    """Σ n_i·Δ_i and Σ n_i of the round so far, who has answered, and when the first of their tasks was issued."""

    total: Tensor
    examples: int = 0
    answered: tuple[int, ...] = ()
    asked_s: float | None = None


@dataclass(frozen=True)
class FedAvg(Algorithm):
    r"""The synchronous reference: x ← x + η·Σ_i (n_i/n)·Δ_i over a cohort of m clients, with n = Σ_i n_i.

    McMahan et al., *Communication-Efficient Learning of Deep Networks from Decentralized Data*, AISTATS 2017,
    Algorithm 1; https://arxiv.org/abs/1602.05629. Over-selection and deadline: Bonawitz et al., *Towards Federated
    Learning at Scale*, MLSys 2019; https://arxiv.org/abs/1902.01046.

    Attributes:
        cohort: m ≥ 1, clients whose updates are averaged in a round; the server's concurrency unless set.
        lr: η > 0, the server step; the paper has none, which is 1.
        over_selection: ≥ 0, the fraction of the cohort that is selected in addition; a round ends with the first m
            answers, and the other clients' tasks are cancelled. 0.3 in Bonawitz et al.; 0 is the paper's.
        round_deadline_s: ≥ 0, seconds after which a round ends with the clients that have answered by then, or at the
            first answer where none has; 0 is no deadline, as in the paper.
    """

    name = "fedavg"
    citation = (
        "@inproceedings{mcmahan2017communication, title={Communication-Efficient Learning of Deep Networks from "
        "Decentralized Data}, author={McMahan, Brendan and Moore, Eider and Ramage, Daniel and Hampson, Seth and "
        'y Arcas, Blaise Ag{\\"u}era}, booktitle={AISTATS}, year={2017}}'
    )
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"lr": (0.25, 0.5, 1.0, 1.5)}
    cohort: Annotated[int, Ge(1)] | None = None
    lr: Annotated[float, Gt(0)] = 1.0
    over_selection: Annotated[float, Ge(0)] = 0.0
    round_deadline_s: Annotated[float, Ge(0)] = 0.0

    @property
    def m(self) -> int:
        """The clients of a round."""
        return DEFAULT_CONCURRENCY if self.cohort is None else self.cohort

    def for_run(self, shape: RunShape) -> FedAvg:
        return self if self.cohort is not None else replace(self, cohort=shape.concurrency)

    def check(self, shape: RunShape) -> list[str]:
        selected = math.ceil(self.m * (1.0 + self.over_selection))
        if selected <= shape.concurrency:
            return []
        return [
            f"algorithm.cohort ({self.m}) with over-selection asks {selected} clients, more than server.concurrency "
            f"({shape.concurrency}); lower one or raise the other"
        ]

    def init(self, weights: Tensor, clients: int) -> Cohort:
        return Cohort(zeros(weights))

    def _free(self, state: Cohort, view: View) -> list[int]:
        answered = set(state.answered)
        return [client for client in view.idle if client not in answered]

    def select(self, state: Cohort, view: View, key: Key) -> Sequence[int]:
        beginning = not view.in_flight and not state.answered
        extra = 1.0 + self.over_selection if beginning else 1.0  # later only those that were lost are replaced
        missing = math.ceil(self.m * extra) - len(state.answered) - len(view.in_flight)
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
        return len(state.answered) >= self.m or nobody_left or (deadline is not None and view.now_s >= deadline)

    def deadline_s(self, state: Cohort, view: View) -> float | None:
        issued_s = [task.issued_at_s for task in view.in_flight.values()]
        issued_s += [] if state.asked_s is None else [state.asked_s]
        return min(issued_s) + self.round_deadline_s if self.round_deadline_s and issued_s else None

    def aggregate(self, state: Cohort, weights: Tensor, scale: float) -> tuple[Tensor, Cohort]:
        return weights + (scale * self.lr / state.examples) * state.total, Cohort(zeros(weights))

    def cancelled(self, state: Cohort, view: View) -> Iterable[int]:
        return tuple(view.in_flight)
