"""A Flower federation served for real: Flower's own messages, ClientApps and `start`.

Nodes are threads here; the network of SuperLink and SuperNodes is in test_flower_deployment.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fedecho import ConfigError, MissingExtra, RecordError, replay
from fedecho.config.registry import ALIASES, algorithm_classes
from fedecho.core.messages import Model

pytest.importorskip("flwr", reason="Flower needs Python 3.11 or later")

from flower_runs import assert_equal, events, rows
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message
from flwr.clientapp.mod import LocalDpMod
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping

import fedecho.flower as flower
from fedecho.flower import transport
from fedecho.flower.arrays import Arrays, digest
from fedecho.flower.codec import EXTRA
from flower_nodes import LocalGrid, Net, first_arrays, judge, make_app, part, unlabeled

TESTS = Path(__file__).parents[1]


# -- what a user does


def test_an_unchanged_client_trains_under_fedecho(tmp_path: Path) -> None:
    strategy = flower.FedEcho(model=Net, unlabeled=unlabeled(), buffer_size=2, run_dir=tmp_path / "run", keep="all")
    result = strategy.start(LocalGrid(4), first_arrays(), num_rounds=15, evaluate_fn=judge)
    assert list(result.evaluate_metrics_serverapp) == list(range(16))
    assert list(result.train_metrics_clientapp) == list(range(1, 16))
    accuracy = [float(metrics["accuracy"]) for metrics in result.evaluate_metrics_serverapp.values()]  # type: ignore[arg-type]
    assert accuracy[-1] > accuracy[0] + 0.3
    assert list(result.arrays) == list(Net().state_dict())
    assert judge(15, result.arrays) == result.evaluate_metrics_serverapp[15]
    saved = load_file(tmp_path / "run" / "model.safetensors")
    for name, array in result.arrays.items():
        assert torch.equal(saved[name], torch.from_numpy(array.numpy().copy())), name
    assert len(events(tmp_path / "run", "stage")) == 15
    assert [row["count"] for row in events(tmp_path / "run", "aggregate")] == [2] * 15
    found = replay(tmp_path / "run")
    assert found.matches
    assert (found.updates, found.versions, found.from_version) == (30, 15, 0)


def test_nobody_waits_for_a_straggler(tmp_path: Path) -> None:
    """Its one answer comes late, and still counts."""
    app = make_app(delay_s=lambda number: 1.5 if number == 3 else 0.01)
    strategy = flower.FedBuff(buffer_size=2, run_dir=tmp_path / "run", seed=0)
    began = time.monotonic()
    strategy.start(LocalGrid(4, app), first_arrays(), num_rounds=40)
    took_s = time.monotonic() - began
    aggregated = rows(tmp_path / "run", "select at_s from events where kind = 'aggregate' order by id")
    straggler = rows(tmp_path / "run", "select at_s, staleness from events where kind = 'accept' and client = 3")
    before = sum(at_s < straggler[0][0] for (at_s,) in aggregated)
    assert before >= 5
    assert straggler[0][1] == before  # staleness: the versions made meanwhile
    assert took_s < 40 * 1.5 / 2


@pytest.mark.parametrize("name", ["FedBuff", "CA2FL", "FADAS", "FedAsync", "FedFa", "AsyncSGD"])
def test_any_rule_needs_no_model_on_the_server(name: str, tmp_path: Path) -> None:
    """And what it made is recomputed to the bit from what was kept."""
    strategy = getattr(flower, name)(run_dir=tmp_path / "run", keep="all", concurrency=3, seed=3)
    strategy.start(LocalGrid(4), first_arrays(), num_rounds=6)
    found = replay(tmp_path / "run")
    assert found.matches
    assert found.versions == 6


def test_every_rule_has_a_strategy() -> None:
    classes: list[Any] = [
        getattr(flower, name) for name in flower.__all__ if name not in ("Asynchronous", "client_mod")
    ]
    methods = Counter(cls.method for cls in classes)
    assert methods == Counter([*algorithm_classes(), *ALIASES])
    for cls in classes:
        rule = algorithm_classes().get(cls.method)
        assert rule is None or cls.__name__ == rule.__name__


def test_numpy_arrays_by_order(tmp_path: Path) -> None:
    """A list of NumPy arrays has no names: they are the model's in its order."""

    def renamed(node: int, job: int, reply: Message) -> Message:
        values = list(reply.content.array_records["arrays"].values())
        reply.content["arrays"] = ArrayRecord({str(i): value for i, value in enumerate(values)})
        return reply

    how: dict[str, Any] = {"buffer_size": 1, "seed": 0, "min_available_nodes": 1}
    results = [
        flower.FedEcho(model=Net, unlabeled=unlabeled(), **how).start(grid, first_arrays(), num_rounds=3)
        for grid in (LocalGrid(1), LocalGrid(1, change=renamed))
    ]
    assert_equal(results[0].arrays, results[1].arrays)


