"""The learner, against plain PyTorch on the same batches.

Where training is compared with training, both are computed in float64: in float32 two correct kernels may take two
sides of a ReLU or two maxima of a pooling window, and how often they do depends on the processor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedecho.algorithms.fedasync import Proximal
from fedecho.config.config import Config
from fedecho.core.errors import ConfigError
from fedecho.core.formats import LOGITS
from fedecho.core.keys import Key
from fedecho.core.messages import Model, Request, Task
from fedecho.data.federation import Federation
from fedecho.experiment.build import prepare
from fedecho.learning.learner import Learner
from fedecho.learning.models.cnn import CNN
from fedecho.learning.models.lenet import LeNet5
from fedecho.learning.models.mlp import MLP
from fedecho.learning.models.pooling import max_pool
from fedecho.learning.models.resnet import ResNet18
from fedecho.learning.settings import ClientConfig
from fedecho.objectives.classification import Classification
from fedecho.stages.compute import Distillation
from support.learning import KEY, Small, federation, learner

CLOSE = 1e-9
"""The largest difference that is rounding in float64."""


def mlp() -> nn.Module:
    return MLP((6,), 4, hidden=(8,))


def batches(data: Federation, client: int, task: Task, config: ClientConfig) -> list[Tensor]:
    """The places of the examples in each step's batch: the learner's own keyed orders."""
    first, end = data.offsets[client], data.offsets[client + 1]
    orders = KEY.fold("train", client, task.id, task.version).numpy()
    found: list[Tensor] = []
    while len(found) < (config.steps or config.epochs * -(-(end - first) // config.batch_size)):
        found += torch.split(torch.from_numpy(orders.permutation(end - first)) + first, config.batch_size)
    return found[: config.steps] if config.steps else found


def plain_sgd(
    one: Learner, model: Model, module: nn.Module, task: Task, config: ClientConfig, mu: float = 0.0
) -> tuple[nn.Module, float]:
    """The client's training as anybody would write it, in the learner's type."""
    module.to(one.dtype).load_state_dict(one.state_dict(model))
    start = [p.detach().clone() for p in module.parameters()]
    optimizer = torch.optim.SGD(
        module.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    module.train()
    losses = []
    for rows in batches(one.data, task.client, task, config):
        optimizer.zero_grad()
        loss = F.cross_entropy(module(one.data.inputs[rows].to(one.dtype)), one.data.labels[rows])
        losses.append(float(loss.detach()))
        for p, p0 in zip(module.parameters(), start, strict=True):
            loss = loss + mu / 2 * ((p - p0) ** 2).sum()
        loss.backward()
        if config.clip:
            nn.utils.clip_grad_norm_(module.parameters(), config.clip)
        optimizer.step()
    return module, sum(losses) / len(losses)


def assert_same_model(one: Learner, model: Model, module: nn.Module, tolerance: float) -> None:
    for name, value in one.state_dict(model).items():
        if value.is_floating_point():
            torch.testing.assert_close(value, module.state_dict()[name], rtol=tolerance, atol=tolerance, msg=name)


# ------------------------------------------------------------------------------------------------------------- training

CONFIGS = {
    "plain": ClientConfig(epochs=3, batch_size=10),
    "steps over several passes": ClientConfig(steps=7, batch_size=10),
    "fewer steps than a pass": ClientConfig(steps=2, batch_size=4),
    "one batch holds all": ClientConfig(epochs=2, batch_size=1000),
    "momentum": ClientConfig(epochs=3, batch_size=10, momentum=0.9),
    "weight decay": ClientConfig(epochs=3, batch_size=10, weight_decay=0.05),
    "momentum and weight decay": ClientConfig(epochs=3, batch_size=10, momentum=0.5, weight_decay=0.05),
    "clip": ClientConfig(epochs=3, batch_size=10, clip=0.3),
    "clip and momentum": ClientConfig(epochs=2, batch_size=10, clip=0.3, momentum=0.9),
}


@pytest.mark.parametrize("case", CONFIGS)
@pytest.mark.parametrize("client", [0, 1])
def test_local_training_is_plain_sgd(case: str, client: int) -> None:
    config = CONFIGS[case]
    one = learner(mlp, federation(), config).in_float64()
    model, task = one.initial(), Task(9, client, 4, 0.0)
    untouched = model.weights.clone()
    update = one.train(task, model)
    module, loss = plain_sgd(one, model, mlp(), task, config)
    assert_same_model(
        one, Model(5, update.weights, update.buffers), module, 1e-6 if config.clip else CLOSE
    )  # torch adds 1e-6 to the norm
    assert update.metrics["loss"] == pytest.approx(loss, rel=1e-6 if config.clip else CLOSE)
    assert (update.task, update.num_examples, update.predictions) == (9, (23, 5)[client], None)
    assert torch.equal(model.weights, untouched)
    assert float((update.weights - model.weights).norm()) > 1e-2


def test_the_proximal_rule_is_the_gradient_of_its_penalty() -> None:
    config = ClientConfig(epochs=3, batch_size=10)
    one = learner(mlp, federation(), config, rule=Proximal(0.7)).in_float64()
    model, task = one.initial(), Task(1, 0, 0, 0.0)
    update = one.train(task, model)
    module, loss = plain_sgd(one, model, mlp(), task, config, mu=0.7)
    assert_same_model(one, Model(1, update.weights, update.buffers), module, CLOSE)
    assert update.metrics["loss"] == pytest.approx(loss, rel=CLOSE)


def test_the_task_scales_the_step() -> None:
    halved, plain = (learner(mlp, federation(), ClientConfig(lr=lr)) for lr in (0.1, 0.05))
    model = plain.initial()
    scaled = halved.train(Task(1, 0, 0, 0.0, request=Request(0.5)), model)
    assert torch.equal(scaled.weights, plain.train(Task(1, 0, 0, 0.0), model).weights)


def test_a_jobs_result_depends_on_its_own_address_and_on_nothing_else() -> None:
    def build() -> nn.Module:
        return Small(dropout=0.5)

    config = ClientConfig(batch_size=8)
    one, other = (learner(build, federation((2, 8, 8)), config) for _ in range(2))
    model, task = one.initial(), Task(3, 2, 1, 0.0, request=Request(predictions=LOGITS))
    first = one.train(task, model)
    torch.manual_seed(1234)
    one.distill(model, lambda z, _: z.square().sum(), Distillation(2, 5, 0.1, 1.0, "adam"), Key(0))
    one.train(Task(4, 0, 1, 0.0), model)
    drawn = torch.rand(2)
    again, worker_seconds = one.train(task, model), other.train(task, other.initial())
    for update in (again, worker_seconds):
        assert torch.equal(update.weights, first.weights)
        assert torch.equal(update.buffers, first.buffers)
        assert first.predictions is not None
        assert update.predictions is not None
        assert torch.equal(update.predictions, first.predictions)
    assert not torch.equal(one.train(replace(task, id=5), model).weights, first.weights)
    torch.manual_seed(1234)
    assert torch.equal(torch.rand(2), drawn), "the global generator is left where it was"


def test_dropout_is_on_in_training_and_off_in_predicting() -> None:
    dropping, plain = (
        learner(lambda p=p: Small(dropout=p), federation((2, 8, 8)), ClientConfig(batch_size=8))  # type: ignore[misc]
        for p in (0.5, 0.0)
    )
    model = plain.initial()
    assert torch.equal(dropping.predict(model), plain.predict(model))
    task = Task(1, 0, 0, 0.0)
    assert not torch.allclose(dropping.train(task, model).weights, plain.train(task, model).weights, atol=1e-3)


def test_channels_last_agrees_with_contiguous() -> None:
    data, config = federation((2, 8, 8)), ClientConfig(epochs=2, batch_size=8, momentum=0.5)
    last, contiguous = (learner(Small, data, config, memory_format=f).in_float64() for f in ("auto", "contiguous"))
    assert last.channels_last
    assert not contiguous.channels_last
    task = Task(1, 0, 0, 0.0, request=Request(predictions=LOGITS))
    updates = [one.train(task, one.initial()) for one in (last, contiguous)]
    states = [
        one.state_dict(Model(1, update.weights, update.buffers))
        for one, update in zip((last, contiguous), updates, strict=True)
    ]
    for name, value in states[0].items():
        assert value.is_contiguous()
        torch.testing.assert_close(value, states[1][name], rtol=CLOSE, atol=CLOSE)
    assert updates[0].predictions is not None
    torch.testing.assert_close(updates[0].predictions, updates[1].predictions, rtol=CLOSE, atol=CLOSE)
    module, _ = plain_sgd(last, last.initial(), Small(), task, config)
    assert_same_model(last, Model(1, updates[0].weights, updates[0].buffers), module, CLOSE)


# -------------------------------------------------------------------------------------------------------- the flat view


@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_parameters_and_gradients_are_views_of_one_vector(memory_format: Any) -> None:
    one = learner(Small, federation((2, 8, 8)), ClientConfig(), memory_format=memory_format)
    model = one.initial()
    trainable = list(one.module.parameters())
    assert model.weights.numel() == sum(p.numel() for p in trainable)
    assert model.buffers.numel() == 2 * 5, "the running mean and variance, not the count of batches"
    one.predict(Model(0, torch.arange(model.weights.numel()).float(), model.buffers))
    assert torch.cat([p.detach().flatten() for p in trainable]).sort().values.tolist() == list(
        range(model.weights.numel())
    )
    storages = (
        {p.untyped_storage().data_ptr() for p in trainable},
        {p.grad.untyped_storage().data_ptr() for p in trainable},
    )  # type: ignore[union-attr]
    assert all(len(found) == 1 for found in storages)


def test_the_initial_model_is_the_modules_own_and_asking_late_changes_nothing() -> None:
    one, other = (learner(mlp, federation(), ClientConfig()) for _ in range(2))
    with KEY.fold("init").torch_global():
        fresh = mlp()
    start = Model(0, torch.zeros_like(one.initial().weights), torch.zeros(0))
    other.train(Task(0, 0, 0, 0.0), start)
    assert torch.equal(other.initial().weights, one.initial().weights)
    assert_same_model(one, one.initial(), fresh, 0.0)


def test_a_state_dict_loads_into_a_plain_module_that_then_predicts_the_same() -> None:
    one = learner(Small, federation((2, 8, 8)), ClientConfig(batch_size=8)).in_float64()
    update = one.train(Task(1, 2, 0, 0.0), one.initial())
    model = Model(1, update.weights, update.buffers)
    module = Small().double()
    module.load_state_dict(one.state_dict(model))
    module.eval()
    with torch.no_grad():
        torch.testing.assert_close(one.predict(model), module(one.data.unlabeled.double()), rtol=CLOSE, atol=CLOSE)


def test_frozen_parameters_stay_out_of_the_vector_and_do_not_move() -> None:
    def build() -> nn.Module:
        module = mlp()
        next(module.parameters()).requires_grad_(False)
        return module

    one = learner(build, federation(), ClientConfig(weight_decay=0.1))
    model = one.initial()
    frozen = next(one.module.parameters()).clone()
    assert model.weights.numel() == 8 + 8 * 4 + 4
    one.train(Task(0, 0, 0, 0.0), model)
    assert torch.equal(next(one.module.parameters()), frozen)


@pytest.mark.parametrize(
    "build",
    [
        nn.Flatten,
        lambda: nn.Linear(6, 4, dtype=torch.bfloat16),
        lambda: nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 4).double()),
    ],
)
def test_a_model_whose_parameters_are_not_all_float32_or_all_float64_is_refused(build: Callable[[], nn.Module]) -> None:
    with pytest.raises(ConfigError, match="float32"):
        learner(build, federation(), ClientConfig())


# -------------------------------------------------------------------------------------------------------------- buffers


def test_batch_norm_statistics_travel_apart_from_the_weights() -> None:
    config = ClientConfig(epochs=1, batch_size=8)
    one = learner(Small, federation((2, 8, 8)), config).in_float64()
    model, task = one.initial(), Task(1, 0, 0, 0.0, request=Request(predictions=LOGITS))
    update = one.train(task, model)
    module, _ = plain_sgd(one, model, Small(), task, config)
    assert_same_model(one, Model(1, update.weights, update.buffers), module, CLOSE)
    assert not torch.equal(update.buffers, model.buffers)
    assert model.buffers.tolist() == [0.0] * 5 + [1.0] * 5
    assert update.predictions is not None
    with_its_own, with_the_servers = (
        one.predict(Model(1, update.weights, buffers)) for buffers in (update.buffers, model.buffers)
    )
    assert torch.equal(update.predictions, with_its_own)
    assert not torch.allclose(update.predictions, with_the_servers, atol=1e-3)


def test_predicting_and_distilling_leave_the_buffers_alone() -> None:
    one = learner(Small, federation((2, 8, 8)), ClientConfig())
    model = one.initial()
    before = {name: value.clone() for name, value in one.module.named_buffers()}
    one.predict(model)
    one.distill(model, lambda z, _: z.square().mean(), Distillation(3, 5, 0.1, 0.0), Key(0))
    assert all(torch.equal(value, before[name]) for name, value in one.module.named_buffers())


# -------------------------------------------------------------------------------------------------- predicting, judging


class Scores(nn.Module):
    """Logits are the inputs, plus a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


