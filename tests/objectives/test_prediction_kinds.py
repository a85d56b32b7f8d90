"""Predictions as a stage sees them: classes with the bits of the echo's formulas, labels as Bernoulli variables."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, kl_divergence

from fedecho.objectives.classification import Classification
from fedecho.objectives.language import Language
from fedecho.objectives.multilabel import MultiLabel
from fedecho.objectives.predictions import ClassPredictions, LabelPredictions, Predictions
from fedecho.objectives.regression import Regression
from fedecho.stages.echo import Echo
from fedecho.stages.losses import Target

CLASSES, LABELS = ClassPredictions(), LabelPredictions()
BOTH = pytest.mark.parametrize("predictions", [CLASSES, LABELS], ids=["classes", "labels"])


def drawn(n: int, width: int, seed: int = 6) -> Tensor:
    return 3 * torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def test_which_objective_predicts_what() -> None:
    kinds = [cls.predictions and cls.predictions.kind for cls in (Classification, Language, MultiLabel, Regression)]
    assert kinds == ["classes", "classes", "labels", None]


@pytest.mark.parametrize("width", [2, 10, 100])
def test_classes_have_the_bits_of_the_echo(width: int) -> None:
    p, logits = drawn(64, width).softmax(-1), drawn(64, width, 7)
    assert torch.equal(CLASSES.probabilities(logits), logits.softmax(-1))
    h, hard = CLASSES.uncertainty(p), CLASSES.hard(p)
    assert torch.equal(h, torch.special.entr(p).sum(-1) / math.log(width))
    entropy = CLASSES.entropy(p)
    target, soft = Target(p, hard, h, entropy), Echo(alpha_min=1.0, alpha_max=1.0).weighted(CLASSES)
    certain = Echo(alpha_min=0.0, alpha_max=0.0).weighted(CLASSES)
    divergence = CLASSES.divergence(p, logits, entropy)
    assert torch.equal(divergence, CLASSES.divergence(p, logits))
    assert torch.equal(divergence.mean(), soft(logits, target))
    assert torch.equal(CLASSES.hard_loss(hard, logits).mean(), certain(logits, target))
    assert torch.equal(CLASSES.agree(hard, logits), logits.argmax(-1) == p.argmax(-1))


def test_classes_against_distributions() -> None:
    a, b = drawn(20, 5), drawn(20, 5, 7)
    p = CLASSES.probabilities(a)
    torch.testing.assert_close(CLASSES.entropy(p), Categorical(logits=a).entropy())
    expected = kl_divergence(Categorical(logits=a), Categorical(logits=b))
    torch.testing.assert_close(CLASSES.divergence(p, b), expected, atol=1e-5, rtol=1e-5)


def test_labels_against_distributions() -> None:
    a, b = drawn(20, 5), drawn(20, 5, 7)
    p = LABELS.probabilities(a)
    torch.testing.assert_close(LABELS.entropy(p), Bernoulli(logits=a).entropy().sum(-1))
    torch.testing.assert_close(LABELS.uncertainty(p), (Bernoulli(logits=a).entropy() / math.log(2)).mean(-1))
    expected = kl_divergence(Bernoulli(logits=a), Bernoulli(logits=b)).sum(-1)
    torch.testing.assert_close(LABELS.divergence(p, b), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(LABELS.divergence(p, b, LABELS.entropy(p)), LABELS.divergence(p, b))


def test_labels_by_hand() -> None:
    p = torch.tensor([[0.5, 1.0], [0.9, 0.2]])
    logits = torch.tensor([[0.0, 2.0], [3.0, 0.1]])
    assert float(LABELS.uncertainty(p)[0]) == pytest.approx(1 / 2)
    hard = LABELS.hard(p)
    assert hard.tolist() == [[0.0, 1.0], [1.0, 0.0]]
    expected = [math.log(2) + math.log1p(math.exp(-2)), math.log1p(math.exp(-3)) + math.log1p(math.exp(0.1))]
    assert LABELS.hard_loss(hard, logits).tolist() == pytest.approx(expected)
    assert LABELS.agree(hard, logits).tolist() == [True, False]


@BOTH
def test_certain_and_uniform_teachers(predictions: Predictions) -> None:
    zero = torch.zeros(3, 4)
    torch.testing.assert_close(predictions.uncertainty(predictions.probabilities(zero)), torch.ones(3))
    certain = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    assert predictions.uncertainty(certain).tolist() == [0.0]


@BOTH
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.0, 30.0))
def test_bounds(predictions: Predictions, seed: int, scale: float) -> None:
    """0 ≤ h ≤ 1; the divergence is not negative, and 0 from the teacher itself; it agrees with itself."""
    a, b = scale * drawn(6, 5, seed).double(), drawn(6, 5, seed + 1).double()
    p = predictions.probabilities(a)
    h = predictions.uncertainty(p)
    assert ((h >= 0) & (h <= 1 + 1e-12)).all()
    assert (predictions.divergence(p, b) >= -1e-12).all()
    torch.testing.assert_close(predictions.divergence(p, a), torch.zeros(6).double(), atol=1e-9, rtol=0)
    if scale > 1e-3:  # below, probabilities of different logits may round to the same number
        assert predictions.agree(predictions.hard(p), a).all()


@BOTH
def test_the_gradient_of_the_divergence_is_the_difference_of_probabilities(predictions: Predictions) -> None:
    p, logits = predictions.probabilities(drawn(4, 3)), drawn(4, 3, 7).requires_grad_()
    predictions.divergence(p, logits).sum().backward()
    torch.testing.assert_close(logits.grad, predictions.probabilities(logits.detach()) - p)


def test_hard_loss_is_cross_entropy() -> None:
    logits, hard = drawn(9, 4), torch.arange(9) % 4
    assert torch.equal(CLASSES.hard_loss(hard, logits), F.cross_entropy(logits, hard, reduction="none"))
