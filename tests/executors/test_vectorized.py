"""Many clients as one batched program: what each would have got alone, but for rounding.

Both ways are computed in float64. In float32 two correct kernels may take two sides of a ReLU or two maxima of a
pooling window; that changes a step by far more than rounding does, and depends on the processor.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedecho import Config, Result, resume, run
from fedecho.core.errors import ConfigError
from fedecho.core.keys import Key
from fedecho.core.messages import Model, Request, Task, TrainResult
from fedecho.executors.inline import Inline
from fedecho.executors.vectorized import Vectorized
from fedecho.experiment.build import prepare
from fedecho.learning.batched import schedule
from fedecho.learning.learner import Learner
from fedecho.learning.models.cnn import CNN
from fedecho.learning.models.lenet import LeNet5
from fedecho.learning.models.mlp import MLP
from fedecho.learning.models.resnet import ResNet18
from fedecho.learning.settings import ClientConfig
from fedecho.stages.compute import PredictionFormat
from support.learning import federation
from support.runs import Stop

CLIENTS = 6
CLOSE = 1e-9
"""The largest difference that is rounding in float64: of the weights, over the norm of what training changed."""


def learner(model: dict[str, Any], algorithm: str = "fedbuff", dataset: str = "digits", **client: Any) -> Learner:
    """Six clients whose numbers of examples are far apart."""
    config = Config.from_dict(
        {
            "experiment": {"updates": 1},
            "data": {
                "dataset": dataset, "clients": CLIENTS, "partition": "quantity", "alpha": 0.5, "unlabeled_size": 30,
                "min_examples": 1, "max_examples": 90,
            },
            "server": {"concurrency": 4, "buffer_size": 2},
            "client": {"epochs": 2, "batch_size": 16, "lr": 0.05, **client},
            "algorithm": {"name": algorithm},
            "model": model,
        }
    )  # fmt: skip
    return prepare(config).learner


def jobs(of: Learner, extra: dict[str, Any] | None = None, request: Request | None = None) -> list[tuple[Task, Model]]:
    """A job for every client, each from another version."""
    start = of.initial()
    clients = len(of.data.offsets) - 1
    noise = torch.Generator().manual_seed(3)
    return [
        (
            Task(10 + client, client, client, 0.0, extra or {}, request or Request()),
            Model(client, start.weights + 0.02 * torch.randn(len(start.weights), generator=noise), start.buffers),
        )
        for client in range(clients)
    ]


def in_float64(of: Learner) -> Learner:
    """The same learner, whose module computes in float64: a difference is then a fault and no kernel's choice."""
    return Learner(lambda: copy.deepcopy(of.module).double(), of.data, of.client, Key(11), of.rule)


def assert_alike(of: Learner, work: list[tuple[Task, Model]]) -> list[tuple[TrainResult, TrainResult]]:
    exact = in_float64(of)
    work = [
        (task, replace(model, weights=model.weights.double(), buffers=model.buffers.double())) for task, model in work
    ]
    together, alone = exact.train_many(work), [exact.train(*job) for job in work]
    for (_, model), one, other in zip(work, together, alone, strict=True):
        assert one.task == other.task
        assert one.num_examples == other.num_examples
        moved = torch.linalg.vector_norm(other.weights - model.weights)
        assert moved > 0
        assert torch.linalg.vector_norm(one.weights - other.weights) < CLOSE * moved, "trained differently"
        assert one.metrics["loss"] == pytest.approx(other.metrics["loss"], rel=CLOSE)
        assert one.extra.keys() == other.extra.keys()
        for name, value in other.extra.items():
            torch.testing.assert_close(one.extra[name], value, rtol=1e-6, atol=1e-9)
    return list(zip(together, alone, strict=True))


