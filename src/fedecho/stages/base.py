"""What a stage is: a step of the server's own that goes with any aggregation rule.

A stage hears of every update (`on_update`), may revise an accepted change before the rule receives it (`revise`), and
may change the aggregated model (`after_aggregate`). It has a state and a loss; it asks a `Compute` to predict, to
distil and to generate inputs, so that no module and no optimizer is needed here.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from annotated_types import Ge
from torch import Tensor

from ..algorithms.base import Algorithm, ClientUpdate, State
from ..core.keys import Key
from ..core.messages import Model
from ..core.plugins import shipped_classes
from ..objectives.predictions import Predictions
from .compute import LOGITS, Compute, PredictionFormat


class Stage(abc.ABC):
    """The interface of a stage."""

    name: ClassVar[str]
    """The name it is found by."""
    citation: ClassVar[str] = ""
    """BibTeX."""
    grid: ClassVar[dict[str, tuple[float, ...]]] = {}
    """The stage's own step, and the four values among which it is tuned: the same budget for every stage."""
    needs_predictions: ClassVar[bool] = True
    """Whether `on_update` needs predictions on U. Where no stage needs them, no client makes any."""
    needs_compute: ClassVar[bool] = True
    """Whether it asks the `Compute` for anything."""
    prediction_kinds: ClassVar[frozenset[str] | None] = frozenset({"classes"})
    """The kinds of predictions that the stage can use (`fedecho.objectives.predictions`): "classes", one class per
    prediction, and "labels", several labels per prediction. None: it uses no predictions and serves any objective."""
    exclusive: ClassVar[bool] = False
    """Whether the stage protects what changes hold. Then no other stage may look at them, the rule may release them as
    a plain sum only, and the model may hold nothing but weights."""
    every: Annotated[int, Ge(1)] = 1
    """Run after an aggregation only when at least this many updates were accepted since the last run."""

    # -- before a run

    def check(self, algorithm: Algorithm, others: Sequence[Stage]) -> list[str]:
        """What does not go together: in the stage's own settings, with this rule, or with the run's other stages; one
        line each, with full names of the settings."""
        return []

    def check_objective(self, objective: str, kind: str | None) -> list[str]:
        """Why the stage cannot be used with this objective, and what can; empty where it can.

        Args:
            objective: its name.
            kind: of its predictions; None where its outputs are no probabilities.
        """
        if self.prediction_kinds is None or kind in self.prediction_kinds:
            return []
        needs = " or ".join(NEEDS[known] for known in sorted(self.prediction_kinds))
        known = shipped_classes(__package__, Stage).items()
        others = [name for name, cls in known if kind in (cls.prediction_kinds or ())]  # type: ignore[attr-defined]
        remedy = f"take {_or(others)}" if others else "leave the stage out, or take an objective that has them"
        return [f"stages.name {self.name!r} needs {needs}, and the objective is {objective!r}; {remedy}"]

    def unused_settings(self) -> dict[str, str]:
        """Settings without effect as the others are, each with the reason."""
        return {}

    def for_algorithm(self, algorithm: Algorithm) -> Stage:
        """The stage as it runs with this rule: settings that follow from the rule's are filled in."""
        return self

    # -- the state

    @abc.abstractmethod
    def init(self, clients: int, predictions: Predictions | None = None) -> State:
        """The state before the first update; `clients` is N, `predictions` says what predictions mean: one class of C
        where it is None."""

    @property
    def form(self) -> PredictionFormat:
        """The form in which it wants predictions. Where two stages differ, both get all logits."""
        return LOGITS

    def memory_bytes(self, clients: int, predictions: int, classes: int) -> int:
        """The largest size of the state with N clients and P predictions of C classes each, where it grows with N."""
        return 0

    def with_rows_stored(self, state: State, store: Callable[[Tensor], Tensor]) -> State:
        """The state with `store(row)` in place of each row of predictions: the same numbers, stored elsewhere."""
        return state

    # -- the hooks

    def on_update(self, state: State, update: ClientUpdate, predictions: Tensor) -> State:
        """Hear of an update and its client's predictions on U, [P, K] logits or in the form that all stages want; also
        of an update that is refused only because it is too late.

        Where no stage of the run needs predictions there are none, [0].
        """
        return state

    def revise(
        self, state: State, update: ClientUpdate, model: Model, compute: Compute, key: Key
    ) -> tuple[Tensor, State, Mapping[str, float]]:
        """The change [d] that the rule receives in place of `update.delta`, the state, and numbers to be recorded.

        Called for every accepted update, after `on_update`; `model` is the server's current one. No numbers mean that
        nothing was done.
        """
        return update.delta, state, {}

    def after_aggregate(
        self, state: State, model: Model, compute: Compute, key: Key
    ) -> tuple[Tensor, State, Mapping[str, float]]:
        """The new weights [d] of the model just aggregated, the state, and numbers to be recorded.

        No numbers mean that nothing was done.
        """
        return model.weights, state, {}


NEEDS: dict[Any, str] = {"classes": "one class per example", "labels": "labels that hold or do not"}
"""The kinds of predictions, in a message."""


def _or(names: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