# -- answers that are no good


def without(key: str) -> Any:
    def change(node: int, job: int, reply: Message) -> Message:
        if node == 0 and job == 0:
            del reply.content.metric_records["metrics"][key]
        return reply

    return change


def reshaped(node: int, job: int, reply: Message) -> Message:
    if node == 0 and job == 0:
        reply.content.array_records["arrays"]["out.bias"] = Array(torch.zeros(11).numpy())
    return reply


def unreadable(node: int, job: int, reply: Message) -> Message:
    if node == 0 and job == 0:
        reply.content.array_records["arrays"]["out.bias"].data = b"no array"
    return reply


def fewer(node: int, job: int, reply: Message) -> Message:
    if node == 0 and job == 0:
        del reply.content.array_records["arrays"]["out.bias"]
    return reply


def no_arrays(node: int, job: int, reply: Message) -> Message:
    if node == 0 and job == 0:
        del reply.content["arrays"]
    return reply


def not_finite(node: int, job: int, reply: Message) -> Message:
    if node == 0 and job == 0:
        reply.content.array_records["arrays"]["out.bias"] = Array(torch.full((10,), torch.nan).numpy())
    return reply


def failing(node: int, job: int, reply: Message) -> Message:
    if node == 0 and job == 0:
        return Message(Error(2, "out of\nmemory"), reply_to=reply)
    return reply


@pytest.mark.parametrize(
    ("change", "kind", "reason"),
    [
        (
            without("num-examples"),
            "refuse",
            "its metrics do not say how many examples it has under 'num-examples' (they are: 'train_loss')",
        ),
        (reshaped, "refuse", "array 'out.bias' is float32[11], not floating-point numbers [10]"),
        (unreadable, "refuse", "array 'out.bias' cannot be read"),
        (fewer, "refuse", "its 8 arrays are not the model's 9: without 1 that it has (out.bias)"),
        (no_arrays, "refuse", "it holds 0 array records and none is called 'arrays'"),
        (not_finite, "refuse", "weights are not finite"),
        (failing, "lost", "error 2: out of memory"),
    ],
)
def test_a_bad_answer_is_recorded_and_the_run_goes_on(
    change: Any, kind: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "FIRST_REST_S", 0.3)
    strategy = flower.FedBuff(buffer_size=2, run_dir=tmp_path / "run", keep="all")
    app = make_app(delay_s=lambda number: 0.1)
    strategy.start(LocalGrid(3, app, change), first_arrays(), num_rounds=15)
    (bad,) = events(tmp_path / "run", kind)
    assert str(bad["reason"]).startswith(reason)
    assert [row["client"] for row in events(tmp_path / "run", "leave")] == [bad["client"]]  # it rests for a while
    assert bad["client"] in {row["client"] for row in events(tmp_path / "run", "accept")}
    assert replay(tmp_path / "run").matches