def test_evaluation_by_hand() -> None:
    inputs = torch.tensor([[2.0, 0, 0], [0, 2, 0], [0, 2, 0], [2, 0, 0]])
    labels = torch.tensor([0, 1, 0, 0])
    data = Federation(inputs, labels, (0, 4), inputs, (inputs, labels), (inputs, labels), 3)
    one = learner(Scores, data, ClientConfig())
    statistics = one.evaluate(one.initial(), inputs, labels)
    assert statistics[:, :2].tolist() == [[0, 0], [1, 1], [0, 1], [0, 0]], "the label and the predicted class"
    judged = one.objective.values(statistics)
    assert judged["accuracy"] == 0.75
    right, wrong = (torch.tensor([2.0, 0, 0]).log_softmax(0)[i].item() for i in (0, 1))
    assert judged["loss"] == pytest.approx(-(3 * right + wrong) / 4)
    biased = one.evaluate(Model(1, torch.tensor([0.0, 9.0, 0.0]), torch.zeros(0)), inputs, labels)
    assert biased[:, 1].tolist() == [1, 1, 1, 1]


def test_accuracy_under_a_label_mix_by_hand() -> None:
    rows = [[0, 0], [0, 0], [0, 1], [0, 2], [1, 1]]  # label, predicted class
    statistics = torch.tensor([[*row, 1, 0] for row in rows], dtype=torch.float64)
    objective = Classification()

    def accuracy_under(*mix: float) -> float:
        return objective.values(statistics, objective.mix_weights(statistics, torch.tensor(mix)))["accuracy"]

    assert accuracy_under(0.5, 0.5, 0.0) == pytest.approx(0.75, abs=1e-12)
    assert accuracy_under(0.2, 0.2, 0.6) == pytest.approx(0.75, abs=1e-12), "the third class has no example here"
    assert accuracy_under(1.0, 0.0, 0.0) == pytest.approx(0.5, abs=1e-12)


