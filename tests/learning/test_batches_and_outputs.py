"""Batches that batch norm can be trained on, what modules may return, and heads that do not fit."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_learner import federation, learner, mlp
from torch import Tensor, nn

from fedecho.core.errors import ConfigError
from fedecho.core.messages import Task
from fedecho.learning.models.mlp import MLP
from fedecho.learning.settings import ClientConfig
from fedecho.learning.training import batch_slices


def normalized() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))


def test_batches_by_hand() -> None:
    assert batch_slices(5, 2) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert batch_slices(5, 2, at_least_two=True) == [slice(0, 2), slice(2, 5)]
    assert batch_slices(4, 2, at_least_two=True) == batch_slices(4, 2) == [slice(0, 2), slice(2, 4)]
    assert batch_slices(1, 2, at_least_two=True) == batch_slices(0, 2) == batch_slices(0, 2, at_least_two=True) == []
    assert batch_slices(2, 1, at_least_two=True) == batch_slices(2, 1)


@pytest.mark.parametrize("settings", [{"epochs": 2}, {"steps": 5}], ids=str)
def test_batch_norm_where_one_example_is_left_over(settings: dict[str, int]) -> None:
    """A client of 21 examples, in batches of ten; and one of a single example, which is not trained."""
    one = learner(normalized, federation(sizes=(21, 1)), ClientConfig(batch_size=10, **settings))
    trained, lonely = (one.train(Task(client, client, 0, 0.0), one.initial()) for client in (0, 1))
    assert not torch.equal(trained.weights, one.initial().weights)
    assert bool(torch.isfinite(trained.weights).all())
    assert trained.metrics["loss"] > 0
    assert torch.equal(lonely.weights, one.initial().weights)
    assert (lonely.num_examples, lonely.metrics) == (1, {})


def test_batch_norm_of_single_examples_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"client.batch_size is 1, and the model has batch norm"):
        learner(normalized, federation(), ClientConfig(batch_size=1))


def test_a_client_without_examples_and_a_number_of_steps() -> None:
    one = learner(mlp, federation(sizes=(9, 0)), ClientConfig(steps=3))
    work = [(Task(client, client, 0, 0.0), one.initial()) for client in (0, 1)]
    for result in (one.train(*work[1]), one.train_many(work)[1]):
        assert torch.equal(result.weights, one.initial().weights)
        assert result.metrics == {}


Named = namedtuple("Named", ["logits", "hidden"])

RETURNS: dict[str, Callable[[Tensor], Any]] = {
    "tuple": lambda z: (z, 1),
    "list": lambda z: [z],
    "dict": lambda z: {"loss": None, "logits": z},
    "object": lambda z: SimpleNamespace(logits=z),
    "named tuple": lambda z: Named(z, None),
}


class Returning(MLP):
    def __init__(self, how: Callable[[Tensor], Any]) -> None:
        super().__init__((6,), 4, hidden=(8,))
        self.how = how

    forward_many = None  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Any:
        return self.how(super().forward(x))


@pytest.mark.parametrize("kind", RETURNS)
def test_outputs_are_found_in_what_a_module_returns(kind: str) -> None:
    plain = learner(mlp, federation(), ClientConfig())
    one = learner(lambda: Returning(RETURNS[kind]), federation(), ClientConfig())
    task, start = Task(1, 0, 0, 0.0), one.initial()
    assert torch.equal(one.train(task, start).weights, plain.train(task, plain.initial()).weights)
    assert torch.equal(one.predict(start), plain.predict(plain.initial()))
    assert one.batching_unsupported_reason is None
    torch.testing.assert_close(one.train_many([(task, start)])[0].weights, one.train(task, start).weights)


@pytest.mark.parametrize("returned", [None, (), {"hidden": torch.zeros(2, 4)}, ("logits", 2)], ids=str)
def test_a_module_without_outputs_is_refused(returned: Any) -> None:
    with pytest.raises(ConfigError, match=r"the model returns a .* without logits"):
        learner(lambda: Returning(lambda z: returned), federation(), ClientConfig())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nn.Linear(6, 3), r"has 3 outputs, and a label is 3"),
        (lambda: nn.Linear(6, 5), r"has 5 outputs, and the data have 4 classes"),
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.Unflatten(1, (2, 2))), r"returns \[2, 2\] per example"),
        (lambda: Returning(lambda z: z.mean(0)), r"returns \[4\] for 2 examples"),
    ],
)
def test_a_head_that_does_not_fit_is_refused_before_training(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        learner(build, federation(), ClientConfig())


def test_a_float64_module_trains_in_float64() -> None:
    one = learner(lambda: mlp().double(), federation(), ClientConfig(epochs=1, batch_size=10, momentum=0.5))
    result = one.train(Task(1, 0, 0, 0.0), one.initial())
    single = learner(mlp, federation(), ClientConfig(epochs=1, batch_size=10, momentum=0.5))
    assert result.weights.dtype == torch.float64
    expected = single.train(Task(1, 0, 0, 0.0), single.initial()).weights
    torch.testing.assert_close(result.weights.float(), expected, rtol=1e-4, atol=1e-5)