def test_a_failing_node_is_left_alone_longer_and_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would otherwise be given a task at each of its failures."""
    monkeypatch.setattr(transport, "FIRST_REST_S", 0.5)
    monkeypatch.setattr(transport, "LONGEST_REST_S", 2.0)

    def broken(node: int, job: int, reply: Message) -> Message:
        return Message(Error(2, "always"), reply_to=reply) if node == 0 else reply

    app = make_app(delay_s=lambda number: 0.1)
    grid = LocalGrid(2, app, change=broken)
    strategy = flower.FedBuff(buffer_size=1, run_dir=tmp_path / "run")
    strategy.start(grid, first_arrays(), num_rounds=40)
    lost = rows(tmp_path / "run", "select at_s from events where kind = 'lost' order by id")
    gaps = [b - a for (a,), (b,) in pairwise(lost)]
    assert len(gaps) >= 2
    assert all(gap >= rest_s for gap, rest_s in zip(gaps, (0.5, 1.0, *[2.0] * len(gaps)), strict=False))


def test_a_late_answer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "FIRST_REST_S", 0.1)
    slow = iter([2.0])
    app = make_app(delay_s=lambda number: next(slow, 0.05) if number == 0 else 0.2)
    strategy = flower.FedBuff(buffer_size=2, run_dir=tmp_path / "run", keep="all")
    strategy.start(LocalGrid(2, app), first_arrays(), num_rounds=15, timeout=1.0)
    lost, refused = events(tmp_path / "run", "lost"), events(tmp_path / "run", "refuse")
    assert {row["reason"] for row in lost} == {"no answer within 1 s"}
    assert {row["reason"] for row in refused} == {"already answered, lost or cancelled"}
    assert refused[0]["task"] == lost[0]["task"] == 0
    accepted = [row["task"] for row in events(tmp_path / "run", "accept")]
    assert len(accepted) == len(set(accepted)) == 30
    assert replay(tmp_path / "run").matches


def test_a_superlink_that_is_away_for_a_while(tmp_path: Path) -> None:
    grid = LocalGrid(3, make_app(delay_s=lambda number: 0.3))
    threading.Timer(1.0, lambda: setattr(grid, "broken", True)).start()
    threading.Timer(2.5, lambda: setattr(grid, "broken", False)).start()
    strategy = flower.FedBuff(buffer_size=3, run_dir=tmp_path / "run")
    strategy.start(grid, first_arrays(), num_rounds=10)
    at = [at_s for (at_s,) in rows(tmp_path / "run", "select at_s from events where kind = 'accept'")]
    assert len(at) == 30
    assert max(b - a for a, b in pairwise(at)) > 1.0  # it was away


def test_nodes_come_and_go(tmp_path: Path) -> None:
    """Who comes later is a client more, also for a rule whose arithmetic counts clients; who goes is given nothing."""
    grid = LocalGrid(2, make_app(delay_s=lambda number: 0.1))

    def later() -> None:
        time.sleep(0.7)
        grid.join(5)
        time.sleep(0.7)
        grid.present.remove(1000)

    threading.Thread(target=later, daemon=True).start()
    strategy = flower.CA2FL(buffer_size=2, lr=0.5, run_dir=tmp_path / "run", keep="all", refresh_s=0.2)
    strategy.start(grid, first_arrays(), num_rounds=40)
    joined = rows(tmp_path / "run", "select number, reason from inbox where kind = 'joined' order by seq")
    assert joined == [(0, "1000"), (1, "1001"), (2, "1005")]
    gone = rows(tmp_path / "run", "select at_s from events where kind = 'leave' and client = 0")[0][0]
    assert rows(
        tmp_path / "run", f"select count(*) from events where kind = 'dispatch' and client = 0 and at_s > {gone}"
    ) == [(0,)]
    assert {row["client"] for row in events(tmp_path / "run", "accept")} == {0, 1, 2}
    assert replay(tmp_path / "run").matches


# -- stopping and going on


SERVER = """
import sys, time
sys.path.insert(0, {tests!r})
from flower_nodes import *
import fedecho.flower as flower
grid = LocalGrid(4, make_app(delay_s=lambda number: 0.03 if number else 0.5))
strategy = flower.{strategy}
strategy.start(grid, first_arrays(), num_rounds={versions}, evaluate_fn=judge)
"""


def serve(folder: Path, strategy: str, versions: int) -> subprocess.Popen[bytes]:
    script = SERVER.format(tests=str(TESTS), strategy=strategy.format(folder=str(folder)), versions=versions)
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def test_killed_five_times_nothing_accepted_is_lost_or_counted_twice(tmp_path: Path) -> None:
    """`kill -9` at five moments; each server goes on from the last accepted update."""
    folder = tmp_path / "run"
    settings = "model=Net, unlabeled=unlabeled(), buffer_size=3, keep='all', checkpoint_every_s=0.7, seed=5"
    strategy = f"FedEcho({settings}, run_dir={{folder!r}})"
    kills = 0
    arrived: list[tuple[Any, ...]] = []
    for wait in (0.4, 1.1, 0.2, 1.7, 0.8):
        process = serve(folder, strategy, 100)
        before = len(arrived)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:  # until it accepts something new
            time.sleep(0.05)
            if process.poll() is not None:
                break
            if (folder / "records.sqlite").exists() and (folder / "start.safetensors").exists():
                arrived = rows(folder, "select seq, number from inbox where kind = 'arrived' order by seq")
                if len(arrived) > before:
                    break
        time.sleep(wait)
        assert process.poll() is None, process.communicate()[1].decode()[-2000:]
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
        kept = rows(folder, "select seq, number from inbox where kind = 'arrived' order by seq")
        assert kept[: len(arrived)] == arrived  # what was on disk stays what it was
        arrived = kept
        for seq, _ in kept:
            assert (folder / "updates" / f"{seq:09d}.safetensors").is_file()
    process = serve(folder, strategy, 100)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()[-2000:]
    assert kills == 5
    every = rows(folder, "select seq, number from inbox where kind = 'arrived' order by seq")
    assert every[: len(arrived)] == arrived
    accepted = [row["task"] for row in events(folder, "accept")]
    assert len(accepted) == len(set(accepted)) == 300
    assert set(accepted) <= {number for _, number in every}
    lost = events(folder, "lost")
    assert {row["reason"] for row in lost} == {"server restarted"}
    assert not {row["task"] for row in lost} & set(accepted)
    restarts = {row["version"] for row in lost}
    assert len(restarts) >= 2
    found = replay(folder)
    assert found.matches
    assert (found.updates, found.versions) == (300, 100)


def test_a_finished_run_gives_its_result_again_and_goes_on_with_more_versions(tmp_path: Path) -> None:
    def strategy(**more: Any) -> flower.Asynchronous:
        return flower.FedBuff(buffer_size=2, run_dir=tmp_path / "run", keep="all", **more)

    first = strategy().start(LocalGrid(3), first_arrays(), num_rounds=4, evaluate_fn=judge)
    grid = LocalGrid(3)
    again = strategy().start(grid, first_arrays(), num_rounds=4, evaluate_fn=judge)
    assert not grid.sent  # nobody was asked anything
    assert_equal(first.arrays, again.arrays)
    assert again.evaluate_metrics_serverapp == first.evaluate_metrics_serverapp
    assert again.train_metrics_clientapp == first.train_metrics_clientapp
    more = strategy().start(LocalGrid(3), first_arrays(), num_rounds=7, evaluate_fn=judge)
    assert list(more.evaluate_metrics_serverapp) == list(range(8))
    assert more.evaluate_metrics_serverapp[3] == first.evaluate_metrics_serverapp[3]
    assert replay(tmp_path / "run").versions == 7
    assert replay(tmp_path / "run").matches
    with pytest.raises(
        ConfigError, match=r"holds another run: algorithm.lr was 1.0 and is 0.5; give the same settings"
    ):
        strategy(lr=0.5).start(LocalGrid(3), first_arrays(), num_rounds=7)


def test_a_start_that_failed_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    """Its settings are not those of a run: nobody was asked anything."""
    wrong = flower.FedEcho(model=lambda: nn.Linear(64, 10), unlabeled=torch.zeros(5, 64), run_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match="are not the state_dict of the model"):
        wrong.start(LocalGrid(2), first_arrays(), num_rounds=1)
    right = flower.FedEcho(model=Net, unlabeled=unlabeled(), buffer_size=2, run_dir=tmp_path / "run")
    right.start(LocalGrid(2), first_arrays(), num_rounds=2)
    assert replay(tmp_path / "run").matches


def test_a_state_without_a_checkpoint_is_not_begun_anew(tmp_path: Path) -> None:
    """It would throw away what was accepted."""
    strategy = flower.FedBuff(buffer_size=2, run_dir=tmp_path / "run")
    strategy.start(LocalGrid(2), first_arrays(), num_rounds=2)
    (tmp_path / "run" / "summary.json").unlink()
    for file in (tmp_path / "run").glob("checkpoint-*"):
        file.write_bytes(b"damaged")
    with pytest.raises(RecordError, match="no checkpoint of it can be read: nothing is thrown away"):
        strategy.start(LocalGrid(2), first_arrays(), num_rounds=2)
    assert len(rows(tmp_path / "run", "select * from inbox where kind = 'arrived'")) == 4


def test_only_what_a_checkpoint_does_not_hold_is_kept(tmp_path: Path) -> None:
    strategy = flower.FedBuff(buffer_size=2, run_dir=tmp_path / "run", checkpoint_every_s=0.3)
    app = make_app(delay_s=lambda number: 0.05)
    strategy.start(LocalGrid(3, app), first_arrays(), num_rounds=40)
    assert len(list((tmp_path / "run" / "updates").iterdir())) < 70
    found = replay(tmp_path / "run")
    assert found.matches
    assert 0 < found.from_version < found.versions == 40


def test_the_first_event_and_its_update_are_on_disk_before_they_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedecho.server.server import Server

    seen = []

    def handle(self: Server, event: Any) -> Any:
        inbox = rows(tmp_path / "run", "select seq, kind from inbox order by seq")
        seq, kind = inbox[-1]
        assert kind == type(event).__name__.lower()
        assert kind != "arrived" or (tmp_path / "run" / "updates" / f"{seq:09d}.safetensors").is_file()
        seen.append(kind)
        return real(self, event)

    real = Server.handle
    monkeypatch.setattr(Server, "handle", handle)
    flower.FedBuff(buffer_size=1, run_dir=tmp_path / "run").start(LocalGrid(2), first_arrays(), num_rounds=4)
    assert seen.count("arrived") == 4
    assert len(rows(tmp_path / "run", "select * from inbox")) == len(seen)


# -- our client mod


def flat(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


def test_clients_follow_the_rule(tmp_path: Path) -> None:
    """FedAsync's proximal term: the step is −η(∇ + μ(x − x_start)), computed here by hand."""
    app = make_app([flower.client_mod()])
    strategy = flower.FedAsync(
        mu=0.5, mixing=1.0, run_dir=tmp_path / "run", keep="all", min_available_nodes=1, concurrency=1
    )
    strategy.start(LocalGrid(1, app), first_arrays(), num_rounds=1)
    (file,) = (tmp_path / "run" / "updates").glob("*.safetensors")
    net = Net()
    net.load_state_dict(first_arrays().to_torch_state_dict())
    start = [p.detach().clone() for p in net.parameters()]
    inputs, labels = part(0)
    for batch in torch.arange(len(inputs)).split(20):
        net.zero_grad()
        torch.nn.functional.cross_entropy(net(inputs[batch]), labels[batch]).backward()
        with torch.no_grad():
            for p, s in zip(net.parameters(), start, strict=True):
                assert p.grad is not None
                p -= 0.1 * (p.grad + 0.5 * (p - s))
    torch.testing.assert_close(load_file(file)["weights"], flat(net))


