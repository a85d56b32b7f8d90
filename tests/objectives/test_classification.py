"""Classification: by hand, against scikit-learn, and against the formulas of plain PyTorch."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from fedecho.learning.evaluation import Evaluation
from sklearn.metrics import accuracy_score, f1_score, log_loss
from torch import Tensor

from fedecho.core.errors import ConfigError
from fedecho.objectives.classification import Classification

OBJECTIVE = Classification()


def drawn(n: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(n, classes, generator=generator), torch.randint(classes, (n,), generator=generator)


def evaluation(logits: Tensor, labels: Tensor) -> Evaluation:
    """What `Learner.evaluate` makes of these logits, step by step."""
    right, classes = logits.argmax(-1) == labels, logits.shape[1]
    losses = F.cross_entropy(logits, labels, reduction="none")
    rows = torch.stack([right.double(), torch.ones(len(labels), dtype=torch.float64), losses.double()], -1)
    correct = torch.bincount(labels[right], minlength=classes).double()
    examples = torch.bincount(labels, minlength=classes).double()
    return Evaluation(correct, examples, float(rows[:, 2].sum() / rows[:, 1].sum()), rows)


def test_by_hand() -> None:
    """Probabilities (0.8, 0.2), (0.6, 0.4), (0.3, 0.7), (0.9, 0.1) of labels 0, 1, 1, 0: predictions 0, 0, 1, 0."""
    p = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.9, 0.1]])
    values = OBJECTIVE.values(OBJECTIVE.statistics(p.log(), torch.tensor([0, 1, 1, 0])))
    assert values["accuracy"] == 3 / 4
    assert values["macro_f1"] == pytest.approx((2 * 2 / (3 + 2) + 2 * 1 / (1 + 2)) / 2, abs=1e-12)
    assert values["loss"] == pytest.approx(-sum(map(math.log, (0.8, 0.4, 0.7, 0.9))) / 4, abs=1e-6)
    gaps = (0.2, 0.6, 0.3, 0.1)  # each confidence in a bin of its own
    assert values["ece"] == pytest.approx(sum(gaps) / 4, abs=1e-6)


def test_confidences_in_one_bin_are_averaged() -> None:
    """0.61 and 0.65 lie in (9/15, 10/15]; one of the two is right."""
    p = torch.tensor([[0.61, 0.39], [0.65, 0.35]])
    values = OBJECTIVE.values(OBJECTIVE.statistics(p.log(), torch.tensor([0, 1])))
    assert values["ece"] == pytest.approx(abs((0.61 + 0.65) / 2 - 1 / 2), abs=1e-6)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below() -> None:
    rows = torch.tensor([[0.0, 0.0, 3 / 15, 0.0], [0.0, 1.0, 2.5 / 15, 0.0], [0.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
    assert OBJECTIVE.values(rows)["ece"] == pytest.approx(abs(5.5 / 15 - 1) / 3, abs=1e-12)


@pytest.mark.parametrize(("n", "classes"), [(1, 2), (7, 3), (500, 10), (300, 100)])
@pytest.mark.parametrize("weighted", [False, True])
def test_against_scikit_learn(n: int, classes: int, weighted: bool) -> None:
    logits, labels = drawn(n, classes)
    weights = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) if weighted else None
    values = OBJECTIVE.values(OBJECTIVE.statistics(logits, labels), weights)
    predicted, p = logits.argmax(-1), logits.double().softmax(-1)
    assert values["accuracy"] == pytest.approx(accuracy_score(labels, predicted, sample_weight=weights), abs=1e-12)
    macro = f1_score(labels, predicted, average="macro", sample_weight=weights)
    assert values["macro_f1"] == pytest.approx(macro, abs=1e-12)
    expected = log_loss(labels, p, sample_weight=weights, labels=range(classes))
    assert values["loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("n", [1, 2, 17, 100, 797, 2503, 10_000, 40_000])
def test_accuracy_and_loss_have_the_bits_of_the_evaluation(n: int) -> None:
    logits, labels = drawn(n, 10)
    statistics, expected = OBJECTIVE.statistics(logits, labels), evaluation(logits, labels)
    values = OBJECTIVE.values(statistics)
    assert values["accuracy"] == expected.accuracy
    assert values["loss"] == expected.loss
    rows = labels < 4
    if rows.any():
        some = OBJECTIVE.values(statistics[rows])
        assert (some["accuracy"], some["loss"]) == expected.of(rows)


def test_the_training_loss_is_cross_entropy() -> None:
    logits, labels = drawn(50, 10)
    assert torch.equal(OBJECTIVE.loss(logits, labels), F.cross_entropy(logits, labels))


@pytest.mark.parametrize("seed", range(5))
def test_under_a_label_mix(seed: int) -> None:
    """Also where a class of the mix has no example."""
    logits, labels = drawn(200, 6, seed)
    labels[labels == 5] = 0
    mix = torch.rand(6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    mix /= mix.sum()
    statistics = OBJECTIVE.statistics(logits, labels)
    weights = OBJECTIVE.mix_weights(statistics, mix)
    values = OBJECTIVE.values(statistics, weights)
    assert float(weights.sum()) == pytest.approx(1, abs=1e-12)
    assert values["accuracy"] == pytest.approx(evaluation(logits, labels).accuracy_under(mix), abs=1e-12)
    by_class = [OBJECTIVE.values(statistics[labels == c])["loss"] for c in range(5)]
    expected = sum(float(share) * loss for share, loss in zip(mix, by_class, strict=False)) / float(mix[:5].sum())
    assert values["loss"] == pytest.approx(expected, abs=1e-12)


def test_a_mix_of_classes_without_examples_defines_nothing() -> None:
    statistics = OBJECTIVE.statistics(*drawn(5, 3))
    values = OBJECTIVE.values(statistics, OBJECTIVE.mix_weights(statistics, torch.tensor([0.0, 0.0, 0.0, 1.0])))
    assert all(math.isnan(value) for value in values.values())


def test_many_examples_and_classes_take_little_memory() -> None:
    """Statistics do not grow with the classes."""
    logits, labels = drawn(60_000, 100)
    statistics = OBJECTIVE.statistics(logits, labels)
    assert statistics.numel() * statistics.element_size() <= 2e6
    large = torch.tensor([[0.0, 0.0, 0.5, 0.7], [10e6, 3.0, 0.5, 0.7]], dtype=torch.float64)
    assert OBJECTIVE.values(large)["macro_f1"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_labels_become_int64(dtype: torch.dtype) -> None:
    labels = OBJECTIVE.prepare(torch.tensor([0, 2, 1], dtype=dtype))
    assert labels.dtype == torch.int64
    assert labels.tolist() == [0, 2, 1]
    assert OBJECTIVE.outputs(labels) == 3
    OBJECTIVE.check((3,), labels)
    OBJECTIVE.check((10,), labels)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (
            torch.tensor([0.0, 1.0]),
            "classification needs integer labels, and got torch.float32; give class numbers from 0 as int64, or choose "
            "another objective",
        ),
        (
            torch.zeros(5, 3, dtype=torch.int64),
            "classification needs labels [n], one class per example, and got [5, 3]; for several labels per example "
            "choose the objective multilabel",
        ),
        (torch.tensor([3, -1]), "a label is -1, and classes are counted from 0; renumber the labels"),
    ],
)
def test_targets_that_are_no_labels(targets: Tensor, message: str) -> None:
    with pytest.raises(ConfigError) as fault:
        OBJECTIVE.prepare(targets)
    assert str(fault.value) == message


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3,), "the model has 3 outputs, and a label is 9; give it at least 10 outputs"),
        (
            (8, 8),
            "the model returns [8, 8] per example, and classification needs [C], a logit per class; end the model with "
            "a linear layer",
        ),
    ],
)
def test_a_model_that_does_not_fit(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError) as fault:
        OBJECTIVE.check(shape, torch.tensor([0, 9]))
    assert str(fault.value) == message
