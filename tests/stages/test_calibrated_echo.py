"""The calibrated teacher: the biases that meet a target, and the server's own prediction."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedecho import Config
from fedecho.core.errors import ConfigError
from fedecho.core.messages import Model
from fedecho.stages.calibrated_echo import CalibratedEcho, calibrated
from stage_helpers import bank_of, sigmoid


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


@pytest.mark.parametrize("server_weight", [0.0, 0.25, 1.0])
def test_a_calibrated_echo_averages_the_bank_and_the_server_both_calibrated(server_weight: float) -> None:
    echo, model = (
        CalibratedEcho(server_weight=server_weight, target="uniform"),
        Model(torch.zeros(1), torch.zeros(0), 3),
    )
    rows = {0: torch.tensor([[6.0, 0.0], [2.0, 0.0]]), 4: torch.tensor([[2.0, 0.0], [0.0, 0.0]])}  # mean 4 and 1
    server = torch.tensor([[-3.0, 0.0], [-4.0, 0.0]])
    p = echo.teacher(bank_of(echo, rows), model, Says(server))  # type: ignore[arg-type]
    difference = (1 - server_weight) * 1.5 + server_weight * 0.5  # 4 − 2.5 and −3 + 3.5
    assert p[:, 0].tolist() == pytest.approx([sigmoid(difference), sigmoid(-difference)], abs=0.01)


def test_a_calibrated_echo_can_aim_at_what_all_teachers_expect_together() -> None:
    echo = CalibratedEcho(server_weight=0.0, target="mean")
    rows = {0: torch.tensor([[3.0, 0.0], [3.0, 0.0]]), 4: torch.tensor([[1.0, 0.0], [-1.0, 0.0]])}
    expected = (sigmoid(3.0) + 0.5) / 2
    p = echo.teacher(bank_of(echo, rows), Model(torch.zeros(1), torch.zeros(0), 3), Says(torch.zeros(2, 2)))  # type: ignore[arg-type]
    assert float(p[:, 0].mean()) == pytest.approx(expected, abs=0.01)
    bank = echo.put(bank_of(echo, rows), 0, rows[4], 5)  # the surer row of the two leaves
    assert echo.target_shares(bank, 2).tolist() == pytest.approx([0.5, 0.5])


def test_by_default_a_class_that_few_expect_is_raised_to_an_even_share() -> None:
    echo = CalibratedEcho(server_weight=0.0)
    rows = {0: torch.tensor([[3.0, 0.0], [3.0, 0.0]]), 4: torch.tensor([[1.0, 0.0], [-1.0, 0.0]])}
    expected = (sigmoid(3.0) + 0.5) / 2
    p = echo.teacher(bank_of(echo, rows), Model(torch.zeros(1), torch.zeros(0), 3), Says(torch.zeros(2, 2)))  # type: ignore[arg-type]
    assert float(p[:, 0].mean()) == pytest.approx(expected / (expected + 0.5), abs=0.01)


def test_a_calibrated_echo_does_not_pack_its_rows_and_says_so() -> None:
    tables = {"stages": [{"name": "calibrated_echo", "top_k": 4}]}
    with pytest.raises(ConfigError, match=r"stages\.top_k is 4.*balanced_echo"):
        Config.from_dict(tables)