def test_control_variates_go_there_and_back(tmp_path: Path) -> None:
    app = make_app([flower.client_mod()])
    strategy = flower.FedAC(buffer_size=2, run_dir=tmp_path / "run", keep="all", concurrency=2)
    grid = LocalGrid(2, app)
    strategy.start(grid, first_arrays(), num_rounds=4)
    for file in (tmp_path / "run" / "updates").glob("*.safetensors"):
        kept = load_file(file)
        assert kept["extra/c_i"].shape == kept["weights"].shape
        assert kept["extra/c_i"].abs().sum() > 0
    later = [message.content.array_records[EXTRA] for message in grid.sent[4:]]
    assert all(set(record) == {"C", "c_i"} for record in later)
    assert replay(tmp_path / "run").matches


def test_a_rule_that_needs_the_mod_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "FIRST_REST_S", 0.1)
    strategy = flower.FedAC(buffer_size=2, run_dir=tmp_path / "run", concurrency=2)
    with pytest.raises(
        ConfigError, match=r"needs fedecho's client mod, ClientApp\(mods=\[fedecho.flower.client_mod\(\)\]\)"
    ):
        strategy.start(LocalGrid(3), first_arrays(), num_rounds=4)


@pytest.mark.parametrize(("top_k", "shape"), [(0, (60, 10)), (4, (60, 14))])
def test_clients_predict(top_k: int, shape: tuple[int, int], tmp_path: Path) -> None:
    """The same run whether the server or its clients predict, for both mean the same U; in whatever form."""
    results = []
    for who, mods in (("server", []), ("client", [flower.client_mod(Net, unlabeled)])):
        grid = LocalGrid(1, make_app(mods))
        strategy = flower.FedEcho(
            model=Net, unlabeled=unlabeled(), buffer_size=1, predictions=who, seed=0, min_available_nodes=1,
            run_dir=tmp_path / who, keep="all", **({"echo_top_k": top_k} if top_k else {}),
        )  # fmt: skip
        results.append(strategy.start(grid, first_arrays(), num_rounds=4))
        assert replay(tmp_path / who).matches
    for name, array in results[0].arrays.items():
        torch.testing.assert_close(torch.tensor(array.numpy()), torch.tensor(results[1].arrays[name].numpy()))
    kept = [load_file(file) for file in sorted((tmp_path / "client" / "updates").glob("*.safetensors"))]
    assert all(update["predictions"].shape == shape for update in kept)
    assert all("predictions" not in load_file(file) for file in (tmp_path / "server" / "updates").iterdir())


