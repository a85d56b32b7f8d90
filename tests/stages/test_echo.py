"""FedEcho's stage: uncertainty, loss, bank, teachers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedecho import Config
from fedecho.algorithms.base import Algorithm
from fedecho.algorithms.fedasync import FedAsync
from fedecho.algorithms.fedbuff import FedBuff
from fedecho.core.errors import ConfigError
from fedecho.core.keys import Key
from fedecho.core.messages import Model
from fedecho.data.federation import Federation
from fedecho.learning.learner import Learner
from fedecho.learning.models.mlp import MLP
from fedecho.learning.settings import ClientConfig
from fedecho.server.settings import ServerConfig, Stop
from fedecho.stages.balanced_echo import BalancedEcho
from fedecho.stages.bank import Bank
from fedecho.stages.calibrated_echo import CalibratedEcho, calibrated
from fedecho.stages.compute import Distillation, Loss
from fedecho.stages.echo import Echo, uncertainty
from helpers import Hand, Log, Quadratics, change, drive, make_server, population, transport_for, vec

logits = st.floats(-40, 40, width=32)


def softmax(z: list[float], temperature: float = 1.0) -> list[float]:
    e = [math.exp(v / temperature) for v in z]
    return [v / sum(e) for v in e]


def entropy(p: list[float]) -> float:
    return -sum(v * math.log(v) for v in p if v > 0) / math.log(len(p))


def bank_of(echo: Echo, rows: dict[int, torch.Tensor], versions: dict[int, int] | None = None) -> Bank:
    bank = echo.init(10)
    for client, row in rows.items():
        bank = echo.put(bank, client, row, (versions or {}).get(client, 0))
    return bank


# ---------------------------------------------------------------------------------------------------------- uncertainty


@given(st.lists(logits, min_size=2, max_size=12))
def test_uncertainty_is_the_entropy_over_its_largest_value(z: list[float]) -> None:
    h = float(uncertainty(torch.tensor(z, dtype=torch.float64).softmax(-1)))
    assert -1e-12 <= h <= 1 + 1e-12
    assert h == pytest.approx(entropy(softmax(z)), abs=1e-9)


def test_a_certain_teacher_has_no_uncertainty_and_a_uniform_one_has_all() -> None:
    h = uncertainty(torch.tensor([[1.0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0, 0]]))
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


def weighted(weights: list[float], values: list[list[float]]) -> list[float]:
    return [sum(w * v[c] for w, v in zip(weights, values, strict=True)) / sum(weights) for c in range(3)]


@pytest.mark.parametrize("average", ["logits", "probabilities"])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("teachers", ["uniform", "certainty", "staleness"])
def test_the_teacher_is_the_weighted_mean_of_the_rows(average: Any, temperature: float, teachers: Any) -> None:
    echo = Echo(average=average, temperature=temperature, teachers=teachers, staleness_power=2.0)
    p = echo.ensemble(bank_of(echo, TENSORS, {3: 0, 1: 4, 7: 5}), version=6)
    z = [row[0] for row in ROWS.values()]
    weights = {
        "uniform": [1.0, 1.0, 1.0],
        "certainty": [1 - entropy(softmax(row)) for row in z],
        "staleness": [(1 + 6 - 0) ** -2, (1 + 6 - 4) ** -2, (1 + 6 - 5) ** -2],
    }[teachers]
    if average == "logits":
        want = softmax(weighted(weights, z), temperature)
    else:
        want = weighted(weights, [softmax(row, temperature) for row in z])
    assert p[0].tolist() == pytest.approx(want, rel=1e-5)
    assert p.dtype == torch.float32


def test_a_balanced_echo_takes_the_labels_that_a_teacher_expects_out_of_its_logits() -> None:
    balanced = BalancedEcho(prior=0.5, prior_floor=0.01)
    rows = {0: torch.tensor([[4.0, 0.0, 1.0], [2.0, 2.0, 0.0]]), 5: torch.tensor([[0.0, 3.0, 0.0], [0.0, 0.0, 0.0]])}
    by_hand = []
    for u in range(2):
        mean = [0.0, 0.0, 0.0]
        for row in rows.values():
            first, second = (softmax(z) for z in row.tolist())
            for c in range(3):
                mean[c] += (row[u][c].item() - 0.5 * math.log((first[c] + second[c]) / 2 + 0.01)) / 2
        by_hand.append(softmax(mean))
    p = balanced.ensemble(bank_of(balanced, rows, {0: 0, 5: 1}), version=2)
    for got, want in zip(p.tolist(), by_hand, strict=True):
        assert got == pytest.approx(want, rel=1e-5)
    alike = {0: torch.tensor([[2.0, 0.0], [0.0, 2.0]])}  # who expects every label alike is left alone
    plain, same = Echo(), BalancedEcho()
    torch.testing.assert_close(
        same.ensemble(bank_of(same, alike, {0: 0}), 0), plain.ensemble(bank_of(plain, alike, {0: 0}), 0)
    )


def test_a_balanced_echo_hears_the_one_client_that_knows_a_class() -> None:
    """Two clients never saw class 1 and say class 0 everywhere, a little less on its example; one knows both."""
    skewed = torch.tensor([[3.0, -3.0]] * 5 + [[1.5, -1.5]])
    knows = torch.tensor([[2.0, -2.0]] * 5 + [[-1.0, 1.0]])
    rows, truth = {0: skewed, 1: skewed + 0.1, 2: knows}, [0, 0, 0, 0, 0, 1]
    plain, balanced = Echo(), BalancedEcho()
    versions = dict.fromkeys(rows, 0)
    assert plain.ensemble(bank_of(plain, rows, versions), 0).argmax(-1).tolist() == [0] * 6
    assert balanced.ensemble(bank_of(balanced, rows, versions), 0).argmax(-1).tolist() == truth


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_calibrated_finds_the_bias_that_meets_the_target() -> None:
    """Of two classes and two predictions z = (d, 0) the bias of class 0 that makes both alike frequent is −(d₁ + d₂)/2,
    as σ(x) + σ(−x) = 1."""
    near_enough = calibrated(torch.tensor([[5.0, 0.0], [2.0, 0.0]]), torch.tensor([0.5, 0.5])).exp()
    want = [sigmoid(1.5), sigmoid(-1.5)]
    assert near_enough[:, 0].tolist() == pytest.approx(want, abs=0.01)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 8), classes=st.integers(2, 12))
def test_calibrated_shifts_classes_as_wholes_until_each_is_as_frequent_as_wanted(
    seed: int, scale: float, classes: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = scale * torch.randn(40 * classes, classes, generator=generator) + 5 * torch.rand(classes, generator=generator)
    target = (1 + torch.rand(classes, generator=generator)).div_(1.5 * classes)
    target /= target.sum()
    log_p = calibrated(z, target)
    torch.testing.assert_close(log_p.exp().mean(0), target, rtol=0.02, atol=0)
    shift = log_p - z.log_softmax(-1)  # but for what each row loses or wins as a whole, the same for all
    torch.testing.assert_close((shift - shift[:, :1]).std(0), torch.zeros(classes), rtol=0, atol=1e-4)


def test_calibrated_bears_a_class_that_nobody_expects_at_all() -> None:
    z = torch.tensor([[0.0, -800.0], [0.0, -1000.0]])
    assert bool(calibrated(z, torch.tensor([0.5, 0.5])).exp().isfinite().all())


class Says:
    """A compute whose model predicts these logits."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits, self.classes = logits, logits.shape[-1]

    def predict(self, model: Model) -> torch.Tensor:
        return self.logits


