"""Stages that learn from the round's models: teachers and losses by hand, and what the round is."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fedecho.algorithms.fedasync import FedAsync
from fedecho.algorithms.fedbuff import FedBuff
from fedecho.core.keys import Key
from fedecho.core.messages import Model
from fedecho.stages.certainty import CertaintyWeighted
from fedecho.stages.dsfl import DSFL
from fedecho.stages.feddf import FedDF
from fedecho.stages.losses import CLASSES, cross_entropy_to, kl_to
from fedecho.stages.round_distillation import RoundDistillation
from helpers import Hand, Quadratics, change, vec

# ------------------------------------------------------------------------------------------------- teachers and losses


def test_feddfs_teacher_is_the_softmax_of_the_mean_logits() -> None:
    rows = torch.tensor([[[2.0, 0.0, 1.0]], [[0.0, 4.0, 1.0]]])  # mean 1, 2, 1: softmax 1/(2 + e), e/(2 + e)
    assert FedDF().teacher(rows, CLASSES)[0].tolist() == pytest.approx([0.211942, 0.576117, 0.211942], abs=1e-6)


def test_dsfls_teacher_sharpens_the_mean_probabilities() -> None:
    rows = torch.tensor([[[0.5, 0.3, 0.2]], [[0.1, 0.7, 0.2]]]).log()  # mean .3, .5, .2; over T: 3, 5, 2
    assert DSFL().teacher(rows, CLASSES)[0].tolist() == pytest.approx([0.114195, 0.843795, 0.042010], abs=1e-6)
    flat = DSFL(temperature=1.0).teacher(rows, CLASSES)[0]  # 1/(1 + e^.2 + e^-.1), ...
    assert flat.tolist() == pytest.approx([0.320, 0.391, 0.289], abs=1e-3)


def test_a_certain_model_counts_for_more() -> None:
    # softmax .75, .25: h = .811278, weight .188722. softmax .1, .9: h = .468996, weight .531004.
    rows = torch.tensor([[[math.log(3), 0.0]], [[0.0, math.log(9)]]])
    # the first logit minus the second: (.188722·1.098612 − .531004·2.197225)/.719726 = −1.333010
    assert CertaintyWeighted().teacher(rows, CLASSES)[0].tolist() == pytest.approx([0.208662, 0.791338], abs=1e-5)
    assert FedDF().teacher(rows, CLASSES)[0].tolist() == pytest.approx([0.366025, 0.633975], abs=1e-5)


def test_models_that_know_nothing_count_alike_and_weights_are_each_examples_own() -> None:
    rows = torch.tensor([[[5.0, 5.0], [6.0, 0.0]], [[1.0, 1.0], [0.0, 0.0]]])
    p = CertaintyWeighted().teacher(rows, CLASSES)
    assert p[0].tolist() == pytest.approx([0.5, 0.5])
    assert p[1].tolist() == pytest.approx([0.997527, 0.002473], abs=1e-4), "the second model is silent there"


@pytest.mark.parametrize("stage", [FedDF(), DSFL(), CertaintyWeighted()])
def test_the_loss_by_hand(stage: RoundDistillation) -> None:
    p = torch.tensor([[0.75, 0.25], [0.0, 1.0]])
    cross_entropy = [math.log(2), math.log(1 + math.e)]  # students ½, ½ and e/(1 + e), 1/(1 + e)
    entropy = [0.562335, 0.0]
    student = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    kl = not isinstance(stage, DSFL)
    want = [c - h * kl for c, h in zip(cross_entropy, entropy, strict=True)]
    loss = stage.loss(p, CLASSES)
    assert float(loss(student, torch.tensor([1, 0]))) == pytest.approx((want[0] + want[1]) / 2, abs=1e-5)
    assert float(loss(student[1:], torch.tensor([0]))) == pytest.approx(want[0], abs=1e-5)
    assert float(kl_to(p)(p.log().clamp(min=-50), torch.arange(2))) == pytest.approx(0, abs=1e-6)
    assert float(cross_entropy_to(p)(p.log().clamp(min=-50), torch.arange(2))) == pytest.approx(0.562335 / 2, abs=1e-5)


# ------------------------------------------------------------------------------------------------------------ the round


def worker() -> Quadratics:
    generator = torch.Generator().manual_seed(0)
    return Quadratics(torch.randn(6, 6, generator=generator), torch.randn(5, 2, generator=generator))


def row(value: float) -> Tensor:
    return torch.full((5, 3), value)


def test_the_teachers_are_those_that_arrived_since_the_last_aggregation() -> None:
    hand = Hand(FedBuff(2, lr=1.0), d=6, stages=[FedDF()], compute=worker(), outputs=(5, 3))
    first, second, third = hand.waiting
    clients = [hand.sent[task].task.client for task in (first, second, third)]
    hand.arrive(first, predictions=row(1.0))
    assert hand.server.state.stages[0].keys() == {clients[0]}
    hand.arrive(second, predictions=row(2.0))
    assert hand.server.state.stages[0] == {}, "used up"
    assert hand.log.of("stage")[0].detail["rows"] == 2
    hand.arrive(third, predictions=row(3.0))
    assert hand.server.state.stages[0].keys() == {clients[2]}, "no row of an earlier round"


def test_a_client_that_arrives_twice_in_a_round_speaks_once_with_its_later_model() -> None:
    stage, state = FedDF(), FedDF().init(3)
    for client, value in ((1, 1.0), (2, 2.0), (1, 7.0)):
        state = stage.on_update(state, change(vec(1.0), client=client), row(value))
    assert {client: float(z[0, 0]) for client, z in state.items()} == {1: 7.0, 2: 2.0}


def test_a_round_without_models_leaves_the_model_alone() -> None:
    model = Model(1, torch.randn(6), torch.zeros(0))
    for stage in (FedDF(), DSFL(), CertaintyWeighted()):
        assert stage.after_aggregate({}, model, worker(), Key(0)) == (model.weights, {}, {})


def test_every_makes_the_round_on_a_rule_that_steps_at_every_arrival() -> None:
    hand = Hand(FedAsync(), d=6, stages=[FedDF(every=3)], compute=worker(), outputs=(5, 3))
    for _ in range(7):
        hand.arrive(hand.waiting[0], predictions=row(1.0))
    assert [fact.version for fact in hand.log.of("stage")] == [3, 6]