@pytest.mark.parametrize(
    ("mod", "why"),
    [
        (flower.client_mod(Net, lambda: unlabeled(59)), "`unlabeled` is not the server's"),
        (flower.client_mod(), "the server asks for predictions: give client_mod `model` and `unlabeled`"),
    ],
)
def test_a_client_whose_public_set_is_another_is_lost(mod: Any, why: str, tmp_path: Path) -> None:
    def only_first(message: Message, context: Any, call_next: Any) -> Message:
        wanted = int(context.node_config["partition-id"]) == 0
        return mod(message, context, call_next) if wanted else call_next(message, context)

    strategy = flower.FedEcho(
        model=Net, unlabeled=unlabeled(), buffer_size=2, predictions="client", run_dir=tmp_path / "run"
    )
    strategy.start(LocalGrid(3, make_app([only_first])), first_arrays(), num_rounds=5)
    (lost,) = {str(row["reason"]) for row in events(tmp_path / "run", "lost")}
    assert lost.startswith(f"error 6: fedecho: {why}")
    assert {row["client"] for row in events(tmp_path / "run", "accept")} == {
        1,
        2,
    }  # without the mod the server predicts


def test_mods_of_flowers_keep_working(tmp_path: Path) -> None:
    """Local differential privacy on the clients, beside ours: the update that arrives is the clipped and noised one."""
    mods = [flower.client_mod(Net, unlabeled), LocalDpMod(clipping_norm=0.01, sensitivity=0.0, epsilon=1.0, delta=0.1)]
    strategy = flower.FedEcho(
        model=Net, unlabeled=unlabeled(), buffer_size=2, predictions="client", run_dir=tmp_path / "run", keep="all"
    )
    strategy.start(LocalGrid(2, make_app(mods)), first_arrays(), num_rounds=3)
    norms = [row["change_norm"] for row in events(tmp_path / "run", "accept")]
    assert norms
    assert all(0 < norm <= 0.0101 for norm in norms)
    for file in (tmp_path / "run" / "updates").iterdir():
        kept = load_file(file)
        arrays = Arrays(first_arrays())
        net = Net().eval()
        net.load_state_dict(arrays.tensors(Model(1, kept["weights"], kept["buffers"])))
        with torch.no_grad():
            torch.testing.assert_close(kept["predictions"], net(unlabeled()))  # of what was sent, noise and all


