"""The other stages: teachers and losses by hand, the round, a revised change, made inputs, real digits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_learner import Small, federation, learner
from torch import Tensor, nn

from fedecho.algorithms.base import ClientUpdate
from fedecho.algorithms.fedasync import FedAsync
from fedecho.algorithms.fedbuff import FedBuff
from fedecho.config.config import Config
from fedecho.core.keys import Key
from fedecho.core.messages import Model, Task
from fedecho.experiment.build import prepare
from fedecho.experiment.setup import Setup
from fedecho.learning.generator import Networks, _loss, _towards
from fedecho.learning.settings import ClientConfig
from fedecho.stages.base import Stage
from fedecho.stages.certainty import Certainty
from fedecho.stages.compute import (
    LOGITS,
    Compute,
    Distillation,
    Generator,
    Loss,
    PredictionFormat,
    Synthesis,
    Synthetic,
)
from fedecho.stages.dsfl import DSFL
from fedecho.stages.echo import Echo
from fedecho.stages.feddf import FedDF
from fedecho.stages.fedrevive import FedRevive, Memory, draw
from fedecho.stages.round import Round, cross_entropy_to, kl_to
from helpers import Hand, Log, Quadratics, change, drive, through_json, transport_for, vec

# ------------------------------------------------------------------------------------------------- teachers and losses


def test_feddfs_teacher_is_the_softmax_of_the_mean_logits() -> None:
    rows = torch.tensor([[[2.0, 0.0, 1.0]], [[0.0, 4.0, 1.0]]])  # mean 1, 2, 1: softmax 1/(2 + e), e/(2 + e)
    assert FedDF().teacher(rows)[0].tolist() == pytest.approx([0.211942, 0.576117, 0.211942], abs=1e-6)


def test_dsfls_teacher_sharpens_the_mean_probabilities() -> None:
    rows = torch.tensor([[[0.5, 0.3, 0.2]], [[0.1, 0.7, 0.2]]]).log()  # mean .3, .5, .2; over T: 3, 5, 2
    assert DSFL().teacher(rows)[0].tolist() == pytest.approx([0.114195, 0.843795, 0.042010], abs=1e-6)
    flat = DSFL(temperature=1.0).teacher(rows)[0]  # 1/(1 + e^.2 + e^-.1), ...
    assert flat.tolist() == pytest.approx([0.320, 0.391, 0.289], abs=1e-3)


def test_a_certain_model_counts_for_more() -> None:
    # softmax .75, .25: h = .811278, weight .188722. softmax .1, .9: h = .468996, weight .531004.
    rows = torch.tensor([[[math.log(3), 0.0]], [[0.0, math.log(9)]]])
    # the first logit minus the second: (.188722·1.098612 − .531004·2.197225)/.719726 = −1.333010
    assert Certainty().teacher(rows)[0].tolist() == pytest.approx([0.208662, 0.791338], abs=1e-5)
    assert FedDF().teacher(rows)[0].tolist() == pytest.approx([0.366025, 0.633975], abs=1e-5)


def test_models_that_know_nothing_count_alike_and_weights_are_each_examples_own() -> None:
    rows = torch.tensor([[[5.0, 5.0], [6.0, 0.0]], [[1.0, 1.0], [0.0, 0.0]]])
    p = Certainty().teacher(rows)
    assert p[0].tolist() == pytest.approx([0.5, 0.5])
    assert p[1].tolist() == pytest.approx([0.997527, 0.002473], abs=1e-4), "the second model is silent there"


@pytest.mark.parametrize("stage", [FedDF(), DSFL(), Certainty()])
def test_the_loss_by_hand(stage: Round) -> None:
    p = torch.tensor([[0.75, 0.25], [0.0, 1.0]])
    cross_entropy = [math.log(2), math.log(1 + math.e)]  # students ½, ½ and e/(1 + e), 1/(1 + e)
    entropy = [0.562335, 0.0]
    student = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    kl = not isinstance(stage, DSFL)
    want = [c - h * kl for c, h in zip(cross_entropy, entropy, strict=True)]
    loss = stage.loss(p)
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
    for stage in (FedDF(), DSFL(), Certainty()):
        assert stage.after_aggregate({}, model, worker(), Key(0)) == (model.weights, {}, {})


def test_every_makes_the_round_on_a_rule_that_steps_at_every_arrival() -> None:
    hand = Hand(FedAsync(), d=6, stages=[FedDF(every=3)], compute=worker(), outputs=(5, 3))
    for _ in range(7):
        hand.arrive(hand.waiting[0], predictions=row(1.0))
    assert [fact.version for fact in hand.log.of("stage")] == [3, 6]


# ------------------------------------------------------------------------------------------- a stage revises a change


@dataclass(frozen=True)
class Scaled(Stage):
    """Multiplies every change, adds to it, and counts."""

    name = "scaled"
    needs_predictions: ClassVar[bool] = False
    factor: float = 2.0
    plus: float = 0.0

    def init(self, clients: int) -> int:
        return 0

    def revise(
        self, state: int, change: ClientUpdate, model: Model, compute: Compute, key: Key
    ) -> tuple[Tensor, int, Mapping[str, float]]:
        return self.factor * change.delta + self.plus, state + 1, {"factor": self.factor}


class Silent(Quadratics):
    """Has no U and is not to be asked about it."""

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


# -------------------------------------------------------------------------------------------------- FedRevive, by hand


@pytest.mark.parametrize(
    ("staleness", "beta"),
    [(0, 0.0), (25, 0.0669873), (50, 0.25), (75, 0.5), (100, 0.75), (150, 1.0), (151, 1.0), (300, 1.0)],
)
def test_beta_of_staleness(staleness: int, beta: float) -> None:
    assert FedRevive().beta(staleness) == pytest.approx(beta, abs=1e-7)


@dataclass
class Scripted:
    """Answers as it is told, and notes what it was asked."""

    logits: list[Tensor]
    step: float = 1.0

    def __post_init__(self) -> None:
        self.asked: list[Any] = []

    shape = (4,)

    classes = 3

    def predict(self, model: Model, inputs: Tensor | None = None, form: PredictionFormat = LOGITS) -> Tensor:
        assert inputs is not None
        self.asked.append(("predict", model, inputs))
        z = self.logits[min(len([a for a in self.asked if a[0] == "predict"]), len(self.logits)) - 1]
        return z.expand(len(inputs), -1)

    def distill(
        self, model: Model, loss: Loss, how: Distillation, key: Key, inputs: Tensor | None = None
    ) -> tuple[Tensor, float]:
        assert inputs is not None
        self.asked.append(("distill", model, how, inputs))
        return model.weights + self.step, 0.5

    def synthesize(
        self, generator: Generator | None, teachers: Any, mix: Tensor, student: Model, how: Synthesis, key: Key
    ) -> tuple[Generator, Synthetic]:
        self.asked.append(("synthesize", teachers, mix, how))
        made = torch.zeros(how.batch_size, 4) + len(self.asked)
        return Generator(vec(1), vec(1), vec(1), 1), Synthetic(
            made, torch.zeros(how.batch_size, dtype=torch.int64), 0.1
        )


EAGER = FedRevive(generate_after=0, distill_after=1, generate_every=2, teachers=3, synthesis_batch=2, pool_size=5)
MODEL = Model(60, vec(10, 20), torch.zeros(0))


def revised(stage: FedRevive, compute: Scripted, stalenesses: list[int], delta: Tensor) -> tuple[list[Tensor], Memory]:
    state, made = stage.init(9), []
    for i, tau in enumerate(stalenesses):
        item = change(delta + i, client=i, staleness=tau, version=60)
        new, state, _ = stage.revise(state, item, MODEL, compute, Key(i))
        made.append(new - i)
    return made, state


def test_a_stale_change_is_mixed_with_what_distilling_changes_in_the_current_model() -> None:
    compute = Scripted([vec(0, 0)], step=1.0)
    made, _ = revised(EAGER, compute, [50, 50, 150, 0, 75], vec(-4, 8))
    # KD is +1; at i the change is (−4 + i, 8 + i), and i is taken off the answer
    assert made[0].tolist() == [-4, 8], "still waiting"
    assert made[1].tolist() == pytest.approx([0.75 * -3 + 0.25 - 1, 0.75 * 9 + 0.25 - 1])
    assert made[2].tolist() == pytest.approx([1 - 2, 1 - 2])
    assert made[3].tolist() == [-4, 8], "a fresh change is left alone"
    assert made[4].tolist() == pytest.approx([0.5 * 0 + 0.5 - 4, 0.5 * 12 + 0.5 - 4])
    models = [asked[1] for asked in compute.asked if asked[0] == "distill"]
    assert models == [MODEL] * 3, "the student is the current model"
    hows = [asked[2] for asked in compute.asked if asked[0] == "distill"]
    assert hows == [Distillation(10, batch, 1e-4, 0.0, "adam") for batch in (64, 96, 96)]


def test_the_teachers_are_the_last_returned_models_the_arriving_one_among_them() -> None:
    compute = Scripted([vec(0, 0)])
    _, state = revised(EAGER, compute, [1] * 5, vec(1, 1))
    assert [teacher.client for teacher in state.teachers] == [2, 3, 4]
    assert [teacher.model.weights.tolist() for teacher in state.teachers] == [[3, 3], [4, 4], [5, 5]]
    assert [teacher.model.version for teacher in state.teachers] == [59, 59, 59]
    asked = [[m.weights.tolist() for m in a[1]] for a in compute.asked if a[0] == "synthesize"]
    assert asked == [[[1, 1]], [[1, 1], [2, 2], [3, 3]], [[3, 3], [4, 4], [5, 5]]], "every second update"
    assert [a[3].adversarial for a in compute.asked if a[0] == "synthesize"] == [0.0, 0.1, 0.1]


def test_the_pool_is_bounded_and_keeps_the_newest() -> None:
    _, state = revised(EAGER, Scripted([vec(0, 0)]), [1] * 9, vec(1, 1))
    assert state.inputs is not None
    assert state.labels is not None
    assert state.inputs.shape == (5, 4)
    assert state.labels.shape == (5,)
    values = state.inputs[:, 0].tolist()
    assert values == sorted(values)
    assert values[0] < values[1] == values[2] < values[3] == values[4]


def test_a_clients_class_proportions_are_guessed_from_its_first_two_models() -> None:
    t = FedRevive().probe_temperature
    compute = Scripted([vec(t * math.log(3), 0), vec(0, t * math.log(3)), vec(50, 0)])  # .75 .25, then .25 .75
    stage, state = FedRevive(), FedRevive().init(3)
    means = []
    for i in range(3):
        state = stage.remember(state, change(vec(1, 1), client=7, staleness=1), compute, Key(i))
        means.append(state.proportions()[-1].tolist())
    assert means[0] == pytest.approx([0.75, 0.25])
    assert means[1] == pytest.approx([0.5, 0.5])
    assert means[2] == pytest.approx([0.5, 0.5]), "the third model is not asked"
    probes = [inputs for _, _, inputs in compute.asked]
    assert [tuple(p.shape) for p in probes] == [(64, 4)] * 2
    assert abs(float(torch.cat(probes).mean())) < 0.15
    assert float(torch.cat(probes).std()) == pytest.approx(1, abs=0.1)


def test_pool_inputs_are_drawn_by_label() -> None:
    labels, draws = np.array([0, 2, 0, 2, 2]), Key(0).numpy()
    assert set(draw(labels, np.array([0.0, 0.0, 1.0]), 200, draws)) == {1, 3, 4}
    assert set(draw(labels, np.array([1.0, 0.0, 0.0]), 200, draws)) == {0, 2}
    assert set(draw(labels, np.array([0.0, 1.0, 0.0]), 200, draws)) == {0, 1, 2, 3, 4}, "nothing was made for it"
    drawn = draw(labels, np.array([0.25, 0.0, 0.75]), 4000, draws)
    assert np.isin(drawn, [0, 2]).mean() == pytest.approx(0.25, abs=0.03)


# ------------------------------------------------------------------------------------------------------- made of noise


@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_a_model_that_is_not_loaded_says_the_same(memory_format: Any) -> None:
    one = learner(Small, federation((2, 8, 8)), ClientConfig(), memory_format=memory_format)
    model = one.train(Task(0, 0, 0, 0.0), one.initial())
    trained = Model(0, model.weights, model.buffers + 0.5)
    inputs = torch.randn(7, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    want = one.predict(trained, inputs)
    one._load(one.initial())
    one.module.eval()
    leaf = inputs.clone().requires_grad_()
    torch.testing.assert_close(one._apply(trained, leaf), want)
    torch.testing.assert_close(one.predict(trained, one.data.unlabeled), one.predict(trained))
    (gradient,) = torch.autograd.grad(one._apply(trained, leaf).sum(), leaf)
    assert float(gradient.norm()) > 0
    assert all(isinstance(p, nn.Parameter) for p in one.module.parameters())


def test_the_generator_moves_as_adam_would() -> None:
    start, goals = torch.randn(5), [torch.randn(5) for _ in range(4)]
    weights = start.clone().requires_grad_()
    adam = torch.optim.Adam([weights], lr=0.01, betas=(0.5, 0.999), eps=1e-12)
    state = Generator(start, torch.zeros(5), torch.zeros(5), 0)
    for goal in goals:
        adam.zero_grad()
        (0.5 * (weights - goal).square().sum()).backward()  # type: ignore[no-untyped-call]
        adam.step()
        state = _towards(state, goal, 0.01)
    torch.testing.assert_close(state.weights, weights.detach(), rtol=1e-4, atol=1e-6)


def digits(method: str, **settings: Any) -> Setup:
    tables: dict[str, Any] = {
        "experiment": {"updates": 60},
        "data": {"dataset": "digits", "clients": 8, "unlabeled_size": 100, "partition": "dirichlet_mix"},
        "model": {"name": "mlp", "hidden": [32]},
        "client": {"epochs": 2, "batch_size": 10},
        "server": {"concurrency": 6},
        "population": {"name": "large", "class_counts": [5, 2, 1]},
    }
    rule, _, stage = method.partition("+")
    tables["algorithm"] = {"name": rule}
    if stage:
        tables["stages"] = {"name": stage, **settings}
    return prepare(Config.from_dict(tables))


def returned(setup: Setup, rounds: int = 2) -> list[Model]:
    """Every client's model, after some local training."""
    models = [setup.learner.initial() for _ in range(8)]
    for round_ in range(rounds):
        updates = [setup.learner.train(Task(8 * round_ + i, i, 0, 0.0), model) for i, model in enumerate(models)]
        models = [Model(0, update.weights, update.buffers) for update in updates]
    return models