@pytest.mark.parametrize("own", [0.0, 0.25, 1.0])
def test_a_calibrated_echo_averages_the_bank_and_the_server_both_calibrated(own: float) -> None:
    echo, model = CalibratedEcho(own=own, target="uniform"), Model(torch.zeros(1), torch.zeros(0), 3)
    rows = {0: torch.tensor([[6.0, 0.0], [2.0, 0.0]]), 4: torch.tensor([[2.0, 0.0], [0.0, 0.0]])}  # mean 4 and 1
    server = torch.tensor([[-3.0, 0.0], [-4.0, 0.0]])
    p = echo.teacher(bank_of(echo, rows), model, Says(server))  # type: ignore[arg-type]
    difference = (1 - own) * 1.5 + own * 0.5  # 4 − 2.5 and −3 + 3.5
    assert p[:, 0].tolist() == pytest.approx([sigmoid(difference), sigmoid(-difference)], abs=0.01)


def test_a_calibrated_echo_can_aim_at_what_all_teachers_expect_together() -> None:
    echo = CalibratedEcho(own=0.0, target="mean")
    rows = {0: torch.tensor([[3.0, 0.0], [3.0, 0.0]]), 4: torch.tensor([[1.0, 0.0], [-1.0, 0.0]])}
    expected = (sigmoid(3.0) + 0.5) / 2
    p = echo.teacher(bank_of(echo, rows), Model(torch.zeros(1), torch.zeros(0), 3), Says(torch.zeros(2, 2)))  # type: ignore[arg-type]
    assert float(p[:, 0].mean()) == pytest.approx(expected, abs=0.01)
    bank = echo.put(bank_of(echo, rows), 0, rows[4], 5)  # who said more left
    assert echo.wanted(bank, 2).tolist() == pytest.approx([0.5, 0.5])