def test_flowers_synchronous_privacy_wrapper_is_refused() -> None:
    inner = flower.FedBuff(buffer_size=2)
    wrapped = DifferentialPrivacyServerSideFixedClipping(inner, 1.0, 1.0, 2)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"FedBuff has no rounds, .* would make it synchronous; call its own start"):
        wrapped.start(LocalGrid(2), first_arrays(), num_rounds=2)
    with pytest.raises(ConfigError, match="has no rounds"):
        inner.aggregate_train(1, [])
    with pytest.raises(ConfigError, match="has no rounds"):
        inner.aggregate_evaluate(1, [])


# -- evaluation on clients


def test_clients_evaluate_and_nobody_waits(tmp_path: Path) -> None:
    strategy = flower.FedBuff(buffer_size=2, run_dir=tmp_path / "run", fraction_evaluate=0.5, evaluate_every=2)
    grid = LocalGrid(4, make_app(delay_s=lambda number: 0.2))
    config = ConfigRecord({"hint": "all"})
    result = strategy.start(grid, first_arrays(), num_rounds=8, evaluate_config=config)
    asked = [message for message in grid.sent if message.metadata.message_type == "evaluate"]
    assert len(asked) == 8  # versions 2, 4, 6 and 8; two of four nodes each
    assert {int(str(message.content["config"]["server-round"])) for message in asked} == {2, 4, 6, 8}
    assert all(message.content["config"]["hint"] == "all" for message in asked)
    found = result.evaluate_metrics_clientapp
    assert found
    assert set(found) <= {2, 4, 6}
    assert all(metrics == {"eval_acc": 0.25} for metrics in map(dict, found.values()))
    busy = [len(grid.sent), len(asked)]
    assert busy[0] - busy[1] >= 16