@pytest.mark.parametrize(
    "model", [{"name": "mlp", "hidden": [16]}, {"name": "cnn"}, {"name": "resnet18"}], ids=lambda model: model["name"]
)
def test_clients_of_unequal_sizes_get_what_each_gets_alone(model: dict[str, Any]) -> None:
    one = learner(model, steps=3) if model["name"] == "resnet18" else learner(model)
    work = jobs(one)
    sizes = [one.data.offsets[i + 1] - one.data.offsets[i] for i in range(CLIENTS)]
    assert len({-(-size // 16) for size in sizes}) > 2, "else nobody is done before another"
    assert any(size < 16 for size in sizes), "else no client's only batch is smaller than the others'"
    assert_alike(one, work[:2] if model["name"] == "resnet18" else work)


def test_lenet_in_channels_last() -> None:
    one = learner({"name": "lenet5"}, dataset="fashion_mnist", epochs=1)
    assert one.channels_last
    assert_alike(one, jobs(one))


@pytest.mark.parametrize(
    "client", [{"momentum": 0.9}, {"weight_decay": 0.1}, {"clip": 0.05}, {"steps": 5}, {"batch_size": 200}], ids=str
)
def test_every_setting_of_the_clients(client: dict[str, Any]) -> None:
    one = learner({"name": "mlp", "hidden": [16]}, **client)
    assert_alike(one, jobs(one))


def test_step_factors_and_predictions_are_each_job_s_own() -> None:
    one = learner({"name": "mlp", "hidden": [16]})
    work = [
        (replace(t, request=Request(1.0 / (1 + i), how if i % 2 else None)), model)
        for i, ((t, model), how) in enumerate(
            zip(jobs(one), [PredictionFormat(), PredictionFormat(half=True), PredictionFormat(3)] * 2, strict=True)
        )
    ]
    for place, (together, alone) in enumerate(assert_alike(one, work)):
        if place % 2:
            assert together.predictions is not None
            assert alone.predictions is not None
            assert together.predictions.dtype == alone.predictions.dtype
            if together.predictions.is_floating_point():
                torch.testing.assert_close(together.predictions, alone.predictions, rtol=1e-2, atol=1e-3)
        else:
            assert together.predictions is None


def test_what_clients_do_differently() -> None:
    proximal = learner({"name": "mlp", "hidden": [16]}, "fedasync")
    assert proximal.rule is not None
    assert_alike(proximal, jobs(proximal, {"mu": 0.5}))
    controlled = learner({"name": "mlp", "hidden": [16]}, "fedac")
    d = len(controlled.initial().weights)
    variates = {"C": torch.full((d,), 0.01), "c_i": torch.full((d,), -0.02)}
    found = assert_alike(controlled, jobs(controlled, variates))
    assert all(together.extra for together, _ in found)


def test_the_schedule_by_hand() -> None:
    plan = schedule([(0, 3, Key(1).numpy()), (3, 5, Key(2).numpy())], batch_size=2, epochs=2, steps=None)
    assert plan.order == [1, 0]
    assert plan.steps == [6, 4]
    assert plan.examples.shape == (2, 6, 2)
    again = Key(2).numpy()
    first, second = again.permutation(5) + 3, again.permutation(5) + 3
    expected = [*first.tolist(), 3, *second.tolist(), 3]
    assert plan.examples[0].flatten().tolist() == expected
    assert plan.sizes.tolist() == [[2, 2, 1, 2, 2, 1], [2, 1, 2, 1, 0, 0]], "the second is done after four steps"
    assert sorted(plan.examples[1, :2].flatten().tolist()) == [0, 0, 1, 2]


UNEQUAL = (23, 5, 40, 1, 17)


class Plain(nn.Module):
    """An MLP that is vmapped, and not one that knows how to be many."""

    def __init__(self, shape: Sequence[int], classes: int) -> None:
        super().__init__()
        self.inner = MLP(shape, classes, (8,))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x)
        return logits


class Tokens(Plain):
    """A language model of nothing but the last token."""

    def __init__(self, shape: Sequence[int], classes: int) -> None:
        super().__init__((5,), classes)
        self.embed = nn.Embedding(classes, 5)
        self.inner = nn.Linear(5, classes)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.embed(x))


class Centred(Plain):
    """Its examples influence each other, and no part of it tells."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(0))


class Faint(Plain):
    """Its examples influence each other by less than float32 could tell from rounding."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - 1e-4 * x.mean(0))


class Single(Plain):
    """It converts to float32 itself, and so fails in float64."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


class SingleCentred(Centred):
    """As `Single`; its examples influence each other."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


class Own(MLP):
    """Another forward pass than that of the class whose `forward_many` it has."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def synthetic(build: Callable[..., nn.Module], shape: tuple[int, ...], **client: Any) -> Learner:
    """Random data of five clients, one of them with a single example."""
    data = federation(shape, UNEQUAL)
    if build is Tokens:
        draws = torch.Generator().manual_seed(2)
        inputs = torch.randint(4, (sum(UNEQUAL), 6), generator=draws)
        labels = torch.randint(4, inputs.shape, generator=draws)
        labels[torch.rand(labels.shape, generator=draws) < 0.3] = -100
        labels[:, 0] = 1
        data = replace(data, inputs=inputs, labels=labels, unlabeled=inputs[:3], causal=True)
    how = ClientConfig(**{"epochs": 2, "batch_size": 10, **client})
    return Learner(lambda: build(shape, 4), data, how, Key(11))


@pytest.mark.parametrize(
    ("build", "shape"),
    [(MLP, (6,)), (Plain, (6,)), (Tokens, (6,)), (LeNet5, (1, 28, 28)), (CNN, (3, 8, 8)), (ResNet18, (3, 8, 8))],
)
def test_images_of_every_layout_and_texts(build: Callable[..., nn.Module], shape: tuple[int, ...]) -> None:
    """Group norm where channels lie behind; one example left in a batch, or in a client's data."""
    one = synthetic(build, shape, steps=1 if build is ResNet18 else None)
    assert one.batching_unsupported_reason is None
    assert_alike(one, jobs(one))


def test_control_variates_of_which_some_have_none_yet() -> None:
    one = learner({"name": "cnn"}, "fedac", epochs=1)
    draws = torch.Generator().manual_seed(8)
    c, *own = 0.1 * torch.randn(1 + CLIENTS, len(one.initial().weights), generator=draws)
    work = [
        (Task(t.id, t.client, t.version, 0.0, {"C": c} | ({"c_i": own[i]} if i % 2 else {})), model)
        for i, (t, model) in enumerate(jobs(one))
    ]
    assert_alike(one, work)


def test_everything_at_once() -> None:
    one = learner(
        {"name": "mlp", "hidden": [16]}, "fedasync", momentum=0.5, weight_decay=0.05, clip=0.3, steps=9, lr=0.1
    )
    work = jobs(one, request=Request(0.5))
    assert_alike(one, [work[0], (replace(work[1][0], request=Request(2.0)), work[1][1]), *work[2:]])


def test_a_client_without_examples_stays_where_it_is() -> None:
    one = Learner(lambda: MLP((6,), 4, (8,)), federation((6,), (23, 0, 9)), ClientConfig(), Key(11))
    work = [(Task(client, client, 0, 0.0), one.initial()) for client in range(3)]
    together = one.train_many(work)[1]
    assert torch.equal(together.weights, one.initial().weights)
    assert together.metrics == one.train(*work[1]).metrics == {}


@pytest.mark.parametrize("build", [Centred, Faint, SingleCentred, Own])
def test_a_module_whose_gradients_are_others_in_a_batch_is_found_out(build: Callable[..., nn.Module]) -> None:
    assert "other gradients" in (synthetic(build, (6,)).batching_unsupported_reason or "")


@pytest.mark.parametrize("build", [Centred, Faint, Own])
def test_the_comparison_of_updates_finds_a_wrong_module(build: Callable[..., nn.Module]) -> None:
    one = synthetic(build, (6,))
    with pytest.raises(AssertionError, match="trained differently"):
        assert_alike(one, jobs(one))


def test_the_comparison_of_updates_finds_a_wrong_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """`forward_many` is wrong by a millionth."""
    one, many = synthetic(MLP, (6,)), MLP.forward_many
    assert_alike(one, jobs(one))
    monkeypatch.setattr(MLP, "forward_many", lambda self, state, inputs: many(self, state, inputs) * (1 + 1e-6))
    with pytest.raises(AssertionError, match="trained differently"):
        assert_alike(one, jobs(one))


def test_a_module_that_fails_in_float64_is_judged_in_float32() -> None:
    assert synthetic(Single, (6,)).batching_unsupported_reason is None


@pytest.mark.parametrize("build", [LeNet5, Single])
def test_asking_whether_jobs_can_be_batched_changes_nothing(build: Callable[..., nn.Module]) -> None:
    shape = (1, 28, 28) if build is LeNet5 else (6,)
    one, other = synthetic(build, shape), synthetic(build, shape)
    addresses = [p.data_ptr() for p in one.module.parameters()]
    drawn, start = torch.get_rng_state(), one.initial().weights.clone()
    assert one.batching_unsupported_reason is None
    assert torch.equal(torch.get_rng_state(), drawn)
    assert [p.data_ptr() for p in one.module.parameters()] == addresses
    assert {p.dtype for p in one.module.parameters()} == {torch.float32}
    assert torch.equal(one.initial().weights, start)
    for asked, unasked in zip(one.train_many(jobs(one)), other.train_many(jobs(other)), strict=True):
        assert asked.weights.dtype == torch.float32
        assert torch.equal(asked.weights, unasked.weights)
    assert torch.equal(one.train(*jobs(one)[0]).weights, other.train(*jobs(other)[0]).weights)


# -- the executor


class Scribe:
    """Notes what is trained together."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []

    def train_many(self, given: list[tuple[Task, Model]]) -> list[TrainResult]:
        self.groups.append([task.id for task, _ in given])
        return [TrainResult(task.id, model.weights, model.buffers, 1) for task, model in given]


class Choosy(nn.Module):
    """What it does hangs on the numbers it sees."""

    def __init__(self, shape: Sequence[int], classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x.flatten(1))
        return logits if float(logits.sum()) > 0 else -logits


def nothing() -> Tensor:
    return torch.zeros(1)


def test_what_is_needed_next_goes_along() -> None:
    scribe, left = Scribe(), [4.0]
    executor = Vectorized(scribe, 3, lambda: left[0])
    for number, needed_at_s in enumerate([5.0, 1.0, 9.0, 2.0, 3.0, 4.0]):
        executor.submit(Task(number, number, 0, 0.0), Model(0, nothing(), nothing()), needed_at_s)
    executor.cancel(3)
    assert executor.result(1).task == 1
    assert scribe.groups == [[1, 4, 5]]
    executor.cancel(4)
    assert executor.result(5).task == 5
    assert len(scribe.groups) == 1, "it was there"
    left[0] = 1
    assert executor.result(0).task == 0
    assert scribe.groups[1:] == [[0]], "no more results are wanted"


TABLES: dict[str, Any] = {
    "experiment": {"updates": 120, "eval_every": 20},
    "data": {"clients": 20, "unlabeled_size": 100},
    "server": {"concurrency": 10, "buffer_size": 4},
    "model": {"name": "mlp", "hidden": [32]},
    "client": {"batch_size": 10},
    "stages": {"name": "echo"},
    "population": {"name": "mild", "dropout": 0.1},
}


def accuracy(result: Result) -> float:
    mean = result.metrics["accuracy"].last_5_mean
    assert mean is not None
    return mean


def test_a_whole_run_ends_where_inline_does(tmp_path: Path) -> None:
    inline = run(Config.from_dict(TABLES))
    config = Config.from_dict({**TABLES, "executor": {"name": "vectorized", "batch": 8}})
    vectorized = run(config)
    assert vectorized.virtual_time_s == inline.virtual_time_s
    assert vectorized.lost == inline.lost > 0
    assert accuracy(vectorized) == pytest.approx(accuracy(inline), abs=0.02)
    assert run(config).model_sha256 == vectorized.model_sha256, "the same groups, the same bits"
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "run", Stop(50, tmp_path / "run"))
    resumed = resume(tmp_path / "run")
    assert resumed.updates == 120
    assert accuracy(resumed) == pytest.approx(accuracy(inline), abs=0.02)


def test_a_model_that_cannot_be_batched_is_refused() -> None:
    tables = {**TABLES, "executor": {"name": "vectorized"}}
    with pytest.raises(ConfigError, match=r"'resnet18' has running statistics, .*take another executor"):
        prepare(Config.from_dict({**tables, "model": {"name": "resnet18", "norm": "batch"}}))
    with pytest.raises(ConfigError, match="'test_vectorized:Choosy' cannot be batched over weights"):
        prepare(Config.from_dict({**tables, "model": {"name": "test_vectorized:Choosy"}}))
    text = {**TABLES["data"], "dataset": "shakespeare", "partition": "iid", "max_examples": 4, "test_size": 10}
    with pytest.raises(ConfigError, match="'lstm' is recurrent"):
        prepare(Config.from_dict({**tables, "data": text, "model": {"name": "lstm"}}))
    assert isinstance(prepare(Config.from_dict(tables)).executor, Vectorized)
    assert isinstance(prepare(Config.from_dict(TABLES)).executor, Inline)
