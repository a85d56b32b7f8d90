"""What every stage may do: revise a change, ask for predictions, refuse what does not go together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from fedecho.algorithms.base import ClientUpdate
from fedecho.algorithms.fedasync import FedAsync
from fedecho.algorithms.fedbuff import FedBuff
from fedecho.core.keys import Key
from fedecho.core.messages import Model
from fedecho.objectives.predictions import Predictions
from fedecho.stages.base import Stage
from fedecho.stages.compute import (
    LOGITS,
    Compute,
    PredictionFormat,
)
from fedecho.stages.echo import Echo
from helpers import Hand, Quadratics, vec


def worker() -> Quadratics:
    generator = torch.Generator().manual_seed(0)
    return Quadratics(torch.randn(6, 6, generator=generator), torch.randn(5, 2, generator=generator))


@dataclass(frozen=True)
class Scaled(Stage):
    """Multiplies every change, adds to it, and counts."""

    name = "scaled"
    needs_predictions: ClassVar[bool] = False
    factor: float = 2.0
    plus: float = 0.0

    def init(self, clients: int, predictions: Predictions | None = None) -> int:
        return 0

    def revise(
        self, state: int, change: ClientUpdate, model: Model, compute: Compute, key: Key
    ) -> tuple[Tensor, int, Mapping[str, float]]:
        return self.factor * change.delta + self.plus, state + 1, {"factor": self.factor}


class Silent(Quadratics):
    """Has no U, and no stage may ask for predictions on it."""

    def predict(self, model: Model, inputs: Tensor | None = None, form: PredictionFormat = LOGITS) -> Tensor:
        assert inputs is not None
        return super().predict(model, inputs)


def test_the_rule_receives_the_revised_change_and_stages_revise_in_order() -> None:
    compute = Silent(torch.zeros(6, 6))
    stages = [Scaled(2.0), Scaled(1.0, plus=3.0)]
    hand = Hand(FedBuff(1, lr=1.0), d=2, stages=stages, compute=compute)
    task = hand.waiting[0]
    assert hand.sent[task].task.extra["predict"] == 0.0, "no stage asks for predictions"
    hand.arrive(task, delta=vec(1.0, -1.0))
    assert hand.server.model.weights.tolist() == [5.0, 1.0]
    assert hand.server.state.stages == (1, 1)
    assert [(fact.task, fact.detail["factor"]) for fact in hand.log.of("stage")] == [(task, 2.0), (task, 1.0)]


def test_a_rule_that_averages_models_gets_the_model_that_goes_with_the_revised_change() -> None:
    hand = Hand(FedAsync(mixing=0.5, mu=0.0), d=2, stages=[Scaled(3.0)], compute=Silent(torch.zeros(6, 6)))
    hand.arrive(hand.waiting[0], delta=vec(1.0, -1.0))
    assert hand.server.model.weights.tolist() == [1.5, -1.5]


def test_a_change_that_is_refused_is_not_revised() -> None:
    hand = Hand(FedBuff(1, max_staleness=0), d=2, stages=[Scaled()], compute=Silent(torch.zeros(6, 6)))
    late, other = hand.waiting[:2]
    hand.arrive(other)
    hand.arrive(late)
    hand.arrive(hand.waiting[-1], num_examples=0)
    assert hand.log.reasons == ["too late", "num_examples is 0"]
    assert hand.server.state.stages == (1,)


def test_predictions_are_asked_for_where_any_stage_needs_them_and_revising_costs_declared_time() -> None:
    hand = Hand(FedBuff(1), d=6, stages=[Scaled(), Echo()], compute=worker(), outputs=(5, 3))
    assert hand.sent[hand.waiting[0]].task.extra["predict"] == 1.0
    config = replace(hand.server.config, stage_s=2.0)
    hand = Hand(FedBuff(2), d=6, stages=[Scaled()], compute=Silent(torch.zeros(6, 6)), config=config)
    hand.arrive(hand.waiting[0], at_s=1.0)
    assert hand.server.state.busy_until_s == 3.0