def test_predictions_come_in_us_order_over_several_batches() -> None:
    inputs = torch.randn(1203, 3, generator=torch.Generator().manual_seed(0))
    data = Federation(inputs[:4], torch.zeros(4, dtype=torch.int64), (0, 4), inputs, (inputs,) * 2, (inputs,) * 2, 3)
    one = learner(Scores, data, ClientConfig())
    assert torch.equal(one.predict(one.initial()), inputs)


def test_a_federation_has_no_labels_of_u_to_look_at() -> None:
    setup = prepare(Config.from_dict({"experiment": {"updates": 1}, "data": {"unlabeled_size": 40, "clients": 25}}))
    data = setup.data
    assert data.unlabeled.shape == (40, *data.inputs.shape[1:])
    fields = {name for name in Federation.__dataclass_fields__ if "label" in name}
    assert fields == {"labels", "label_names", "unlabeled"}
    assert len(data.labels) == len(data.inputs), "the labels are the clients' alone"
    private = {row.numpy().tobytes() for row in data.inputs}
    assert not private & {row.numpy().tobytes() for row in data.unlabeled}


# --------------------------------------------------------------------------------------------------------------- models


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_cnn_has_the_parameters_counted_by_hand_and_says_what_it_takes() -> None:
    by_hand = sum(9 * a * b + b + 2 * b for a, b in ((3, 32), (32, 64), (64, 64))) + 10 * (64 * 4 * 4 + 1)
    assert sum(p.numel() for p in CNN((3, 32, 32), 10).parameters()) == by_hand == 66_890
    assert CNN((1, 28, 28), 7)(torch.zeros(2, 1, 28, 28)).shape == (2, 7)
    assert not any(True for _ in CNN((3, 32, 32), 10).buffers()), "group norm keeps no statistics"
    for shape, options in (((64,), {}), ((1, 7, 28), {}), ((3, 32, 32), {"widths": (32, 30), "groups": 8})):
        with pytest.raises(ConfigError, match=r"cnn takes|cnn's widths"):
            CNN(shape, 10, **options)  # type: ignore[arg-type]


