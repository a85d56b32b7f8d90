"""What holds of every objective, and how one is found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedecho.core.errors import ConfigError
from fedecho.objectives import Metric, Objective, find, shipped

NAMES = list(shipped())


def example(objective: Objective, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Outputs and targets of n examples, of the first kind that the objective takes."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(7, (n, 5), generator=generator)
    tokens[torch.rand(n, 5, generator=generator) < 0.3] = -100
    candidates = [
        (torch.randint(4, (n,), generator=generator), (4,)),
        (tokens, (5, 7)),
        ((torch.rand(n, 3, generator=generator) < 0.4), (3,)),
        (torch.randn(n, 2, generator=generator), (2,)),
    ]
    for targets, shape in candidates:
        try:
            prepared = objective.prepare(targets)
            objective.check(shape, prepared)
        except ConfigError:
            continue
        return 2 * torch.randn(n, *shape, generator=generator), prepared
    raise AssertionError(f"{objective.name} takes none of the targets that this suite knows; add its kind here")


def same(one: Mapping[str, float], other: Mapping[str, float], tolerance: float = 1e-12) -> None:
    assert list(one) == list(other)
    for name, value in one.items():
        assert value == pytest.approx(other[name], rel=tolerance, abs=tolerance, nan_ok=True), name


@pytest.fixture(params=NAMES)
def objective(request: pytest.FixtureRequest) -> Objective:
    return find(request.param)()


def test_the_four_that_ship() -> None:
    assert {"classification", "language", "multilabel", "regression"} <= set(NAMES)
    assert sorted(NAMES) == NAMES
    assert all(cls.name == name for name, cls in shipped().items())


def test_an_unknown_name() -> None:
    with pytest.raises(ConfigError) as fault:
        find("ranking")
    assert str(fault.value) == f"objective 'ranking' is unknown; choose one of {', '.join(NAMES)}"


def test_metrics_are_described(objective: Objective) -> None:
    names = [metric.name for metric in objective.metrics]
    assert len(set(names)) == len(names)
    assert "loss" in names
    for metric in objective.metrics:
        assert metric.name.isidentifier()
        assert metric.label
        assert metric.definition
        assert not metric.definition.endswith(".")


def test_values_are_the_metrics(objective: Objective) -> None:
    statistics = objective.statistics(*example(objective, 40))
    assert statistics.dtype == torch.float64
    assert len(statistics) == 40
    values = objective.values(statistics)
    assert list(values) == [metric.name for metric in objective.metrics]
    assert all(math.isfinite(value) for value in values.values())
    shares = [values[metric.name] for metric in objective.metrics if metric.share]
    assert all(0 <= value <= 1 for value in shares)


def test_perfect_outputs_are_better(objective: Objective) -> None:
    """Outputs that follow the targets, against outputs drawn at random."""
    outputs, targets = example(objective, 200)
    leaf = outputs.clone().requires_grad_()
    for _ in range(300):
        (gradient,) = torch.autograd.grad(objective.losses(leaf, targets).sum(), leaf)
        leaf = (leaf - 0.3 * gradient).detach().requires_grad_()
    before = objective.values(objective.statistics(outputs, targets))
    after = objective.values(objective.statistics(leaf.detach(), targets))
    for metric in objective.metrics:
        assert metric.gain(after[metric.name], before[metric.name]) > 0, metric.name


def test_the_loss_is_the_mean_of_its_terms(objective: Objective) -> None:
    outputs, targets = example(objective, 30)
    losses, asked = objective.losses(outputs, targets), objective.asked(targets)
    assert losses.shape == asked.shape
    assert asked.dtype == torch.bool
    assert not losses[~asked].any()
    loss = objective.loss(outputs, targets)
    assert loss.shape == ()
    torch.testing.assert_close(loss, losses.sum() / asked.sum())
    value = objective.values(objective.statistics(outputs, targets))["loss"]
    assert value == pytest.approx(float(loss), rel=1e-6)


def test_the_loss_has_a_gradient(objective: Objective) -> None:
    outputs, targets = example(objective, 8)
    leaf = outputs.requires_grad_()
    objective.loss(leaf, targets).backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
    assert leaf.grad.any()


def test_prepared_targets_stay_as_they_are(objective: Objective) -> None:
    _, targets = example(objective, 12)
    again = objective.prepare(targets)
    assert again.dtype == targets.dtype
    assert torch.equal(again, targets)
    assert objective.outputs(objective.prepare(targets[:0])) >= 0


def test_the_number_of_outputs_fits(objective: Objective) -> None:
    outputs, targets = example(objective, 200)
    needed = objective.outputs(targets)
    assert needed == outputs.shape[-1]
    with pytest.raises(ConfigError, match=";"):
        objective.check((*outputs.shape[1:-1], needed - 1), targets)


def test_nothing_is_nan(objective: Objective) -> None:
    statistics = objective.statistics(*example(objective, 10))
    for values in (objective.values(statistics[:0]), objective.values(statistics, torch.zeros(10))):
        assert all(math.isnan(value) for value in values.values()), values


def test_outputs_that_are_nan_give_a_nan_loss(objective: Objective) -> None:
    outputs, targets = example(objective, 10)
    values = objective.values(objective.statistics(torch.full_like(outputs, math.nan), targets))
    assert math.isnan(values["loss"])


@settings(max_examples=30, deadline=None)
@given(parts=st.lists(st.integers(1, 9), min_size=1, max_size=5), seed=st.integers(0, 10**6))
@pytest.mark.parametrize("name", NAMES)
def test_parts_give_what_the_whole_gives(name: str, parts: Sequence[int], seed: int) -> None:
    objective = find(name)()
    outputs, targets = example(objective, sum(parts), seed)
    whole = objective.statistics(outputs, targets)
    pieces = zip(outputs.split(list(parts)), targets.split(list(parts)), strict=True)
    joined = torch.cat([objective.statistics(*piece) for piece in pieces])
    same(objective.values(joined), objective.values(whole), 1e-6)  # a kernel may round a float32 by the batch's size
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))
    same(objective.values(whole[order]), objective.values(whole))


@settings(max_examples=30, deadline=None)
@given(repeats=st.lists(st.integers(0, 4), min_size=1, max_size=30).filter(any), seed=st.integers(0, 10**6))
@pytest.mark.parametrize("name", NAMES)
def test_a_weight_is_a_number_of_repetitions(name: str, repeats: Sequence[int], seed: int) -> None:
    objective = find(name)()
    statistics = objective.statistics(*example(objective, len(repeats), seed))
    weights = torch.tensor(repeats)
    repeated = objective.values(statistics.repeat_interleave(weights, 0))
    same(objective.values(statistics, weights.double()), repeated, 1e-9)
    same(objective.values(statistics, weights.double() / 7), repeated, 1e-9)


def test_only_class_labels_have_a_mix(objective: Objective) -> None:
    statistics = objective.statistics(*example(objective, 20))
    weights = objective.mix_weights(statistics, torch.full((4,), 0.25))
    assert (weights is not None) == objective.class_labels


def test_a_metric_as_text() -> None:
    metric = Metric("error", "error", "of something", False, decimals=2)
    assert [metric.format(value) for value in (1.005, 12.0, None, math.nan)] == ["1.00", "12.00", "–", "–"]


def test_which_value_is_better() -> None:
    lower, higher = (Metric("m", "m", "of something", higher) for higher in (False, True))
    values = [None, 3.0, math.nan, 1.0, 2.0]
    assert (lower.best(values), higher.best(values)) == (1.0, 3.0)
    assert lower.best([None, math.nan]) is None
    assert (lower.gain(1.0, 3.0), higher.gain(1.0, 3.0)) == (2.0, -2.0)
