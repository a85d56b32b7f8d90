"""What one client can do to a live federation: each answer is refused with its reason, and the run goes on."""

from __future__ import annotations

import io
import logging
import os
import time
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fedecho import ConfigError, replay

pytest.importorskip("flwr", reason="Flower needs Python 3.11 or later")

from flower_runs import Change, assert_equal, at, events, rows
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict

import fedecho.flower as flower
from fedecho.flower import transport
from fedecho.flower.codec import LARGEST_LOGIT, PREDICTIONS
from fedecho.flower.couriers import error_of
from fedecho.flower.wire import MOST_METRICS, Unreadable, decode, metrics_of, printable
from flower_nodes import LocalGrid, Net, first_arrays, judge, make_app, unlabeled


@pytest.fixture(autouse=True)
def short_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "FIRST_REST_S", 0.2)
    monkeypatch.setattr(transport, "LONGEST_REST_S", 1.0)


def header(description: str, body: bytes = b"") -> bytes:
    """A NumPy file of version 1.0 whose header is `description`."""
    text = description.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


def array_of(data: bytes) -> Array:
    return Array("float32", (10,), "numpy.ndarray", data)


def promise(dtype: str, shape: str) -> bytes:
    return header(f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}")


def saved(values: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


FORGED = {
    "void of 10^15 elements": promise("|V0", "(1000000000000000,)"),
    "strings of 1.5e9 elements": promise("|S0", "(1500000000,)"),
    "floats of 10^15 elements": promise("<f4", "(1000000000000000,)"),
    "objects": promise("|O", "(10,)"),
    "a promise without a body": promise("<f4", "(10,)"),
    "too few bytes": saved(np.zeros(10, np.float32))[:-1],
    "too many bytes": saved(np.zeros(10, np.float32)) + b"\0",
    "no magic": b"no array",
    "nothing": b"",
    "a header of megabytes": b"\x93NUMPY\x02\x00" + (5_000_000).to_bytes(4, "little") + b" " * 5_000_000,
    "code in the header": header("__import__('os').abort()"),
    "negative shape": promise("<f4", "(-10,)"),
    "whole numbers": saved(np.zeros(10, np.int64)),
    "complex numbers": saved(np.zeros(10, np.complex64)),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_array_is_judged_before_it_is_decoded(name: str) -> None:
    tracemalloc.start()
    began = time.monotonic()
    try:
        with pytest.raises(Unreadable, match=r"^array 'out\.bias' "):
            decode(array_of(FORGED[name]), "out.bias", (10,))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < 5
    assert peak < 30_000_000  # a header of 5 MB is read once by NumPy's reader; nothing that it promises is allocated


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", "<f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_layout_is_read_right(dtype: str, order: Any) -> None:
    values = np.arange(12.0).reshape(3, 4).astype(dtype, order=order)
    tensor = decode(array_of(saved(values)), "w", (3, 4))
    assert tensor.tolist() == values.tolist()
    assert tensor.is_contiguous()


def run(folder: Path, change: Change, nodes: int = 3, versions: int = 8, delay_s: float = 0.05, **more: Any) -> Any:
    """A run in which one node's answers are changed on their way; it must come to its end and be replayed."""
    strategy = flower.Asynchronous(
        **{"method": "fedbuff", "buffer_size": 2, "run_dir": folder, "keep": "all", "seed": 0, **more}
    )
    app = make_app(delay_s=lambda number: delay_s)
    result = strategy.start(LocalGrid(nodes, app, change), first_arrays(), num_rounds=versions, evaluate_fn=judge)
    assert max(result.evaluate_metrics_serverapp) == versions
    assert replay(folder).matches
    return result


def with_array(name: str, array: Array) -> Callable[[Message], None]:
    def change(reply: Message) -> None:
        reply.content.array_records["arrays"][name] = array

    return change


def with_values(name: str, value: float) -> Callable[[Message], None]:
    def change(reply: Message) -> None:
        old = reply.content.array_records["arrays"][name].numpy()
        reply.content.array_records["arrays"][name] = Array(np.full_like(old, value))

    return change


def with_examples(count: float) -> Callable[[Message], None]:
    def change(reply: Message) -> None:
        reply.content.metric_records["metrics"]["num-examples"] = count

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_array("out.bias", array_of(FORGED["void of 10^15 elements"])), "array 'out.bias' is |V0[10000000000000"),
        (with_array("out.bias", array_of(FORGED["strings of 1.5e9 elements"])), "array 'out.bias' is |S0[1500000000]"),
        (with_array("out.bias", array_of(FORGED["too few bytes"])), "array 'out.bias' promises 40 bytes, and carries"),
        (with_array("surplus.weight", array_of(b"")), "its 10 arrays are not the model's 9: 1 that it lacks (surplus"),
        (with_array("x" * 5_000_000, array_of(b"")), "its 10 arrays are not the model's 9: 1 that it lacks (…xxxx"),
        (with_examples(1e300), "its example count ('num-examples') is 1e+300, not a whole number from 1"),
        (with_examples(0), "its example count ('num-examples') is 0, not"),
        (with_examples(-5), "its example count ('num-examples') is -5, not"),
        (with_examples(1.5), "its example count ('num-examples') is 1.5, not"),
        (with_examples(float("inf")), "its example count ('num-examples') is inf, not"),
        (with_values("norm.running_mean", 1e30), "array 'norm.running_mean' holds statistics of batch norm that are"),
        (with_values("norm.running_var", -1.0), "array 'norm.running_var' holds a negative variance"),
        (with_values("norm.running_var", float("nan")), "array 'norm.running_var' holds statistics of batch norm"),
        (with_values("out.bias", float("nan")), "weights are not finite"),
        (with_values("out.bias", 1e5), "change has an absurd norm"),
    ],
)
def test_the_answer_is_refused_and_the_run_goes_on(
    change: Callable[[Message], None], reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="flwr"):
        run(tmp_path / "run", at(change))
    (refused,) = events(tmp_path / "run", "refuse")
    assert refused["reason"].startswith(reason)
    assert len(refused["reason"]) < 400
    assert events(tmp_path / "run", "leave")[0]["client"] == refused["client"]  # its node rests
    assert refused["client"] in {row["client"] for row in events(tmp_path / "run", "accept")}  # and comes back
    assert sum(refused["reason"][:40] in record.getMessage() for record in caplog.records) == 1