def test_by_default_a_class_that_few_expect_is_raised_to_an_even_share() -> None:
    echo = CalibratedEcho(own=0.0)
    rows = {0: torch.tensor([[3.0, 0.0], [3.0, 0.0]]), 4: torch.tensor([[1.0, 0.0], [-1.0, 0.0]])}
    expected = (sigmoid(3.0) + 0.5) / 2
    p = echo.teacher(bank_of(echo, rows), Model(torch.zeros(1), torch.zeros(0), 3), Says(torch.zeros(2, 2)))  # type: ignore[arg-type]
    assert float(p[:, 0].mean()) == pytest.approx(expected / (expected + 0.5), abs=0.01)


def test_a_calibrated_echo_does_not_pack_its_rows_and_says_so() -> None:
    tables = {"stages": [{"name": "calibrated_echo", "top_k": 4}]}
    with pytest.raises(ConfigError, match=r"stages\.top_k is 4.*balanced_echo"):
        Config.from_dict(tables)


def test_a_client_that_reports_again_replaces_its_row() -> None:
    echo = Echo()
    bank = echo.put(bank_of(echo, TENSORS), 3, torch.tensor([[0.0, 0.0, 9.0]]), 5)
    assert list(bank.rows) == [1, 7, 3], "least recently heard first"
    assert bank.versions == {1: 0, 7: 0, 3: 5}
    want = softmax(weighted([1, 1, 1], [ROWS[1][0], ROWS[7][0], [0, 0, 9]]))
    assert echo.ensemble(bank, 6)[0].tolist() == pytest.approx(want, rel=1e-5)


def test_the_row_remembers_the_version_its_model_started_from() -> None:
    bank = Echo().on_update(Bank(), change(vec(1, 1), client=4, version=9, staleness=7), torch.zeros(2, 3))
    assert bank.versions == {4: 2}


# ----------------------------------------------------------------------------------------------------------------- bank


@settings(max_examples=30)
@given(
    teachers=st.sampled_from(["uniform", "certainty", "staleness"]),
    average=st.sampled_from(["logits", "probabilities"]),
    row_dtype=st.sampled_from(["float32", "float16"]),
    max_rows=st.sampled_from([None, 1, 3]),
    temperature=st.sampled_from([1.0, 3.0]),
    scale=st.sampled_from([0.1, 5.0, 60.0]),
    seed=st.integers(0, 10**6),
)
def test_the_incremental_mean_stays_the_mean_of_the_rows(scale: float, seed: int, **options: Any) -> None:
    echo, generator = Echo(**options), torch.Generator().manual_seed(seed)
    bank, heard = echo.init(9), []
    for step in range(200):
        client = int(torch.randint(9, (), generator=generator))
        if client in bank.rows and step % 5 == 0:
            bank = echo.evict(bank, client)
            heard.remove(client)
        else:
            row = scale * torch.randn(4, 3, generator=generator)
            bank = echo.put(bank, client, row, step)
            heard = [*(i for i in heard if i != client), client][-(options["max_rows"] or 9) :]
            assert torch.equal(bank.rows[client], row.to(getattr(torch, echo.row_dtype)))
    assert list(bank.rows) == list(bank.versions) == heard
    if heard:  # the same rows, put into an empty bank
        afresh = bank_of(replace(echo, max_rows=None), bank.rows, bank.versions)
        torch.testing.assert_close(echo.ensemble(bank, 200), echo.ensemble(afresh, 200), rtol=1e-5, atol=1e-7)
        assert torch.isfinite(echo.loss(echo.ensemble(bank, 200))(torch.zeros(4, 3), torch.arange(4)))


