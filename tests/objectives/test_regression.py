"""Regression: by hand and against scikit-learn."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score
from torch import Tensor

from fedecho.core.errors import ConfigError
from fedecho.objectives.regression import Regression

OBJECTIVE = Regression()


def drawn(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    targets = torch.randn(shape, generator=generator)
    return targets + 0.5 * torch.randn(shape, generator=generator), targets


def test_by_hand() -> None:
    """Targets 1, 2, 6 with mean 3; errors 1, −1, 2."""
    values = OBJECTIVE.values(OBJECTIVE.statistics(torch.tensor([2.0, 1.0, 8.0]), torch.tensor([1.0, 2.0, 6.0])))
    assert values == {"rmse": math.sqrt(2), "mae": 4 / 3, "r2": 1 - 6 / (4 + 1 + 9), "loss": 2.0}


@pytest.mark.parametrize("shape", [(50,), (50, 1), (50, 3)])
@pytest.mark.parametrize("weighted", [False, True])
def test_against_scikit_learn(shape: tuple[int, ...], weighted: bool) -> None:
    outputs, targets = drawn(*shape)
    weights = torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) if weighted else None
    values = OBJECTIVE.values(OBJECTIVE.statistics(outputs, targets), weights)
    pair = targets.double(), outputs.double()
    mse = mean_squared_error(*pair, sample_weight=weights)
    assert values["loss"] == pytest.approx(mse, rel=1e-12)
    assert values["rmse"] == pytest.approx(math.sqrt(mse), rel=1e-12)
    assert values["mae"] == pytest.approx(mean_absolute_error(*pair, sample_weight=weights), rel=1e-12)
    assert values["r2"] == pytest.approx(r2_score(*pair, sample_weight=weights), rel=1e-12)


def test_a_subset_against_scikit_learn() -> None:
    outputs, targets = drawn(60, 2)
    rows = torch.arange(60) % 4 == 1
    values = OBJECTIVE.values(OBJECTIVE.statistics(outputs, targets)[rows])
    assert values["r2"] == pytest.approx(r2_score(targets[rows].double(), outputs[rows].double()), rel=1e-12)


def test_targets_far_from_zero_keep_their_r2() -> None:
    outputs, targets = drawn(200)
    far = OBJECTIVE.values(OBJECTIVE.statistics(outputs.double() + 1e7, targets.double() + 1e7))
    near = OBJECTIVE.values(OBJECTIVE.statistics(outputs.double(), targets.double()))
    assert far["r2"] == pytest.approx(near["r2"], rel=1e-6)


def test_a_constant_target_is_left_out_of_r2() -> None:
    outputs, targets = drawn(20, 2)
    targets[:, 1] = 0.1
    values = OBJECTIVE.values(OBJECTIVE.statistics(outputs, targets))
    assert values["r2"] == pytest.approx(r2_score(targets[:, 0].double(), outputs[:, 0].double()), rel=1e-12)
    assert math.isnan(OBJECTIVE.values(OBJECTIVE.statistics(outputs[:, 1], targets[:, 1]))["r2"])


def test_examples_of_no_weight_do_not_make_a_constant_vary() -> None:
    statistics = OBJECTIVE.statistics(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([5.0, 5.0, 9.0]))
    values = OBJECTIVE.values(statistics, torch.tensor([1.0, 1.0, 0.0]))
    assert math.isnan(values["r2"])
    assert values["mae"] == 3.5


@pytest.mark.parametrize(("outputs", "targets"), [((9, 1), (9,)), ((9,), (9, 1)), ((9,), (9,)), ((9, 1), (9, 1))])
def test_one_target_in_either_shape(outputs: tuple[int, ...], targets: tuple[int, ...]) -> None:
    """[n, 1] and [n] are never spread to [n, n]."""
    predicted, wanted = drawn(9)
    expected = F.mse_loss(predicted, wanted)
    predicted, wanted = predicted.view(outputs), wanted.view(targets)
    OBJECTIVE.check(predicted.shape[1:], wanted)
    assert torch.equal(OBJECTIVE.loss(predicted, wanted), expected)
    assert OBJECTIVE.statistics(predicted, wanted).shape == (9, 2)
    assert OBJECTIVE.losses(predicted, wanted).shape == OBJECTIVE.asked(wanted).shape == (9, 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.float16])
def test_targets_become_float32(dtype: torch.dtype) -> None:
    targets = OBJECTIVE.prepare(torch.tensor([[1, 2]]).to(dtype))
    assert targets.dtype == torch.float32
    assert OBJECTIVE.outputs(targets) == 2
    assert OBJECTIVE.outputs(targets[:, 0]) == 1


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (
            torch.tensor([True]),
            "regression needs real numbers as targets, and got torch.bool; convert them to float32",
        ),
        (torch.zeros(2, 3, 4), "regression needs targets [n] or [n, T], and got [2, 3, 4]; reshape them"),
        (
            torch.tensor([1.0, math.nan]),
            "regression needs finite targets, and 1 is not; remove these examples, or scale the targets",
        ),
        (
            torch.tensor([1e300, math.inf], dtype=torch.float64),
            "regression needs finite targets, and 2 are not; remove these examples, or scale the targets",
        ),
    ],
)
def test_targets_that_are_no_numbers(targets: Tensor, message: str) -> None:
    with pytest.raises(ConfigError) as fault:
        OBJECTIVE.prepare(targets)
    assert str(fault.value) == message


@pytest.mark.parametrize(
    ("shape", "targets", "message"),
    [
        ((), (5, 2), "the model returns [] per example, and the targets have 2 values; give it outputs [2]"),
        ((3,), (5, 2), "the model returns [3] per example, and the targets have 2 values; give it outputs [2]"),
        ((10,), (5,), "the model returns [10] per example, and the targets have 1 value; give it outputs [1]"),
    ],
)
def test_a_model_that_does_not_fit(shape: tuple[int, ...], targets: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError) as fault:
        OBJECTIVE.check(shape, torch.zeros(targets))
    assert str(fault.value) == message
