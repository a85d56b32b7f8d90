"""What a user of the Flower strategies can ask for besides a rule."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from fedecho import ConfigError, replay

pytest.importorskip("flwr", reason="Flower needs Python 3.11 or later")

from flower_runs import assert_equal, events
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp

import fedecho.flower as flower
from fedecho.flower import transport
from fedecho.flower.arguments import INSTEAD
from fedecho.flower.couriers import Couriers
from flower_nodes import LocalGrid, Net, first_arrays, judge, make_app, part, unlabeled


@pytest.fixture(autouse=True)
def short_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "FIRST_REST_S", 0.2)
    monkeypatch.setattr(transport, "LONGEST_REST_S", 1.0)


# -- apps with a client_fn


class Legacy(NumPyClient):
    """A client as it was written before messages: lists of arrays, and metrics beside them."""

    def __init__(self, number: int) -> None:
        self.number, self.net = number, Net()

    def fit(self, parameters: list[Any], config: dict[str, Any]) -> tuple[list[Any], int, dict[str, Any]]:
        assert config["lr"] == 0.1
        assert config["server-round"] >= 1
        names = self.net.state_dict()
        self.net.load_state_dict({n: torch.tensor(v) for n, v in zip(names, parameters, strict=True)})
        inputs, labels = part(self.number)
        optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1)
        for rows in torch.arange(len(inputs)).split(20):
            optimizer.zero_grad()
            loss = F.cross_entropy(self.net(inputs[rows]), labels[rows])
            loss.backward()
            optimizer.step()
        arrays = [value.numpy() for value in self.net.state_dict().values()]
        return arrays, len(inputs), {"train_loss": float(loss.detach())}

    def evaluate(self, parameters: list[Any], config: dict[str, Any]) -> tuple[float, int, dict[str, Any]]:
        assert len(parameters) == len(self.net.state_dict())
        return 0.75, 10, {}


def legacy_app(mods: list[Any] | None = None) -> ClientApp:
    def client_fn(context: Context) -> Any:
        return Legacy(int(context.node_config["partition-id"])).to_client()

    return ClientApp(client_fn=client_fn, mods=mods or [])


def legacy_grid(mods: list[Any] | None = None) -> LocalGrid:
    return LocalGrid(3, legacy_app(mods))


def test_an_app_with_a_client_fn(tmp_path: Path) -> None:
    strategy = flower.FedEcho(
        model=Net, unlabeled=unlabeled(), buffer_size=2, legacy=True, run_dir=tmp_path / "run", keep="all",
        fraction_evaluate=1.0,
    )  # fmt: skip
    result = strategy.start(
        legacy_grid(), first_arrays(), num_rounds=12, train_config=ConfigRecord({"lr": 0.1}), evaluate_fn=judge
    )
    accepted = events(tmp_path / "run", "accept")
    assert not events(tmp_path / "run", "refuse")
    assert {row["num_examples"] for row in accepted} == {80}
    assert all(np.isfinite(row["train_loss"]) for row in accepted)
    accuracy = [float(metrics["accuracy"]) for metrics in result.evaluate_metrics_serverapp.values()]  # type: ignore[arg-type]
    assert accuracy[-1] > accuracy[0] + 0.3
    assert {metrics["loss"] for metrics in result.evaluate_metrics_clientapp.values()} == {0.75}
    assert replay(tmp_path / "run").matches


def test_an_app_with_a_client_fn_by_the_three_keys(tmp_path: Path) -> None:
    """As the page says for apps that name their records in some way of their own."""
    strategy = flower.FedBuff(
        buffer_size=2, run_dir=tmp_path / "run", arrayrecord_key="fitins.parameters",
        configrecord_key="fitins.config", weighted_by_key="num_examples",
    )  # fmt: skip
    strategy.start(legacy_grid(), first_arrays(), num_rounds=3, train_config=ConfigRecord({"lr": 0.1}))
    assert len(events(tmp_path / "run", "accept")) == 6


def test_an_error_of_such_an_app_names_the_argument(tmp_path: Path) -> None:
    mixed = [make_app(), legacy_app()]

    def either(message: Message, context: Context) -> Message:
        return mixed[int(context.node_config["partition-id"]) == 0](message, context)

    strategy = flower.FedBuff(buffer_size=2, run_dir=tmp_path / "run")
    strategy.start(LocalGrid(3, either), first_arrays(), num_rounds=4)  # type: ignore[arg-type]
    assert all("give the strategy legacy=True" in row["reason"] for row in events(tmp_path / "run", "lost"))
    assert events(tmp_path / "run", "lost")


# -- the end, nodes, patience


def test_stop_when_ends_the_run_as_its_last_version_would(tmp_path: Path) -> None:
    calls: list[tuple[int, Mapping[str, float]]] = []

    def good_enough(version: int, metrics: Mapping[str, float]) -> bool:
        calls.append((version, metrics))
        return version >= 5

    def strategy() -> flower.Asynchronous:
        return flower.FedEcho(
            model=Net, unlabeled=unlabeled(), buffer_size=2, run_dir=tmp_path / "run", keep="all", seed=1,
            stop_when=good_enough,
        )  # fmt: skip

    result = strategy().start(LocalGrid(3), first_arrays(), num_rounds=100, evaluate_fn=judge)
    assert list(result.evaluate_metrics_serverapp) == list(range(6))
    assert calls[-1] == (5, result.evaluate_metrics_serverapp[5])
    saved = load_file(tmp_path / "run" / "model.safetensors")
    for name, array in result.arrays.items():
        assert torch.equal(saved[name], torch.from_numpy(array.numpy().copy())), name
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["updates"] == 10
    recomputed = replay(tmp_path / "run")
    assert recomputed.matches
    assert recomputed.versions == 5
    grid = LocalGrid(3)
    again = strategy().start(grid, first_arrays(), num_rounds=100, evaluate_fn=judge)
    assert not grid.sent  # a finished run gives its result again
    assert_equal(result.arrays, again.arrays)


def test_choose_nodes(tmp_path: Path) -> None:
    """Ids that are not there, or double, do no harm; a choice that changes drops a node and takes it back."""
    looks: list[Sequence[int]] = []

    def choose(nodes: Sequence[int]) -> Iterable[int]:
        looks.append(tuple(nodes))
        return [1002, 1000, 1000] if len(looks) < 8 else [1001]

    strategy = flower.FedBuff(buffer_size=2, run_dir=tmp_path / "run", keep="all", refresh_s=0.1, choose_nodes=choose)
    app = make_app(delay_s=lambda number: 0.1)
    grid = LocalGrid(4, app)
    strategy.start(grid, first_arrays(), num_rounds=12)
    assert set(looks) == {(1000, 1001, 1002, 1003)}
    used = [message.metadata.dst_node_id for message in grid.sent]
    assert set(used) == {1000, 1001, 1002}
    first = used.index(1001)
    assert set(used[:first]) <= {1000, 1002}
    assert set(used[first + 2 :]) == {1001}
    assert replay(tmp_path / "run").matches


def test_patience_follows_a_nodes_own_times(tmp_path: Path) -> None:
    """Node 0 answers four times in .1 s and then hangs; node 1 needs ten times as long for every task."""
    jobs = [0]

    def delay_s(number: int) -> float:
        if number != 0:
            return 1.0 if number == 1 else 0.1
        jobs[0] += 1
        return 30.0 if jobs[0] == 5 else 0.1

    strategy = flower.FedBuff(buffer_size=2, run_dir=tmp_path / "run", patience=4.0, seed=0)
    strategy.start(LocalGrid(3, make_app(delay_s=delay_s)), first_arrays(), num_rounds=30)
    lost = events(tmp_path / "run", "lost")
    reasons = [row["reason"] for row in lost]
    assert len({row["client"] for row in lost}) == 1  # not the slow one
    assert reasons[0].startswith("no answer within ")
    assert 0.3 < float(reasons[0].split()[3]) < 5.0


def test_without_patience_or_timeout_a_task_has_twelve_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: set[float] = set()
    real = transport.FlowerTransport._limit_s

    def spied(self: transport.FlowerTransport, node: int) -> float:
        limits.add(real(self, node))
        return real(self, node)

    monkeypatch.setattr(transport.FlowerTransport, "_limit_s", spied)
    flower.FedBuff(buffer_size=1).start(LocalGrid(2), first_arrays(), num_rounds=3, timeout=None)
    assert limits == {43_200.0}


@pytest.mark.parametrize("name", INSTEAD)
def test_arguments_of_fedavg_are_answered(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        flower.FedBuff(**{name: 1})
    assert f"{name} is an argument of Flower's FedAvg: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("patience", [1.0, 0.0, -2.0, float("inf")])
def test_a_patience_that_cannot_be(patience: float) -> None:
    with pytest.raises(ConfigError, match=r"patience is .*; it must be above 1 and finite, such as 3\.0, or None"):
        flower.FedBuff(patience=patience)


def test_a_new_rule_has_a_strategy_without_an_entry() -> None:
    from fedecho.config.registry import ALIASES, algorithm_classes
    from fedecho.flower.strategies import STRATEGIES, class_name

    assert {cls.method for cls in STRATEGIES.values()} == {*algorithm_classes(), *ALIASES}
    assert set(STRATEGIES) < set(dir(flower))
    assert class_name("fedecho_balanced") == "FedEchoBalanced"
    assert "echo_" in str(flower.FedEcho.__doc__)
    assert issubclass(flower.FedBuff, flower.Asynchronous)
    with pytest.raises(AttributeError, match="has no attribute 'FedNothing'"):
        flower.FedNothing  # type: ignore[attr-defined]  # noqa: B018


def test_couriers_that_came_back_do_not_slow_the_others_down() -> None:
    """How often an answer is asked for depends on the couriers at work now, not on all that there ever were."""
    couriers = Couriers(LocalGrid(1), ttl_s=60.0, refresh_s=1.0)
    answered = threading.Event()

    def report(reply: Message | None, why: str) -> None:
        answered.set()

    content = RecordDict({"arrays": first_arrays(), "config": ConfigRecord({"server-round": 1})})
    try:
        couriers.send(1000, MessageType.TRAIN, content, "1", report)
        assert couriers.at_work == 1
        assert answered.wait(60)
        deadline = time.monotonic() + 10
        while couriers.at_work and time.monotonic() < deadline:
            time.sleep(0.01)
        assert couriers.at_work == 0
    finally:
        couriers.close()
