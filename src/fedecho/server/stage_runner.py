"""The stages of a run, in their order: what they hear, what they revise, and what they do to an aggregated model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..algorithms.base import ClientUpdate, State
from ..core.errors import ConfigError
from ..core.formats import LOGITS, PredictionFormat
from ..core.keys import Key
from ..core.messages import LogEntry, Model, TrainResult
from ..stages.base import Stage
from ..stages.compute import Compute
from .state import ServerState


def common_format(stages: Iterable[Stage]) -> PredictionFormat:
    """The format of predictions that suits all stages."""
    formats = {stage.form for stage in stages if stage.needs_predictions}
    return formats.pop() if len(formats) == 1 else LOGITS


class StageRunner:
    """Runs stages on a `ServerState`, whose `stages` and `stage_runs` are changed here alone.

    Args:
        stages: in their order.
        key: where their random draws come from.
        compute: does their learning; None where no stage needs it.
        stage_s: seconds charged for one run of a stage.
        predict_s: seconds charged for predictions that are made here.
        store_row: stores a row of predictions elsewhere, and returns it from there; None leaves rows in memory.

    Attributes:
        format: of the predictions that the stages need; None where no stage needs any.

    Raises:
        ConfigError: when a stage needs `compute` and there is none.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        key: Key,
        compute: Compute | None,
        stage_s: float,
        predict_s: float,
        store_row: Callable[[Tensor], Tensor] | None,
    ) -> None:
        if compute is None and any(stage.needs_compute for stage in stages):
            raise ConfigError("a stage needs somebody to compute: give `compute`")
        self.stages = tuple(stages)
        self.format = common_format(stages) if any(stage.needs_predictions for stage in stages) else None
        self._key, self._compute = key, compute
        self._stage_s, self._predict_s, self._store_row = stage_s, predict_s, store_row
        self._names = [stage.name for stage in stages]

    def init(self, clients: int) -> tuple[State, ...]:
        """Every stage's state before the first update; `clients` is N."""
        predictions = None if self._compute is None else self._compute.predictions
        return tuple(stage.init(clients, predictions) for stage in self.stages)

    def with_rows_stored(self, states: tuple[State, ...]) -> tuple[State, ...]:
        """The stages' states with their rows of predictions where `store_row` puts them."""
        if self._store_row is None:
            return states
        pairs = zip(self.stages, states, strict=True)
        return tuple(stage.with_rows_stored(state, self._store_row) for stage, state in pairs)

    def predict(self, state: ServerState, result: TrainResult) -> Tensor:
        """The predictions on U of a client's model that came without."""
        assert self._compute is not None
        assert self.format is not None
        state.busy_until_s += self._predict_s
        model = Model(state.model.version, result.weights, result.buffers)
        return self._compute.predict(model, form=self.format)

    def on_update(self, state: ServerState, update: ClientUpdate, predictions: Tensor) -> None:
        """Let the stages hear of an update."""
        if not self.stages:
            return
        if self._store_row is not None and self.format is not None:
            predictions = self._store_row(predictions)
        pairs = zip(self.stages, state.stages, strict=True)
        state.stages = tuple(stage.on_update(own, update, predictions) for stage, own in pairs)

    def revise(
        self, state: ServerState, update: ClientUpdate, about: Mapping[str, int], log: list[LogEntry]
    ) -> ClientUpdate:
        """The update as the stages leave it: x_i − x_{t−τ} = Δ_i holds of it again. `about` says which task it is."""
        if not self.stages:
            return update
        states, compute = list(state.stages), self._given_compute
        for i, stage in enumerate(self.stages):
            key = self._stage_key("revise", i, about["task"])
            delta, states[i], numbers = stage.revise(states[i], update, state.model, compute, key)
            if delta is not update.delta:
                update = replace(update, delta=delta, weights=update.start + delta)
            if numbers:  # else it did nothing
                state.busy_until_s += self._stage_s
                detail: dict[str, float | str] = {"stage": stage.name, **numbers}
                log.append(LogEntry("stage", state.now_s, **about, detail=detail))
        state.stages = tuple(states)
        return update

    def after_aggregate(self, state: ServerState, model: Model, log: list[LogEntry]) -> Model:
        """The aggregated model as the stages leave it."""
        if not self.stages:
            return model
        states, runs = list(state.stages), list(state.stage_runs)
        for i, stage in enumerate(self.stages):
            if state.updates - runs[i] < stage.every:
                continue
            key = self._stage_key("refine", i, model.version)
            weights, states[i], numbers = stage.after_aggregate(states[i], model, self._given_compute, key)
            model, runs[i] = replace(model, weights=weights), state.updates
            if numbers:  # else it did nothing
                state.busy_until_s += self._stage_s
                detail: dict[str, float | str] = {"stage": stage.name, **numbers}
                log.append(LogEntry("stage", state.now_s, version=model.version, detail=detail))
        state.stages, state.stage_runs = tuple(states), tuple(runs)
        return model

    @property
    def _given_compute(self) -> Any:
        return self._compute  # None only where no stage asks it for anything

    def _stage_key(self, purpose: str, position: int, number: int) -> Key:
        """The key of the stage at `position`: by its name; of a later stage of the same name by its position as well.

        `purpose` is "revise" or "refine" (after an aggregation), `number` the task or the model version.
        """
        name = self._names[position]
        if self._names.index(name) == position:
            return self._key.fold(purpose, name, number)
        return self._key.fold("repeated", purpose, name, position, number)