def accuracy(setup: Setup, model: Model) -> float:
    return setup.learner.objective.values(setup.learner.evaluate(model, *setup.data.test))["accuracy"]


@pytest.mark.parametrize("stage", [FedDF(lr=0.003), DSFL(lr=0.2), Certainty(lr=0.003)])
def test_a_rounds_models_teach_a_student_real_digits(stage: Round) -> None:
    setup = digits("fedbuff")
    stage = replace(stage, steps=150)  # type: ignore[type-var]
    student = setup.learner.initial()
    state = stage.init(8)
    for i, model in enumerate(returned(setup)):
        state = stage.on_update(state, change(model.weights, client=i), setup.learner.predict(model))
    weights, _, told = stage.after_aggregate(state, student, setup.learner, Key(4))
    assert told["rows"] == 8
    assert accuracy(setup, replace(student, weights=weights)) > accuracy(setup, student) + 0.3


SYNTHESIS = Synthesis(10, 64, 0.003, 0.001, 64, 64, 0.1)


def mixes(setup: Setup) -> Tensor:
    """The clients' true class proportions, [8, C]."""
    return torch.stack([setup.data.label_mix([i]) for i in range(8)]).float()


def confidence(setup: Setup, teachers: list[Model], mix: Tensor, made: Synthetic) -> float:
    """The probability of the labels that inputs were made for, each teacher counting by its share of the label."""
    p = torch.stack([setup.learner.predict(model, made.inputs).softmax(-1) for model in teachers])
    share = (mix / mix.sum(0).clamp(min=1e-8))[:, made.labels]
    return float((share * p[:, torch.arange(len(made.labels)), made.labels]).sum(0).mean())


