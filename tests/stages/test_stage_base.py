"""What every stage may do: revise a change, ask for predictions, refuse what does not go together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

import pytest
import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor

from fedecho.algorithms.base import ClientUpdate
from fedecho.algorithms.fedasync import FedAsync
from fedecho.algorithms.fedbuff import FedBuff
from fedecho.config.registry import stage_classes
from fedecho.core.keys import Key
from fedecho.core.messages import Model
from fedecho.objectives.predictions import Predictions
from fedecho.stages.base import Stage
from fedecho.stages.central_dp import CentralDP
from fedecho.stages.certainty import CertaintyWeighted
from fedecho.stages.compute import (
    LOGITS,
    Compute,
    PredictionFormat,
)
from fedecho.stages.echo import Echo
from fedecho.stages.feddf import FedDF
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
    assert hand.sent[task].task.request.predictions is None, "no stage asks for predictions"
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
    assert hand.sent[hand.waiting[0]].task.request.predictions is not None
    config = replace(hand.server.config, stage_s=2.0)
    hand = Hand(FedBuff(2), d=6, stages=[Scaled()], compute=Silent(torch.zeros(6, 6)), config=config)
    hand.arrive(hand.waiting[0], at_s=1.0)
    assert hand.server.state.busy_until_s == 3.0


# ----------------------------------------------------------------------------------------------------------- objectives


@pytest.mark.parametrize("name", stage_classes())
def test_every_stage_serves_classes_and_a_stage_without_predictions_serves_all(name: str) -> None:
    stage = stage_classes()[name]()
    assert stage.check_objective("classification", "classes") == []
    refused = stage.check_objective("regression", None)
    assert (refused == []) == (stage.prediction_kinds is None)


@pytest.mark.parametrize("name", ["balanced_echo", "calibrated_echo", "dsfl", "fedrevive"])
def test_what_needs_one_class_per_example_is_refused_with_what_would_work(name: str) -> None:
    assert stage_classes()[name]().check_objective("multilabel", "labels") == [
        f"stages.name {name!r} needs one class per example, and the objective is 'multilabel'; take certainty, echo or "
        "feddf"
    ]


@pytest.mark.parametrize("stage", [Echo(), CertaintyWeighted(), FedDF(), CentralDP()])
def test_what_serves_labels(stage: Stage) -> None:
    assert stage.check_objective("multilabel", "labels") == []


def test_packed_rows_are_refused_for_labels() -> None:
    assert Echo(top_k=4).check_objective("classification", "classes") == []
    assert Echo(top_k=4).check_objective("multilabel", "labels") == [
        "stages.top_k is 4: packed rows need one class per example, and the objective is 'multilabel'; set it to 0"
    ]


def test_an_objective_without_probabilities_is_refused() -> None:
    assert Echo().check_objective("regression", None) == [
        "stages.name 'echo' needs one class per example or labels that hold or do not, and the objective is "
        "'regression'; leave the stage out, or take an objective that has them"
    ]


# ------------------------------------------------------------------------------------------------------- settings


def marks(hint: Any) -> list[Any]:
    """The annotations of a type, also of one beside None."""
    if get_origin(hint) is Annotated:
        return list(get_args(hint)[1:])
    return [mark for option in get_args(hint) for mark in marks(option)]


@pytest.mark.parametrize("name", stage_classes())
def test_every_number_declares_its_bounds_and_its_default_is_within(name: str) -> None:
    cls = stage_classes()[name]
    hints = get_type_hints(cls, include_extras=True)
    numbers = 0
    for field in fields(cls):  # type: ignore[arg-type]
        if field.type and any(kind in str(hints[field.name]) for kind in ("int", "float")):
            numbers += "Literal" not in str(hints[field.name])
            bounds = [mark for mark in marks(hints[field.name]) if isinstance(mark, Ge | Gt | Interval)]
            assert bounds or "Literal" in str(hints[field.name]), f"{name}.{field.name} takes any number"
            for bound in bounds if field.default is not None else ():
                low, above = getattr(bound, "ge", None), getattr(bound, "gt", None)
                assert low is None or field.default >= low
                assert above is None or field.default > above
    assert numbers >= 4


def test_alpha_min_may_not_exceed_alpha_max() -> None:
    assert Echo(alpha_min=0.4, alpha_max=0.4).check(FedBuff(), []) == []
    assert Echo(alpha_min=0.5, alpha_max=0.4).check(FedBuff(), []) == [
        "stages.alpha_min (0.5) exceeds stages.alpha_max (0.4); lower one or raise the other"
    ]


def test_central_dp_checks_what_stands_beside_it() -> None:
    assert CentralDP().check(FedBuff(buffer_size=5), []) == []
    assert CentralDP(buffer_size=5).check(FedBuff(buffer_size=5), []) == []
    assert CentralDP(buffer_size=4, clip=0.0).check(FedBuff(buffer_size=5), [Echo()]) == [
        "stages 'central_dp' protects changes, and echo would look at them: leave one out",
        "stages.buffer_size (4) must be the rule's (5); leave it out",
        "stages.clip is 0.0; the noise is measured by it: it must be above 0",
    ]


def test_central_dp_takes_the_size_of_a_release_from_the_rule() -> None:
    assert CentralDP().for_algorithm(FedBuff(buffer_size=5)) == CentralDP(buffer_size=5)
    assert CentralDP().for_algorithm(FedAsync()) == CentralDP(buffer_size=1)
    server = Hand(FedBuff(4), stages=[CentralDP()]).server
    assert server.stages == (CentralDP(buffer_size=4),)
