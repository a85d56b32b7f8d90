"""Teachers corrected for their own label skew."""

from __future__ import annotations

import math

import pytest
import torch

from fedecho.stages.balanced_echo import BalancedEcho
from fedecho.stages.echo import Echo
from stage_helpers import bank_of, softmax


def test_a_balanced_echo_takes_the_labels_that_a_teacher_expects_out_of_its_logits() -> None:
    balanced = BalancedEcho(prior_strength=0.5, prior_floor=0.01)
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