def test_made_inputs_raise_the_teachers_confidence() -> None:
    setup = digits("fedbuff")
    teachers, student, mix = returned(setup), setup.learner.initial(), mixes(setup)
    _, untrained = setup.learner.synthesize(None, teachers, mix, student, replace(SYNTHESIS, steps=1), Key(0))
    generator, made = setup.learner.synthesize(None, teachers, mix, student, SYNTHESIS, Key(0))
    assert torch.equal(made.labels, untrained.labels)
    assert confidence(setup, teachers, mix, untrained) < 0.4
    assert confidence(setup, teachers, mix, made) > 0.7
    assert made.loss < untrained.loss
    assert made.inputs.shape == (64, *setup.learner.shape)
    assert float(made.inputs.abs().max()) <= 3.0
    assert float((made.inputs[0] - made.inputs[1]).abs().mean()) > 0.05, "not one image for all"
    assert generator.steps == 1
    assert bool((mix.sum(0)[made.labels] > 0).all()), "no label that no teacher has"


def test_of_what_is_made_on_the_way_the_best_is_kept() -> None:
    setup = digits("fedbuff")
    teachers, student, mix = returned(setup, 1), setup.learner.initial(), mixes(setup)
    wild = replace(SYNTHESIS, lr=30.0, latent_lr=30.0, adversarial=0.0)  # steps that only make it worse
    (_, first), (_, kept) = (
        setup.learner.synthesize(None, teachers, mix, student, replace(wild, steps=steps), Key(0)) for steps in (1, 8)
    )
    assert kept.loss <= first.loss
    share = (mix / mix.sum(0).clamp(min=1e-8))[:, kept.labels]
    networks = Networks(lambda x: [setup.learner.predict(model, x) for model in teachers], lambda x: x)
    assert float(_loss(networks, kept.inputs, kept.labels, share, 0.0)) == pytest.approx(kept.loss, rel=1e-4)