def test_a_full_bank_lets_the_least_recently_heard_client_go() -> None:
    echo, rows = Echo(max_rows=2), {i: torch.full((1, 3), float(i)) for i in range(4)}
    bank = bank_of(echo, {0: rows[0], 1: rows[1]})
    bank = echo.put(bank, 0, rows[3], 1)  # client 0 is heard again, so that client 1 is now the oldest
    bank = echo.put(bank, 2, rows[2], 2)
    assert list(bank.rows) == [0, 2]
    assert torch.equal(bank.rows[0], rows[3])


def test_probabilities_that_nobody_gives_any_more_never_make_the_teacher_negative() -> None:
    echo = Echo(average="probabilities")
    quiet = torch.tensor([[60.0, 0.0]], dtype=torch.float32)  # the second class: 1e-26
    noisy = [torch.tensor([[a, b]]) for a, b in ((0.0, 2.3), (1.7, 0.0), (0.4, 0.1), (0.3, 0.9), (2.0, 0.3))]
    worst = 0.0
    for order in range(5):
        bank = echo.put(echo.init(9), 0, quiet, 0)
        for i in range(5):
            bank = echo.put(bank, 1 + (i + order) % 5, noisy[(i * 2 + order) % 5], 0)
        for i in range(5):
            bank = echo.evict(bank, 1 + i)
        assert bank.total is not None
        worst = min(worst, float(bank.total.min()))
        p = echo.ensemble(bank, 1)
        assert bool((p >= 0).all())
        assert math.isfinite(float(echo.loss(p)(torch.zeros(1, 2), torch.tensor([0]))))
    assert worst < 0, "the case has a sum that rounding left below zero"


def test_logits_beyond_half_precision_leave_no_infinity_in_the_bank() -> None:
    echo = Echo(row_dtype="float16")
    bank = bank_of(echo, {0: torch.tensor([[1e6, -1e6]]), 1: torch.tensor([[1.0, 2.0]])})
    bank = echo.put(bank, 0, torch.tensor([[3.0, 1.0]]), 1)
    assert echo.ensemble(bank, 2)[0].tolist() == pytest.approx(softmax([2.0, 1.5]), rel=1e-4)


# ------------------------------------------------------------------------------------------------- in the server's hand


class Recording(Quadratics):
    """Real quadratics that note what they were asked to distil."""

    asked: list[tuple[int, Distillation]]

    def distill(
        self, model: Model, loss: Loss, how: Distillation, key: Key, inputs: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, float]:
        self.asked = [*getattr(self, "asked", []), (model.version, how)]
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
    assert hand.sent[task].task.request.predictions is not None
    update = hand.update(task)
    hand.arrive(task)
    row = hand.server.state.stages[0].rows[hand.sent[task].task.client]
    assert torch.equal(row, compute.predict(Model(0, update.weights, update.buffers)))


def distilled_after(algorithm: Algorithm, every: int, updates: int) -> list[int]:
    people, compute = population([[1.0, 2.0, 3.5]] * 6), worker()
    stages = [Echo(every=every, steps=1, clip=0.5, optimizer="adam")]
    server = make_server(algorithm, people, compute, Stop(updates=updates), ServerConfig(concurrency=3), stages)
    drive(server, transport_for(server, people, compute), Log())
    assert all(how == Distillation(1, 50, 0.05, 0.5, "adam") for _, how in compute.asked)
    return [version for version, _ in compute.asked]


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
    weights, _, told = echo.after_aggregate(bank, model, student, Key(5))
    after = float(echo.loss(p)(student.predict(replace(model, weights=weights)), everything))
    assert after < 0.2 * before
    assert told["rows"] == 1
    assert told["uncertainty"] == pytest.approx(float(uncertainty(p).mean()))
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
    ("passes", "batch_size", "wanted"),
    [(0.0, 10, 6), (0.5, 10, 2), (1.0, 10, 3), (9.0, 10, 6), (0.01, 10, 1), (0.5, 4, 4)],
)
def test_no_more_steps_than_so_many_passes_over_u_take_but_at_least_one(
    passes: float, batch_size: int, wanted: int
) -> None:
    seen: list[int] = []

    def loss(logits: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        seen.append(len(batch))
        return logits.sum() * 0.0 + 1.0

    one = learner()  # 30 unlabeled inputs
    _, mean = one.distill(one.initial(), loss, Distillation(6, batch_size, 0.0, 0.0, passes=passes), Key(1))
    assert len(seen) == wanted
    assert mean == pytest.approx(1.0), "the mean is over the steps that were taken"