def test_statistics_are_judged_with_a_model_on_the_server_too(tmp_path: Path) -> None:
    run(
        tmp_path / "run", at(with_values("norm.running_mean", 1e30)), method="fedecho", model=Net, unlabeled=unlabeled()
    )
    (refused,) = events(tmp_path / "run", "refuse")
    assert refused["reason"].startswith("array 'norm.running_mean' holds statistics of batch norm")


# -- counts under another name


def test_counts_under_another_name_end_the_run_after_three_answers(tmp_path: Path) -> None:
    def renamed(node: int, job: int, reply: Message) -> Message:
        metrics = reply.content.metric_records["metrics"]
        metrics["num_samples"] = metrics.pop("num-examples")
        return reply

    with pytest.raises(ConfigError, match=r"none of the first 3 answers .*'num_samples'.*weighted_by_key="):
        run(tmp_path / "run", renamed)
    run(tmp_path / "named", renamed, weighted_by_key="num_samples")
    assert {row["num_examples"] for row in events(tmp_path / "named", "accept")} == {80}


# -- predictions


def with_predictions(*arrays: torch.Tensor) -> Callable[[Message], None]:
    def change(reply: Message) -> None:
        named = {f"predictions{i}": Array(value.numpy()) for i, value in enumerate(arrays)}
        reply.content[PREDICTIONS] = ArrayRecord(named)

    return change


def forged_column(size: float) -> torch.Tensor:
    logits = torch.zeros(60, 10)
    logits[:, 3] = size
    return logits


@pytest.mark.parametrize("size", [1e6, 1e30])
def test_predictions_that_nobody_asked_for_do_not_count(size: float, tmp_path: Path) -> None:
    """One of nine forges a column; with one node at work at a time the run is the honest one to the bit."""
    results = []
    for name, change in (
        ("honest", at(lambda reply: None)),
        ("forged", at(with_predictions(forged_column(size)), job=None)),
    ):
        more: dict[str, Any] = {"method": "fedecho", "model": Net, "unlabeled": unlabeled(), "concurrency": 1}
        results.append(run(tmp_path / name, change, nodes=9, versions=12, delay_s=0.0, **more))
    assert not events(tmp_path / "forged", "refuse")
    assert all("predictions" not in load_file(file) for file in (tmp_path / "forged" / "updates").iterdir())
    assert_equal(results[0].arrays, results[1].arrays)


@pytest.mark.parametrize(
    ("predictions", "reason"),
    [
        ((), "its record 'fedecho.predictions' holds 0 arrays, not one"),
        ((torch.zeros(60, 10), torch.zeros(60, 10)), "its record 'fedecho.predictions' holds 2 arrays, not one"),
        ((torch.zeros(59, 10),), "array 'predictions' is float32[59, 10], not floating-point numbers [60, 10]"),
        ((forged_column(1e6),), "its predictions hold a logit of size 1e+06, above 1e+03"),
        ((forged_column(float("nan")),), "predictions are not finite"),
    ],
)
def test_predictions_that_cannot_be_used(predictions: tuple[torch.Tensor, ...], reason: str, tmp_path: Path) -> None:
    more: dict[str, Any] = {"method": "fedecho", "model": Net, "unlabeled": unlabeled()}
    run(tmp_path / "asked", at(with_predictions(*predictions)), predictions="client", **more)
    (refused,) = events(tmp_path / "asked", "refuse")
    assert refused["reason"] == reason
    assert LARGEST_LOGIT == 1e3
    run(tmp_path / "not_asked", at(with_predictions(*predictions)))
    assert not events(tmp_path / "not_asked", "refuse")