def test_the_generator_learns_from_one_making_to_the_next() -> None:
    setup = digits("fedbuff")
    teachers, student, mix = returned(setup), setup.learner.initial(), mixes(setup)
    how, generator, losses = replace(SYNTHESIS, steps=2), None, []
    for i in range(60):
        generator, made = setup.learner.synthesize(generator, teachers, mix, student, how, Key(i))
        losses.append(made.loss)
    assert generator is not None
    assert generator.steps == 60
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_what_is_made_follows_from_the_key_and_leaves_its_state_alone() -> None:
    setup = digits("fedbuff")
    teachers, student, mix = returned(setup, 1), setup.learner.initial(), mixes(setup)
    first, made = setup.learner.synthesize(None, teachers, mix, student, SYNTHESIS, Key(0))
    kept = first.weights.clone(), first.first.clone(), first.second.clone()
    later, other = setup.learner.synthesize(first, teachers, mix, student, SYNTHESIS, Key(1))
    again, same = setup.learner.synthesize(None, teachers, mix, student, SYNTHESIS, Key(0))
    assert torch.equal(first.weights, again.weights)
    assert torch.equal(made.inputs, same.inputs)
    assert not torch.equal(made.inputs, other.inputs)
    assert not torch.equal(first.weights, later.weights)
    assert all(torch.equal(a, b) for a, b in zip(kept, (first.weights, first.first, first.second), strict=True))


