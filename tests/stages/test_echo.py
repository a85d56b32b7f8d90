"""FedEcho's stage: uncertainty, loss, teachers, and runs on a server and on a real module."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedecho.algorithms.base import Algorithm
from fedecho.algorithms.fedasync import FedAsync
from fedecho.algorithms.fedbuff import FedBuff
from fedecho.core.keys import Key
from fedecho.core.messages import Model
from fedecho.data.federation import Federation
from fedecho.learning.learner import Learner
from fedecho.learning.models.mlp import MLP
from fedecho.learning.settings import ClientConfig
from fedecho.server.settings import ServerConfig, Stop
from fedecho.stages.compute import Distillation, Loss
from fedecho.stages.echo import Echo
from fedecho.stages.losses import CLASSES
from helpers import Hand, Log, Quadratics, drive, make_server, population, transport_for
from stage_helpers import bank_of, entropy, softmax, weighted

logits = st.floats(-40, 40, width=32)


# ---------------------------------------------------------------------------------------------------------- uncertainty


@given(st.lists(logits, min_size=2, max_size=12))
def test_uncertainty_is_the_entropy_over_its_largest_value(z: list[float]) -> None:
    h = float(CLASSES.uncertainty(torch.tensor(z, dtype=torch.float64).softmax(-1)))
    assert -1e-12 <= h <= 1 + 1e-12
    assert h == pytest.approx(entropy(softmax(z)), abs=1e-9)


def test_a_certain_teacher_has_no_uncertainty_and_a_uniform_one_has_all() -> None:
    h = CLASSES.uncertainty(torch.tensor([[1.0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0, 0]]))
    assert h.tolist() == pytest.approx([0, 1, 0.5])


# ----------------------------------------------------------------------------------------------------------------- loss

P = [[0.7, 0.2, 0.1], [0.1, 0.45, 0.45 - 1e-3], [0.0, 0.0, 1.0]]
P[1][0] += 1e-3
S = [[1.0, -1.0, 0.5], [0.3, 0.2, 0.1], [2.0, 0.0, -1.0]]


def loss_by_hand(alphas: list[float], batch: list[int], temperature: float = 1.0) -> float:
    total = 0.0
    for u, alpha in zip(batch, alphas, strict=True):
        soft, plain = softmax(S[u], temperature), softmax(S[u])
        kl = sum(p * (math.log(p) - math.log(s)) for p, s in zip(P[u], soft, strict=True) if p > 0)
        total += alpha * temperature**2 * kl - (1 - alpha) * math.log(plain[P[u].index(max(P[u]))])
    return total / len(batch)


def loss_of(echo: Echo, batch: list[int]) -> float:
    return float(echo.loss(torch.tensor(P))(torch.tensor([S[u] for u in batch]), torch.tensor(batch)))


@pytest.mark.parametrize("batch", [[0, 1, 2], [2, 0], [1]])
def test_the_loss_weighs_soft_and_hard_labels_by_each_examples_uncertainty(batch: list[int]) -> None:
    alphas = [0.2 + 0.6 * entropy(P[u]) for u in batch]
    assert loss_of(Echo(alpha_min=0.2, alpha_max=0.8), batch) == pytest.approx(loss_by_hand(alphas, batch), rel=1e-5)


def test_the_batch_variant_uses_the_mini_batchs_mean_uncertainty() -> None:
    mean = 0.2 + 0.6 * (entropy(P[0]) + entropy(P[2])) / 2
    assert loss_of(Echo(alpha="batch"), [2, 0]) == pytest.approx(loss_by_hand([mean, mean], [2, 0]), rel=1e-5)


def test_by_agreement_only_examples_on_which_student_and_teacher_differ_have_a_hard_label() -> None:
    """The student says 0, 0, 0 and the teacher 0, 2 or 1, 2: the first example is soft only."""
    assert [row.index(max(row)) for row in S] == [0, 0, 0]
    assert [row.index(max(row)) for row in P][::2] == [0, 2]
    assert P[1].index(max(P[1])) != 0
    alphas = [1.0, 0.2 + 0.6 * entropy(P[1]), 0.2 + 0.6 * entropy(P[2])]
    echo = Echo(alpha="agreement", alpha_min=0.2, alpha_max=0.8)
    assert loss_of(echo, [0, 1, 2]) == pytest.approx(loss_by_hand(alphas, [0, 1, 2]), rel=1e-5)
    assert loss_of(echo, [0, 1, 2]) != pytest.approx(loss_of(Echo(), [0, 1, 2]), rel=1e-3)


@pytest.mark.parametrize(("alpha", "temperature"), [(1.0, 1.0), (1.0, 3.0), (0.0, 1.0), (0.0, 3.0), (0.4, 2.0)])
def test_soft_only_hard_only_and_temperature(alpha: float, temperature: float) -> None:
    echo = Echo(alpha_min=alpha, alpha_max=alpha, temperature=temperature)
    assert loss_of(echo, [0, 1, 2]) == pytest.approx(loss_by_hand([alpha] * 3, [0, 1, 2], temperature), rel=1e-5)


def test_a_soft_loss_is_least_where_the_student_agrees_and_its_gradient_vanishes_there() -> None:
    p = torch.tensor(P[:2])
    student = p.log().requires_grad_()
    value = Echo(alpha_min=1, alpha_max=1).loss(p)(student, torch.arange(2))
    value.backward()
    assert float(value.detach()) == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(student.grad, torch.zeros(2, 3), rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------------------------------- teachers

ROWS = {3: [[4.0, 0.0, 1.0]], 1: [[0.0, 3.0, 0.0]], 7: [[0.1, 0.0, 0.2]]}
TENSORS = {client: torch.tensor(row) for client, row in ROWS.items()}


@pytest.mark.parametrize("average", ["logits", "probabilities"])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("teacher_weights", ["uniform", "certainty", "staleness"])
def test_the_teacher_is_the_weighted_mean_of_the_rows(average: Any, temperature: float, teacher_weights: Any) -> None:
    echo = Echo(average=average, temperature=temperature, teacher_weights=teacher_weights, staleness_power=2.0)
    p = echo.ensemble(bank_of(echo, TENSORS, {3: 0, 1: 4, 7: 5}), version=6)
    z = [row[0] for row in ROWS.values()]
    weights = {
        "uniform": [1.0, 1.0, 1.0],
        "certainty": [1 - entropy(softmax(row)) for row in z],
        "staleness": [(1 + 6 - 0) ** -2, (1 + 6 - 4) ** -2, (1 + 6 - 5) ** -2],
    }[teacher_weights]
    if average == "logits":
        want = softmax(weighted(weights, z), temperature)
    else:
        want = weighted(weights, [softmax(row, temperature) for row in z])
    assert p[0].tolist() == pytest.approx(want, rel=1e-5)
    assert p.dtype == torch.float32


# ------------------------------------------------------------------------------------------------- in the server's hand


class Recording(Quadratics):
    """Real quadratics that record what they distil."""

    distillations: list[tuple[int, Distillation]]

    def distill(
        self, model: Model, loss: Loss, how: Distillation, key: Key, inputs: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, float]:
        self.distillations = [*getattr(self, "distillations", []), (model.version, how)]
        return super().distill(model, loss, how, key, inputs)


def worker(clients: int = 6) -> Recording:
    generator = torch.Generator().manual_seed(0)
    return Recording(torch.randn(clients, 6, generator=generator), torch.randn(5, 2, generator=generator))


def test_an_update_refused_only_for_lateness_still_writes_its_row() -> None:
    hand = Hand(FedBuff(1, max_staleness=0), d=6, stages=[Echo()], compute=worker(), outputs=(5, 3))
    late, other = hand.waiting[:2]
    hand.arrive(other)
    before = hand.server.model
    row = torch.full((5, 3), 2.0)
    hand.arrive(late, predictions=row)
    client = hand.sent[late].task.client
    assert hand.log.reasons == ["too late"]
    assert torch.equal(hand.server.state.stages[0].rows[client], row)
    assert hand.server.state.stages[0].versions[client] == 0
    assert hand.server.model is before
    assert hand.server.state.updates == 1


def test_an_update_refused_for_anything_else_writes_no_row() -> None:
    hand = Hand(FedBuff(1), d=6, stages=[Echo()], compute=worker(), outputs=(5, 3))
    hand.arrive(hand.waiting[0], num_examples=0, predictions=torch.zeros(5, 3))
    assert not hand.server.state.stages[0].rows


def test_the_server_predicts_for_a_client_that_did_not() -> None:
    compute = worker()
    hand = Hand(FedBuff(1), d=6, stages=[Echo()], compute=compute, outputs=(5, 3))
    task = hand.waiting[0]
    assert hand.sent[task].task.extra["predict"]
    update = hand.update(task)
    hand.arrive(task)
    row = hand.server.state.stages[0].rows[hand.sent[task].task.client]
    assert torch.equal(row, compute.predict(Model(0, update.weights, update.buffers)))


def distilled_after(algorithm: Algorithm, every: int, updates: int) -> list[int]:
    people, compute = population([[1.0, 2.0, 3.5]] * 6), worker()
    stages = [Echo(every=every, steps=1, clip=0.5, optimizer="adam")]
    server = make_server(algorithm, people, compute, Stop(updates=updates), ServerConfig(concurrency=3), stages)
    drive(server, transport_for(server, people, compute), Log())
    assert all(how == Distillation(1, 50, 0.05, 0.5, "adam") for _, how in compute.distillations)
    return [version for version, _ in compute.distillations]


def test_a_stage_on_a_rule_that_steps_at_every_arrival_runs_every_so_many_updates() -> None:
    assert distilled_after(FedAsync(), every=4, updates=13) == [4, 8, 12]
    assert distilled_after(FedAsync(), every=1, updates=5) == [1, 2, 3, 4, 5]


def test_a_stage_on_a_buffered_rule_runs_at_the_first_aggregation_after_so_many_updates() -> None:
    assert distilled_after(FedBuff(3), every=1, updates=9) == [1, 2, 3]
    assert distilled_after(FedBuff(3), every=4, updates=18) == [2, 4, 6]


# -------------------------------------------------------------------------------------------------- on a module that is


def federation(seed: int = 0) -> Federation:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(40, 4, generator=generator)
    labels = inputs[:, :3].argmax(-1)
    return Federation(inputs, labels, (0, 20, 40), inputs[:30] + 0.1, (inputs, labels), (inputs, labels), 3)


def learner(seed: int = 0) -> Learner:
    return Learner(lambda: MLP((4,), 3, hidden=(8,)), federation(), ClientConfig(), Key(seed))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_distilling_moves_a_real_student_to_the_teacher(optimizer: Any) -> None:
    student, teacher = learner(0), learner(1)
    model = student.initial()
    target = 3 * teacher.predict(teacher.initial())
    lr = 0.3 if optimizer == "sgd" else 0.02
    echo = Echo(lr=lr, steps=120, batch_size=10, clip=1.0, alpha_min=1, alpha_max=1, optimizer=optimizer)
    bank = bank_of(echo, {0: target})
    p = echo.ensemble(bank, 1)
    everything = torch.arange(30)
    before = float(echo.loss(p)(student.predict(model), everything))
    untouched = model.weights.clone()
    weights, _, recorded = echo.after_aggregate(bank, model, student, Key(5))
    after = float(echo.loss(p)(student.predict(replace(model, weights=weights)), everything))
    assert after < 0.2 * before
    assert recorded["rows"] == 1
    assert recorded["uncertainty"] == pytest.approx(float(CLASSES.uncertainty(p).mean()))
    assert torch.equal(model.weights, untouched)


@pytest.mark.parametrize("clip", [0.0, 0.01, 1e6])
def test_one_step_is_a_gradient_step_clipped_to_nu(clip: float) -> None:
    student = learner()
    model = student.initial()
    echo = Echo(lr=0.5, steps=1, batch_size=30, clip=clip)
    bank = bank_of(echo, {0: 5 * torch.randn(30, 3, generator=torch.Generator().manual_seed(3))})
    weights, *_ = echo.after_aggregate(bank, model, student, Key(5))
    module = MLP((4,), 3, hidden=(8,))
    module.load_state_dict(student.state_dict(model))
    value = echo.loss(echo.ensemble(bank, 0))(module(federation().unlabeled), torch.arange(30))
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, list(module.parameters()))])
    step = gradient * min(1.0, clip / float(gradient.norm())) if clip else gradient
    torch.testing.assert_close(weights, model.weights - 0.5 * step, rtol=1e-5, atol=1e-6)


def test_batches_go_through_all_of_u_before_any_example_comes_again() -> None:
    seen: list[int] = []

    def loss(logits: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        seen.extend(batch.tolist())
        return logits.sum()

    one = learner()
    one.distill(one.initial(), loss, Distillation(steps=6, batch_size=10, lr=0.0, clip=0.0), Key(1))
    assert sorted(seen[:30]) == sorted(seen[30:]) == list(range(30))
    assert seen[:30] != seen[30:]


@pytest.mark.parametrize(
    ("max_passes", "batch_size", "wanted"),
    [(0.0, 10, 6), (0.5, 10, 2), (1.0, 10, 3), (9.0, 10, 6), (0.01, 10, 1), (0.5, 4, 4)],
)
def test_no_more_steps_than_so_many_passes_over_u_take_but_at_least_one(
    max_passes: float, batch_size: int, wanted: int
) -> None:
    seen: list[int] = []

    def loss(logits: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        seen.append(len(batch))
        return logits.sum() * 0.0 + 1.0

    one = learner()  # 30 unlabeled inputs
    _, mean = one.distill(one.initial(), loss, Distillation(6, batch_size, 0.0, 0.0, max_passes=max_passes), Key(1))
    assert len(seen) == wanted
    assert mean == pytest.approx(1.0), "the mean is over the steps that were taken"