def test_lenet5_has_61706_parameters_and_its_two_input_sizes() -> None:
    assert parameters(LeNet5((1, 28, 28), 10)) == 61_706
    assert parameters(MLP((1, 28, 28), 10)) == 784 * 100 + 100 + 100 * 10 + 10
    for size in (28, 32):
        assert LeNet5((3, size, size), 7)(torch.randn(2, 3, size, size)).shape == (2, 7)
    for shape in ((1, 8, 8), (784,), (1, 28, 32)):
        with pytest.raises(ConfigError, match="lenet5 takes"):
            LeNet5(shape, 10)


def test_relu_after_pooling_is_the_usual_lenet() -> None:
    module, x = LeNet5((1, 28, 28), 10), torch.randn(3, 1, 28, 28)
    y = F.max_pool2d(F.relu(module.conv2(F.max_pool2d(F.relu(module.conv1(x)), 2))), 2).flatten(1)
    torch.testing.assert_close(module(x), module.fc3(F.relu(module.fc2(F.relu(module.fc1(y))))))


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_resnet18_has_its_shape_and_every_parameter_gets_a_gradient(norm: Any) -> None:
    module = ResNet18((3, 16, 16), 10, norm=norm)
    assert parameters(module) == 11_173_962
    assert bool(list(module.buffers())) == (norm == "batch")
    out = module(torch.randn(2, 3, 16, 16))
    assert out.shape == (2, 10)
    out.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in module.parameters())


