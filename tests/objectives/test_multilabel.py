"""Multi-label classification: by hand and against scikit-learn."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score
from torch import Tensor

from fedecho.core.errors import ConfigError
from fedecho.objectives import multilabel
from fedecho.objectives.multilabel import MultiLabel

OBJECTIVE = MultiLabel()


def drawn(n: int, labels: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(n, labels, generator=generator), (torch.rand(n, labels, generator=generator) < 0.3).float()


def test_by_hand() -> None:
    """Label 0: one hit and one false alarm. Label 1: one hit and one miss. Label 2: neither present nor predicted."""
    logits = torch.tensor([[1.0, 2.0, -1.0], [0.5, -3.0, -2.0]])
    targets = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    values = OBJECTIVE.values(OBJECTIVE.statistics(logits, targets))
    assert values["micro_f1"] == pytest.approx(2 * 2 / (3 + 3), abs=1e-12)
    assert values["macro_f1"] == pytest.approx((2 / 3 + 2 / 3) / 2, abs=1e-12)
    wrong = [-1.0, -2.0, -1.0, 0.5, 3.0, -2.0]  # the logit against what is true
    assert values["loss"] == pytest.approx(sum(math.log1p(math.exp(z)) for z in wrong) / 6, rel=1e-6)


def test_a_logit_of_zero_predicts_nothing() -> None:
    values = OBJECTIVE.values(OBJECTIVE.statistics(torch.zeros(1, 1), torch.ones(1, 1)))
    assert values["micro_f1"] == 0.0


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rows", [multilabel.ROWS, 7])
def test_against_scikit_learn(weighted: bool, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not all examples are counted at once."""
    monkeypatch.setattr(multilabel, "ROWS", rows)
    logits, targets = drawn(300, 5)
    weights = torch.rand(300, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) if weighted else None
    values = OBJECTIVE.values(OBJECTIVE.statistics(logits, targets), weights)
    for average in ("micro", "macro"):
        expected = f1_score(targets, logits > 0, average=average, sample_weight=weights)
        assert values[f"{average}_f1"] == pytest.approx(expected, abs=1e-12)
    each = F.binary_cross_entropy_with_logits(logits.double(), targets.double(), reduction="none").mean(1)
    mean = each.mean() if weights is None else (weights * each).sum() / weights.sum()
    assert values["loss"] == pytest.approx(float(mean), rel=1e-6)


def test_subsets_against_scikit_learn() -> None:
    logits, targets = drawn(80, 4)
    statistics = OBJECTIVE.statistics(logits, targets)
    for rows in (torch.arange(80) % 3 == 0, torch.tensor([5, 6, 7, 70])):
        expected = f1_score(targets[rows], logits[rows] > 0, average="macro", zero_division=math.nan)
        assert OBJECTIVE.values(statistics[rows])["macro_f1"] == pytest.approx(expected, abs=1e-12)


def test_without_a_positive_there_is_no_f1() -> None:
    values = OBJECTIVE.values(OBJECTIVE.statistics(-torch.ones(3, 2), torch.zeros(3, 2)))
    assert math.isnan(values["micro_f1"])
    assert math.isnan(values["macro_f1"])
    assert values["loss"] == pytest.approx(math.log1p(math.exp(-1)), rel=1e-6)


def test_the_training_loss_is_binary_cross_entropy() -> None:
    logits, targets = drawn(20, 6)
    assert torch.equal(OBJECTIVE.loss(logits, targets), F.binary_cross_entropy_with_logits(logits, targets))


def test_many_examples_and_labels_fit_in_memory() -> None:
    logits, targets = drawn(60_000, 100)
    statistics = OBJECTIVE.statistics(logits, targets)
    assert statistics.numel() * statistics.element_size() <= 50e6
    expected = f1_score(targets, logits > 0, average="micro")
    assert OBJECTIVE.values(statistics)["micro_f1"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float64])
def test_targets_become_float32(dtype: torch.dtype) -> None:
    targets = OBJECTIVE.prepare(torch.tensor([[0, 1, 1]]).to(dtype))
    assert targets.dtype == torch.float32
    assert targets.tolist() == [[0.0, 1.0, 1.0]]
    assert OBJECTIVE.outputs(targets) == 3
    OBJECTIVE.check((3,), targets)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (
            torch.tensor([0, 1]),
            "multilabel needs targets [n, L], a 0 or 1 for each label, and got [2]; for one class per example choose "
            "the objective classification",
        ),
        (torch.tensor([[0, 1], [2, 0]]), "multilabel needs targets of 0 and 1, and one is 2; convert the targets"),
        (torch.tensor([[0.5]]), "multilabel needs targets of 0 and 1, and one is 0.5; convert the targets"),
        (torch.tensor([[math.nan]]), "multilabel needs targets of 0 and 1, and one is nan; convert the targets"),
    ],
)
def test_targets_that_are_no_labels(targets: Tensor, message: str) -> None:
    with pytest.raises(ConfigError) as fault:
        OBJECTIVE.prepare(targets)
    assert str(fault.value) == message


@pytest.mark.parametrize("shape", [(), (2,), (4,), (3, 2)])
def test_a_model_that_does_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError) as fault:
        OBJECTIVE.check(shape, torch.zeros(5, 3))
    assert str(fault.value) == (
        f"the model returns {list(shape)} per example, and the targets have 3 labels; give it outputs [3], a logit per "
        "label"
    )