def test_the_loss_of_what_is_made_by_hand() -> None:
    # two inputs of labels 0, 1; the first teacher has 3/4 of label 0 and half of label 1
    share = torch.tensor([[0.75, 0.5], [0.25, 0.5]])
    labels = torch.tensor([0, 1])
    p = [torch.tensor([[0.8, 0.2], [0.4, 0.6]]), torch.tensor([[0.5, 0.5], [0.9, 0.1]])]
    s = torch.tensor([[0.6, 0.4], [0.3, 0.7]])
    networks = Networks(lambda x: [q.log() for q in p], lambda x: s.log())
    first = 0.75 * -math.log(0.8) + 0.25 * -math.log(0.5)
    second = 0.5 * -math.log(0.6) + 0.5 * -math.log(0.1)
    plain = _loss(networks, torch.zeros(2), labels, share, 0.0)
    assert float(plain) == pytest.approx((first + second) / 2)
    # both name class 0 of the first input (a tie counts as class 0); only the first teacher agrees on the second input
    first -= 0.1 * 0.75 * (0.8 * math.log(0.8 / 0.6) + 0.2 * math.log(0.2 / 0.4))
    first -= 0.1 * 0.25 * (0.5 * math.log(0.5 / 0.6) + 0.5 * math.log(0.5 / 0.4))
    second -= 0.1 * 0.5 * (0.4 * math.log(0.4 / 0.3) + 0.6 * math.log(0.6 / 0.7))
    assert float(_loss(networks, torch.zeros(2), labels, share, 0.1)) == pytest.approx((first + second) / 2)


