"""What a stage is: a step of the server's own that composes with any aggregation rule.

A stage hears of every update (`on_update`), may revise an accepted change before the rule receives it (`revise`), and
gets its turn on the aggregated model (`after_aggregate`). It owns its memory and its loss; predicting, distilling and
making inputs it asks of a `Compute`, so that no module and no optimizer lives here.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from ..algorithms.base import Algorithm, ClientUpdate, State
from ..core.keys import Key
from ..core.messages import Model
from .compute import LOGITS, Compute, PredictionFormat


class Stage(abc.ABC):
    """The interface of a stage."""

    name: ClassVar[str]
    citation: ClassVar[str] = ""
    grid: ClassVar[dict[str, tuple[float, ...]]] = {}
    """The stage's own step, and the four values among which it is tuned: the same budget for every stage."""
    needs_predictions: ClassVar[bool] = True
    """Whether `on_update` is to be given predictions on U. Where no stage needs them, no client makes any."""
    needs_compute: ClassVar[bool] = True
    """Whether it asks the `Compute` for anything."""
    alone: ClassVar[bool] = False
    """Whether the stage protects what changes hold: then no other stage may look at them, the rule may let them out as
    a plain sum only, and the model may hold nothing but weights."""
    every: int = 1
    """Run after an aggregation only when at least this many updates were accepted since the last run."""

    def for_run(self, algorithm: Algorithm) -> Stage:
        """The stage with those settings filled in that are None because the rule decides them."""
        return self

    def own_faults(self) -> list[str]:
        """Settings that contradict each other, a line each with full names: "stages.alpha_min (0.9) exceeds …; do …".
        Asked together with the bounds, so that a number may be out of them."""
        return []

    def check(self, algorithm: Algorithm, others: Sequence[Stage]) -> list[str]:
        """What does not go with the rule or the run's other stages, a line each with full names and a remedy. Called
        on the result of `for_run`, when each setting is within its bounds."""
        return []

    def unused_settings(self) -> dict[str, str]:
        """Settings without effect as the others are, each with the reason: {"staleness_power": "teachers is …"}."""
        return {}

    @abc.abstractmethod
    def init(self, clients: int) -> State:
        """The state before the first update; `clients` is N."""

    @property
    def form(self) -> PredictionFormat:
        """The form in which it wants predictions. Where two stages differ, both get all logits."""
        return LOGITS

    def memory_bytes(self, clients: int, predictions: int, classes: int) -> int:
        """How much the state may come to hold with N clients and P predictions of C classes each, where that grows
        with N."""
        return 0

    def on_update(self, state: State, update: ClientUpdate, predictions: Tensor) -> State:
        """Hear of an update and its client's predictions on U, [P, C] logits or in the form that all stages want; also
        of one refused only for its lateness.

        Where no stage of the run needs predictions there are none, [0].
        """
        return state

    def moved(self, state: State, keep: Callable[[Tensor], Tensor]) -> State:
        """The state with the predictions in it kept elsewhere: `keep` puts a row there and returns it from there."""
        return state

    def revise(
        self, state: State, update: ClientUpdate, model: Model, compute: Compute, key: Key
    ) -> tuple[Tensor, State, Mapping[str, float]]:
        """The change [d] that the rule receives in place of `update.delta`, the state, and numbers worth recording.

        Asked for every accepted update, after `on_update`; `model` is the server's now. Nothing to record means that
        nothing was done.
        """
        return update.delta, state, {}

    def after_aggregate(
        self, state: State, model: Model, compute: Compute, key: Key
    ) -> tuple[Tensor, State, Mapping[str, float]]:
        """The refined weights [d] of the model just aggregated, the state, and numbers worth recording.

        Nothing to record means that nothing was done.
        """
        return model.weights, state, {}
