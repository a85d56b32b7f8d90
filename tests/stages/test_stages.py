"""Generated inputs, and stages on real digits."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedecho.config.config import Config
from fedecho.core.keys import Key
from fedecho.core.messages import Model, Task
from fedecho.experiment.build import prepare
from fedecho.experiment.setup import Setup
from fedecho.learning.generator import Networks, _loss, _towards
from fedecho.learning.settings import ClientConfig
from fedecho.stages.certainty import CertaintyWeighted
from fedecho.stages.compute import (
    Generator,
    Synthesis,
    Synthetic,
)
from fedecho.stages.dsfl import DSFL
from fedecho.stages.feddf import FedDF
from fedecho.stages.fedrevive import FedRevive
from fedecho.stages.losses import kl_to
from fedecho.stages.round_distillation import RoundDistillation
from helpers import Log, change, drive, through_json, transport_for
from support.learning import Small, federation, learner


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
    torch.testing.assert_close(one._flat.outputs_of(trained, leaf), want)
    torch.testing.assert_close(one.predict(trained, one.data.unlabeled), one.predict(trained))
    (gradient,) = torch.autograd.grad(one._flat.outputs_of(trained, leaf).sum(), leaf)
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


@pytest.mark.parametrize("stage", [FedDF(lr=0.003), DSFL(lr=0.2), CertaintyWeighted(lr=0.003)])
def test_a_rounds_models_teach_a_student_real_digits(stage: RoundDistillation) -> None:
    setup = digits("fedbuff")
    stage = replace(stage, steps=150)  # type: ignore[type-var]
    student = setup.learner.initial()
    state = stage.init(8)
    for i, model in enumerate(returned(setup)):
        state = stage.on_update(state, change(model.weights, client=i), setup.learner.predict(model))
    weights, _, recorded = stage.after_aggregate(state, student, setup.learner, Key(4))
    assert recorded["rows"] == 8
    assert accuracy(setup, replace(student, weights=weights)) > accuracy(setup, student) + 0.3


SYNTHESIS = Synthesis(10, 64, 0.003, 0.001, 64, 64, 0.1)


def mixes(setup: Setup) -> Tensor:
    """The clients' true class proportions, [8, C]."""
    return torch.stack([setup.data.label_mix([i]) for i in range(8)]).float()


def confidence(setup: Setup, teachers: list[Model], mix: Tensor, generated: Synthetic) -> float:
    """The probability of the labels that inputs were made for, each teacher counting by its share of the label."""
    p = torch.stack([setup.learner.predict(model, generated.inputs).softmax(-1) for model in teachers])
    share = (mix / mix.sum(0).clamp(min=1e-8))[:, generated.labels]
    return float((share * p[:, torch.arange(len(generated.labels)), generated.labels]).sum(0).mean())


def test_made_inputs_raise_the_teachers_confidence() -> None:
    setup = digits("fedbuff")
    teachers, student, mix = returned(setup), setup.learner.initial(), mixes(setup)
    _, untrained = setup.learner.synthesize(None, teachers, mix, student, replace(SYNTHESIS, steps=1), Key(0))
    generator, generated = setup.learner.synthesize(None, teachers, mix, student, SYNTHESIS, Key(0))
    assert torch.equal(generated.labels, untrained.labels)
    assert confidence(setup, teachers, mix, untrained) < 0.4
    assert confidence(setup, teachers, mix, generated) > 0.7
    assert generated.loss < untrained.loss
    assert generated.inputs.shape == (64, *setup.learner.shape)
    assert float(generated.inputs.abs().max()) <= 3.0
    assert float((generated.inputs[0] - generated.inputs[1]).abs().mean()) > 0.05, "not one image for all"
    assert generator.steps == 1
    assert bool((mix.sum(0)[generated.labels] > 0).all()), "no label that no teacher has"


def test_of_what_is_made_on_the_way_the_best_is_kept() -> None:
    setup = digits("fedbuff")
    teachers, student, mix = returned(setup, 1), setup.learner.initial(), mixes(setup)
    wild = replace(SYNTHESIS, lr=30.0, latent_lr=30.0, adversarial=0.0)  # steps that only make it worse
    (_, first), (_, best) = (
        setup.learner.synthesize(None, teachers, mix, student, replace(wild, steps=steps), Key(0)) for steps in (1, 8)
    )
    assert best.loss <= first.loss
    share = (mix / mix.sum(0).clamp(min=1e-8))[:, best.labels]
    networks = Networks(lambda x: [setup.learner.predict(model, x) for model in teachers], lambda x: x)
    assert float(_loss(networks, best.inputs, best.labels, share, 0.0)) == pytest.approx(best.loss, rel=1e-4)


def test_the_generator_learns_from_one_making_to_the_next() -> None:
    setup = digits("fedbuff")
    teachers, student, mix = returned(setup), setup.learner.initial(), mixes(setup)
    how, generator, losses = replace(SYNTHESIS, steps=2), None, []
    for i in range(60):
        generator, generated = setup.learner.synthesize(generator, teachers, mix, student, how, Key(i))
        losses.append(generated.loss)
    assert generator is not None
    assert generator.steps == 60
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_what_is_made_follows_from_the_key_and_leaves_its_state_alone() -> None:
    setup = digits("fedbuff")
    teachers, student, mix = returned(setup, 1), setup.learner.initial(), mixes(setup)
    first, generated = setup.learner.synthesize(None, teachers, mix, student, SYNTHESIS, Key(0))
    before = first.weights.clone(), first.first.clone(), first.second.clone()
    later, other = setup.learner.synthesize(first, teachers, mix, student, SYNTHESIS, Key(1))
    again, same = setup.learner.synthesize(None, teachers, mix, student, SYNTHESIS, Key(0))
    assert torch.equal(first.weights, again.weights)
    assert torch.equal(generated.inputs, same.inputs)
    assert not torch.equal(generated.inputs, other.inputs)
    assert not torch.equal(first.weights, later.weights)
    assert all(torch.equal(a, b) for a, b in zip(before, (first.weights, first.first, first.second), strict=True))


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
            generator, generated = setup.learner.synthesize(generator, teachers, mix, student, how, Key(i))
        log_s = setup.learner.predict(student, generated.inputs).log_softmax(-1)
        gaps = [
            F.kl_div(log_s, setup.learner.predict(t, generated.inputs).softmax(-1), reduction="batchmean")
            for t in teachers
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
        delta, state, recorded = stage.revise(state, item, student, setup.learner, Key(i))
        assert bool(recorded) == (i >= 20)
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
        assert all(task.request.predictions is None for task in whole.server.state.in_flight.values())
        assert whole.learner.seconds["infer_s"] > 0, "teachers predict on generated inputs"