def test_resnet18_says_what_it_takes() -> None:
    with pytest.raises(ConfigError, match="resnet18 takes images"):
        ResNet18((784,), 10)
    with pytest.raises(ConfigError, match="'group' or 'batch'"):
        ResNet18((3, 8, 8), 10, norm="layer")  # type: ignore[arg-type]


def config_with(model: dict[str, Any]) -> Config:
    base = {"experiment": {"updates": 1}, "data": {"clients": 25, "unlabeled_size": 20}, "model": model}
    return Config.from_dict(base)


def test_anybodys_model_is_found_by_module_and_class() -> None:
    setup = prepare(config_with({"name": "support.learning:Small", "dropout": 0.25}))
    assert isinstance(setup.learner.module, Small)
    assert setup.learner.module.drop.p == 0.25
    update = setup.learner.train(Task(0, 0, 0, 0.0), setup.learner.initial())
    assert bool(torch.isfinite(update.weights).all())


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"name": "support.learning:Small", "width": 3}, "cannot be built"),
        ({"name": "test_learner:parameters"}, "cannot be built"),
        ({"name": "test_learner:nothing"}, "cannot be imported"),
        ({"name": "mlp", "depth": 3}, "depth"),
    ],
)
def test_a_model_that_cannot_be_built_is_a_clear_error(model: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        prepare(config_with(model))


def test_a_jobs_counters_do_not_depend_on_who_worked_before() -> None:
    one = learner(Small, federation((2, 8, 8)), ClientConfig(epochs=1, batch_size=8))
    model = one.initial()
    for task in range(3):
        one.train(Task(task, 0, 0, 0.0), model)
    counters = [value for name, value in one.state_dict(model).items() if name.endswith("num_batches_tracked")]
    assert counters
    assert all(int(value) == 0 for value in counters)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(10, 10), (7, 28), (5, 3)])
def test_pooling_without_a_gradient_gives_the_same_values(
    size: tuple[int, int], memory_format: torch.memory_format
) -> None:
    x = torch.from_numpy(Key(0).fold(*size).numpy().normal(size=(3, 6, *size))).float()
    x[0, 0, 0, 0], x[1, 1, 1, 1] = math.nan, -math.inf
    x = x.to(memory_format=memory_format)
    with torch.no_grad():
        pooled = max_pool(x)
    expected = F.max_pool2d(x, 2)
    assert torch.equal(pooled.isnan(), expected.isnan())
    assert torch.equal(pooled.nan_to_num(), expected.nan_to_num())
    assert pooled.stride() == expected.stride()
    assert max_pool(x.requires_grad_()).grad_fn.name() == F.max_pool2d(x, 2).grad_fn.name()
