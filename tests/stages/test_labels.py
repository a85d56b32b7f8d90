"""Several labels per example: teacher, uncertainty and loss by hand, and a student that learns from them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from fedecho.core.keys import Key
from fedecho.core.messages import Model
from fedecho.objectives.predictions import LabelPredictions
from fedecho.stages.bank_ensemble import BankEnsemble
from fedecho.stages.certainty import CertaintyWeighted
from fedecho.stages.echo import Echo
from fedecho.stages.feddf import FedDF
from fedecho.stages.round_distillation import RoundDistillation
from helpers import Quadratics, change, vec
from stage_helpers import sigmoid

LABELS = LabelPredictions()
ROWS = {3: torch.tensor([[2.0, -1.0], [0.5, 0.0]]), 1: torch.tensor([[0.0, -3.0], [0.5, 4.0]])}


def entropy(p: float) -> float:
    return -sum(q * math.log(q) for q in (p, 1 - p) if q > 0)


def teach(echo: BankEnsemble) -> list[list[float]]:
    bank = echo.init(5, LABELS)
    for client, row in ROWS.items():
        bank = echo.put(bank, client, row, 0)
    p: list[list[float]] = echo.ensemble(bank, 1).tolist()
    return p


def test_the_teacher_is_the_sigmoid_of_the_mean_logits() -> None:
    p = teach(Echo())
    assert p[0] == pytest.approx([sigmoid(1.0), sigmoid(-2.0)])
    assert p[1] == pytest.approx([sigmoid(0.5), sigmoid(2.0)])
    assert teach(Echo(temperature=2.0))[0] == pytest.approx([sigmoid(0.5), sigmoid(-1.0)])


def test_the_teacher_of_probabilities_is_their_mean() -> None:
    p = teach(Echo(average="probabilities"))
    assert p[0] == pytest.approx([(sigmoid(2.0) + 0.5) / 2, (sigmoid(-1.0) + sigmoid(-3.0)) / 2])


def test_certain_teachers_count_for_more() -> None:
    """On the first example 2·log 2·h is H(σ(2)) + H(σ(−1)) for one model and log 2 + H(σ(−3)) for the other."""
    h = [(entropy(sigmoid(a)) + entropy(sigmoid(b))) / (2 * math.log(2)) for a, b in ((2.0, -1.0), (0.0, -3.0))]
    w = [1 - h[0], 1 - h[1]]
    expected = [sigmoid((w[0] * a + w[1] * b) / sum(w)) for a, b in ((2.0, 0.0), (-1.0, -3.0))]
    assert teach(Echo(teacher_weights="certainty"))[0] == pytest.approx(expected, rel=1e-5)
    rows = torch.stack(list(ROWS.values()))
    assert CertaintyWeighted().teacher(rows, LABELS)[0].tolist() == pytest.approx(expected, rel=1e-5)
    assert FedDF().teacher(rows, LABELS)[0].tolist() == pytest.approx([sigmoid(1.0), sigmoid(-2.0)])


P = [[0.9, 0.2], [0.5, 1.0]]
STUDENT = [[1.0, -0.5], [0.3, -2.0]]


def terms(example: int) -> tuple[float, float, float]:
    """h, KL(p ‖ s) and CE(ŷ, s) of an example, by hand; ŷ is (1, 0) and (0, 1)."""
    p, s = P[example], [sigmoid(z) for z in STUDENT[example]]
    h = sum(entropy(q) for q in p) / (2 * math.log(2))
    cross = -sum(q * math.log(r) + (1 - q) * math.log(1 - r) for q, r in zip(p, s, strict=True))
    hard = [(1.0, 0.0), (0.0, 1.0)][example]
    ce = -sum(math.log(r if y else 1 - r) for y, r in zip(hard, s, strict=True))
    return h, cross - sum(entropy(q) for q in p), ce


def test_the_loss_weighs_soft_and_hard_labels_by_the_mean_entropy_of_the_labels() -> None:
    expected = 0.0
    for example in (0, 1):
        h, kl, ce = terms(example)
        alpha = 0.2 + 0.6 * h
        expected += (alpha * kl + (1 - alpha) * ce) / 2
    loss = Echo(alpha_min=0.2, alpha_max=0.8).loss(torch.tensor(P), LABELS)
    assert float(loss(torch.tensor(STUDENT), torch.arange(2))) == pytest.approx(expected, rel=1e-5)
    assert terms(1)[0] == pytest.approx(0.5), "one label of two is open"


def test_by_agreement_an_example_counts_as_agreed_where_all_its_labels_are() -> None:
    """The student says (1, 0), as the teacher does, and (1, 0), where the teacher says (0, 1)."""
    (_, kl, _), (h, other_kl, ce) = terms(0), terms(1)
    alpha = 0.2 + 0.6 * h
    loss = Echo(alpha="agreement").loss(torch.tensor(P), LABELS)
    expected = (kl + alpha * other_kl + (1 - alpha) * ce) / 2
    assert float(loss(torch.tensor(STUDENT), torch.arange(2))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("stage", [FedDF(), CertaintyWeighted()])
def test_the_round_learns_from_the_sum_of_the_labels_divergences(stage: RoundDistillation) -> None:
    loss = stage.loss(torch.tensor(P), LABELS)
    expected = (terms(0)[1] + terms(1)[1]) / 2
    assert float(loss(torch.tensor(STUDENT), torch.arange(2))) == pytest.approx(expected, rel=1e-5)


class Tagger(Quadratics):
    """A linear model of three labels."""

    predictions = LABELS  # type: ignore[assignment]


@pytest.mark.parametrize("stage", [Echo(lr=0.3, steps=60, alpha_min=1, alpha_max=1), FedDF(lr=0.1, steps=60)])
def test_a_student_comes_nearer_to_its_teachers(stage: Echo | FedDF) -> None:
    draws = torch.Generator().manual_seed(3)
    compute = Tagger(torch.zeros(2, 6), torch.randn(40, 2, generator=draws))
    teacher, student = Model(1, 2 * torch.randn(6, generator=draws), vec()), Model(1, torch.zeros(6), vec())
    logits = compute.predict(teacher)
    state = stage.on_update(stage.init(2, LABELS), change(vec(1.0)), logits)
    weights, _, recorded = stage.after_aggregate(state, student, compute, Key(0))
    p = LABELS.probabilities(logits)
    before = LABELS.divergence(p, compute.predict(student)).mean()
    after = LABELS.divergence(p, compute.predict(replace(student, weights=weights))).mean()
    assert after < 0.3 * before
    if isinstance(stage, Echo):
        assert recorded["uncertainty"] == pytest.approx(float(LABELS.uncertainty(p).mean()), rel=1e-5)