def test_arrays_that_nobody_asked_for_do_not_swell_the_folder(tmp_path: Path) -> None:
    def swollen(reply: Message) -> None:
        reply.content["fedecho.extra"] = ArrayRecord({"big": Array(np.zeros(2_000_000, np.float32))})

    run(tmp_path / "run", at(swollen, job=None))
    assert not events(tmp_path / "run", "refuse")
    assert sum(file.stat().st_size for file in (tmp_path / "run").rglob("*") if file.is_file()) < 2_000_000


# -- a node that is always refused


def test_a_refused_node_rests_longer_and_longer(tmp_path: Path) -> None:
    """It would otherwise be given its next task at once, and fill the ledger of recent norms."""
    run(tmp_path / "run", at(with_values("out.bias", float("nan")), job=None), versions=30, delay_s=0.1)
    refused = rows(tmp_path / "run", "select client, at_s from events where kind = 'refuse' order by id")
    assert len({client for client, _ in refused}) == 1
    gaps = [later - earlier for (_, earlier), (_, later) in pairwise(refused)]
    assert len(gaps) >= 2
    assert all(gap >= rest_s for gap, rest_s in zip(gaps, (0.2, 0.4, 0.8, *[1.0] * len(gaps)), strict=False))
    assert {row["reason"] for row in events(tmp_path / "run", "lost")} <= {transport.RESTS}


# -- records and logs


def test_names_from_clients_cannot_forge_log_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def forged(reply: Message) -> None:
        metrics = reply.content.metric_records["metrics"]
        metrics["loss\n[VERSION 9/9] 99 updates"] = 1.0
        metrics["\x1b[2J\x1b]0;title\x07"] = 2.0
        metrics["change_norm"] = 77.0
        metrics["waited_s"] = 77.0
        metrics["num_examples"] = 77.0

    with caplog.at_level(logging.INFO, logger="flwr"):
        run(tmp_path / "run", at(forged, job=None))
    assert not any("\n" in record.getMessage() or "\x1b" in record.getMessage() for record in caplog.records)
    for accepted in events(tmp_path / "run", "accept"):
        assert all(name.isprintable() for name in accepted)
        assert accepted["num_examples"] == 80
        assert 77.0 not in (accepted["change_norm"], accepted["waited_s"])
    assert any(accepted.get("client_change_norm") == 77.0 for accepted in events(tmp_path / "run", "accept"))


def test_metrics_are_bounded(tmp_path: Path) -> None:
    def swollen(reply: Message) -> None:
        reply.content["more"] = MetricRecord({f"metric {i}": float(i) for i in range(20_000)})

    run(tmp_path / "run", at(swollen, job=None))
    assert not events(tmp_path / "run", "refuse")
    assert max(len(accepted) for accepted in events(tmp_path / "run", "accept")) <= MOST_METRICS + 10
    assert (tmp_path / "run" / "records.sqlite").stat().st_size < 1_000_000


def test_metrics_that_are_no_numbers_are_left_out() -> None:
    content = RecordDict({"m": MetricRecord({"a": 1.0, "b": float("nan"), "c": [1.0, 2.0], "d": 10**400})})
    assert metrics_of(content) == {"a": 1.0}


def test_a_long_text_keeps_its_end() -> None:
    assert printable("a\x00b\nc") == "a b c"
    assert printable("x" * 1000 + "end", 20) == "…" + "x" * 16 + "end"
    reply = Message(
        Error(2, "ray preamble " * 100 + "ValueError: the client's own text"),
        reply_to=Message(RecordDict(), 1, "train"),
    )
    assert error_of(reply).endswith("ValueError: the client's own text")
    assert len(error_of(reply)) < 350


def test_an_evaluation_with_an_absurd_count_does_not_count(tmp_path: Path) -> None:
    def absurd(reply: Message) -> None:
        metrics = reply.content.metric_records["metrics"]
        if "eval_acc" in metrics:
            metrics["eval_acc"], metrics["num-examples"] = 0.99, 1e300

    result = run(tmp_path / "run", at(absurd, job=None), fraction_evaluate=1.0, delay_s=0.2)
    assert result.evaluate_metrics_clientapp
    assert {metrics["eval_acc"] for metrics in result.evaluate_metrics_clientapp.values()} == {0.25}


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o022, 0o644)])
def test_what_clients_sent_is_private(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        run(tmp_path / "run", at(lambda reply: None), versions=2)
    finally:
        os.umask(before)
    updates = tmp_path / "run" / "updates"
    assert updates.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in updates.iterdir()} == {0o600}
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "run").glob("*.safetensors")} == {mode}