def test_adversarial_inputs_tell_teachers_and_student_apart() -> None:
    setup = digits("fedbuff")
    models = returned(setup)
    teachers, student = models[:3], models[3]
    mix = torch.full((3, 10), 0.1)

    def gap(adversarial: float) -> float:
        generator, how = None, replace(SYNTHESIS, steps=10, adversarial=adversarial)
        for i in range(15):
            generator, made = setup.learner.synthesize(generator, teachers, mix, student, how, Key(i))
        log_s = setup.learner.predict(student, made.inputs).log_softmax(-1)
        gaps = [
            F.kl_div(log_s, setup.learner.predict(t, made.inputs).softmax(-1), reduction="batchmean") for t in teachers
        ]
        return float(torch.stack(gaps).mean())

    assert gap(1.0) > 1.1 * gap(0.0)


def test_fedrevive_on_real_digits_learns_from_its_teachers_without_u() -> None:
    stage = FedRevive(generate_after=0, distill_after=20, generate_every=1, lr=0.001)
    setup = digits("fedbuff")
    student, state = setup.learner.initial(), stage.init(8)
    models = returned(setup)
    setup.learner._unlabeled = torch.full_like(setup.learner._unlabeled, math.nan)  # whoever looks at U gets NaN
    for i in range(40):
        model = models[i % 8]
        item = change(model.weights - student.weights, client=i % 8, staleness=75, start=student.weights, version=75)
        delta, state, told = stage.revise(state, item, student, setup.learner, Key(i))
        assert bool(told) == (i >= 20)
    kd = 2 * (delta - 0.5 * item.delta)  # β is one half
    assert 0 < float(kd.norm()) < float(item.delta.norm())
    inputs = state.inputs
    assert inputs is not None
    targets = torch.stack([setup.learner.predict(t.model, inputs) for t in state.teachers]).softmax(-1).mean(0)
    loss = kl_to(targets)
    everything = torch.arange(len(inputs))
    after = float(loss(setup.learner.predict(replace(student, weights=student.weights + kd), inputs), everything))
    assert after < float(loss(setup.learner.predict(student, inputs), everything))


@pytest.mark.parametrize("name", ["fedrevive", "feddf"])
def test_a_real_run_restored_in_the_middle_goes_on_to_the_same_bits(name: str) -> None:
    settings = {"generate_after": 5, "generate_every": 4, "distill_after": 10} if name == "fedrevive" else {}
    method = {"fedrevive": "async_sgd+fedrevive"}.get(name, f"fedbuff+{name}")

    def go(events: int | None, snapshot: Any = None) -> tuple[Setup, Log]:
        setup, log = digits(method, **settings), Log()
        if snapshot is not None:
            setup.server.restore(snapshot)
        drive(setup.server, transport_for(setup.server, setup.population, setup.executor), log, events)
        return setup, log

    whole, log = go(None)
    part, _ = go(31)
    rest, _ = go(None, through_json(part.server.snapshot()))
    assert torch.equal(rest.server.model.weights, whole.server.model.weights)
    assert log.of("stage")
    if name == "fedrevive":
        assert not any(task.extra["predict"] for task in whole.server.state.in_flight.values())
        assert whole.learner.seconds["infer_s"] > 0, "teachers are asked on made inputs"