def test_server_round_is_the_version_to_be_made(tmp_path: Path) -> None:
    grid = LocalGrid(2)
    config = ConfigRecord({"lr": 0.1})
    flower.FedBuff(buffer_size=1, concurrency=1).start(grid, first_arrays(), num_rounds=4, train_config=config)
    told = [dict(message.content["config"]) for message in grid.sent]
    assert told == [{"lr": 0.1, "server-round": i} for i in range(1, 5)]
    assert list(grid.sent[0].content) == ["arrays", "config"]  # as FedAvg writes it, and no more
    assert dict(config) == {"lr": 0.1}


# -- what cannot be


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: flower.FedBuff(lr=-1.0), "algorithm.lr is -1.0; it must be above 0 and finite"),
        (lambda: flower.FedBuff(buffer_sise=2), "algorithm.buffer_sise is not a setting (did you mean 'buffer_size'?)"),
        (lambda: flower.FedEcho(echo_alpha_min=0.9, echo_alpha_max=0.1), "stages.alpha_min (0.9) exceeds"),
        (lambda: flower.Asynchronous("fedbuf"), "algorithm 'fedbuf' is unknown"),
        (lambda: flower.FedBuff("ca2fl"), "FedBuff is fedbuff; give `method` to Asynchronous"),
        (lambda: flower.FedAvg(), "fedavg needs to know how many nodes work at once: give `concurrency`, or `cohort`"),
        (lambda: flower.FedEcho(predictions="nobody"), "predictions is 'nobody'; it must be 'server' or 'client'"),
        (lambda: flower.FedBuff(fraction_evaluate=2.0), "fraction_evaluate is 2.0; it must be from 0 to 1"),
        (lambda: flower.FedBuff(min_available_nodes=0), "min_available_nodes is 0; it must be at least 1"),
        (lambda: flower.FedBuff(server={"ema": 1.0}), "server.ema is 1.0; it must be at least 0 and below 1"),
    ],
)
def test_settings_that_cannot_be(make: Any, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({}, "fedbuff+echo learns on the server: give it `model`"),
        ({"model": Net}, "fedbuff+echo needs `unlabeled`: give it the public inputs"),
        ({"model": Net, "unlabeled": torch.zeros(0, 1, 8, 8)}, "fedbuff+echo needs `unlabeled`"),
        ({"model": Net, "unlabeled": torch.zeros(5, 3, 3)}, "the model cannot take `unlabeled` [n, (3, 3)]"),
        ({"model": lambda: nn.Flatten(), "unlabeled": torch.zeros(5, 3)}, "trainable parameters"),
        (
            {"model": lambda: nn.Linear(64, 10), "unlabeled": torch.zeros(5, 64)},
            "are not the state_dict of the model",
        ),
    ],
)
def test_parts_that_do_not_fit(settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        flower.FedEcho(**settings).start(LocalGrid(2), first_arrays(), num_rounds=1)
    assert fault in str(caught.value)


def test_arrays_without_a_float() -> None:
    with pytest.raises(ConfigError, match="initial_arrays hold no float array"):
        Arrays(ArrayRecord({"steps": Array(torch.zeros(3, dtype=torch.int64).numpy())}))


def test_arrays_keep_their_types() -> None:
    """Halves and doubles go out as they came; counters do not travel back."""
    given = {
        "a": torch.tensor([1.5, 2.5], dtype=torch.float64),
        "b": torch.tensor([[0.5]], dtype=torch.float16),
        "steps": torch.tensor(7),
        "n.running_mean": torch.tensor([3.0]),
    }
    arrays = Arrays(ArrayRecord({name: Array(value.numpy()) for name, value in given.items()}))
    assert arrays.initial.weights.tolist() == [1.5, 2.5, 0.5]
    assert arrays.initial.buffers.tolist() == [3.0]
    moved = Model(1, arrays.initial.weights + 1, arrays.initial.buffers * 2)
    out = arrays.record(moved)
    assert [array.dtype for array in out.values()] == ["float64", "float16", "int64", "float32"]
    assert [array.numpy().tolist() for array in out.values()] == [[2.5, 3.5], [[1.5]], 7, [6.0]]
    weights, buffers = arrays.read(out)
    assert torch.equal(weights, moved.weights)
    assert torch.equal(buffers, moved.buffers)


def test_the_digest_tells_shapes_and_values_apart() -> None:
    x = torch.arange(6.0)
    assert digest(x) == digest(x.double()) == digest(x.clone())
    assert len({digest(x), digest(x.view(2, 3)), digest(x.flip(0))}) == 3


def test_a_model_without_a_name_is_replayed_from_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strategy = flower.FedEcho(
        model=lambda: Net(), unlabeled=unlabeled(), buffer_size=2, run_dir=tmp_path / "run", keep="all"
    )
    strategy.start(LocalGrid(2), first_arrays(), num_rounds=3)
    with pytest.raises(ConfigError, match="does not say how its model is built"):
        replay(tmp_path / "run")
    assert replay(tmp_path / "run", model=Net).matches


def test_without_flower_the_error_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "flwr.py").write_text("raise ImportError('no flwr here')\n")
    script = "import fedecho\ntry:\n    import fedecho.flower\nexcept fedecho.MissingExtra as fault:\n    print(fault)"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert "pip install 'fedecho[flower]'" in done.stdout
    assert MissingExtra("x", "flower").extra == "flower"
