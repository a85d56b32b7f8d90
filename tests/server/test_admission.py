"""What is let in: whatever arrives is judged by kind first, refused with a word and a reason, and leaves nothing."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any, get_args

import numpy as np
import pytest
import torch

from fedecho.algorithms.fedac import FedAC
from fedecho.algorithms.fedbuff import FedBuff
from fedecho.core.messages import Arrived, Lost, Rejected
from fedecho.server.admission import MAX_EXAMPLES, MAX_METRICS, RefusalKind
from fedecho.stages.echo import Echo
from helpers import Hand, Quadratics, through_json, vec

NAN, INF = math.nan, math.inf


def server() -> Hand:
    """A model of three weights and one buffer, whose clients send 4 predictions of 3 classes."""
    compute = Quadratics(torch.zeros(1, 3), unlabeled=torch.ones(4, 1))
    return Hand(FedBuff(2), d=3, buffers=1, stages=[Echo(steps=1)], compute=compute, outputs=(4, 3))


def good() -> dict[str, Any]:
    return {"predictions": torch.zeros(4, 3)}


def odd_tensors() -> dict[str, Any]:
    with warnings.catch_warnings():  # torch calls some of these experimental
        warnings.simplefilter("ignore")
        return {
            "nothing": None,
            "list": [1.0, 2.0],
            "tuple": (1.0, 2.0),
            "numpy": np.ones(2, dtype=np.float32),
            "number": 1.0,
            "text": "weights",
            "bytes": b"\0" * 8,
            "dict": {"weights": [1.0, 2.0]},
            "sparse": torch.eye(2).to_sparse(),
            "sparse row": vec(1, 2).to_sparse(),
            "csr": torch.eye(2).to_sparse_csr(),
            "meta": torch.ones(2, device="meta"),
            "gradient": vec(1, 2).requires_grad_(),
            "parameter": torch.nn.Parameter(vec(1, 2)),
            "graph": vec(1, 2).requires_grad_() * 2,
            "quantized": torch.quantize_per_tensor(vec(1, 2), 0.1, 0, torch.qint8),
            "nested": torch.nested.nested_tensor([vec(1), vec(1, 2)]),
            "class": torch.Tensor,
        }


TENSORS = odd_tensors()
"""No plain tensors: refused as `type` wherever a tensor is wanted."""

DTYPES = [
    torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.int64, torch.bool, torch.bfloat16, torch.float16,
    torch.float64,
]  # fmt: skip


def refused(hand: Hand, changed: Mapping[str, Any]) -> tuple[str, str]:
    """The kind and reason of the refusal of an answer that is good but for what is changed; the state is as before."""
    task = hand.waiting[0]
    before = hand.server.snapshot()
    hand.arrive(task, **{**good(), **changed})
    after = hand.server.state
    entry = hand.log.of("refuse")[-1]
    json.dumps(dict(entry.detail))
    assert (entry.task, entry.client) == (task, hand.sent[task].task.client)
    assert (after.model, after.algorithm, after.stages) == (before.model, before.algorithm, before.stages)
    assert (after.updates, after.refused) == (before.updates, before.refused + 1)
    assert after.norms.latest == before.norms.latest, "it does not count as what is usual"
    assert task not in hand.waiting
    assert len(hand.waiting) == 3, "the freed slot has new work"
    kind = str(entry.detail["refusal"])
    assert kind in get_args(RefusalKind)
    assert after.refusals[kind] == before.refusals.get(kind, 0) + 1
    return kind, str(entry.detail["reason"])


@pytest.mark.parametrize("part", ["weights", "buffers", "predictions"])
@pytest.mark.parametrize("case", TENSORS)
def test_what_is_no_plain_tensor_is_refused(part: str, case: str) -> None:
    if (part, case) == ("predictions", "nothing"):
        pytest.skip("no predictions: the server makes them")
    hand = server()
    kind, reason = refused(hand, {part: TENSORS[case]})
    assert kind == "type"
    assert reason.startswith(f"{part} must be a dense tensor on cpu without gradients; got ")
    hand.arrive(hand.waiting[0], **good())
    hand.arrive(hand.waiting[0], **good())
    assert hand.server.model.version == 1, "the run goes on"
    assert not hand.server.model.weights.requires_grad


@pytest.mark.parametrize("part", ["weights", "buffers", "predictions"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_another_type_of_numbers_is_refused(part: str, dtype: torch.dtype) -> None:
    shape = {"weights": (3,), "buffers": (1,), "predictions": (4, 3)}[part]
    if part == "predictions" and dtype in (torch.bfloat16, torch.float16, torch.float64):
        return  # logits may come in these
    kind, reason = refused(server(), {part: torch.zeros(shape).to(dtype)})
    assert kind == "dtype"
    assert str(dtype) in reason


@pytest.mark.parametrize(
    ("changed", "kind", "reason"),
    [
        ({"num_examples": None}, "examples", "num_examples is a NoneType, not a whole number"),
        ({"num_examples": "5"}, "examples", "num_examples is a str, not a whole number"),
        ({"num_examples": 5 + 0j}, "examples", "num_examples is a complex, not a whole number"),
        ({"num_examples": True}, "examples", "num_examples is a bool, not a whole number"),
        ({"num_examples": torch.tensor(5)}, "examples", "num_examples is a Tensor, not a whole number"),
        ({"num_examples": 2.5}, "examples", "num_examples is 2.5, not a whole number"),
        ({"num_examples": Fraction(7, 2)}, "examples", "num_examples is 3.5, not a whole number"),
        ({"num_examples": 1e308}, "examples", "num_examples is 1e+308"),
        ({"num_examples": 10**5000}, "examples", "num_examples is inf"),
        ({"num_examples": MAX_EXAMPLES + 1}, "examples", "num_examples is 1.09951e+12"),
        ({"metrics": None}, "metrics", "metrics must be numbers by name; got a NoneType"),
        ({"metrics": [("loss", 1.0)]}, "metrics", "metrics must be numbers by name; got a list"),
        ({"metrics": {"loss": "0.5"}}, "metrics", "metric 'loss' is a str, not a number"),
        ({"metrics": {"loss": b"0.5"}}, "metrics", "metric 'loss' is a bytes, not a number"),
        ({"metrics": {"loss": None}}, "metrics", "metric 'loss' is a NoneType, not a number"),
        ({"metrics": {"loss": torch.tensor(0.5)}}, "metrics", "metric 'loss' is a Tensor, not a number"),
        ({"metrics": {"loss": [0.5]}}, "metrics", "metric 'loss' is a list, not a number"),
        ({"metrics": {"loss": 0.5j}}, "metrics", "metric 'loss' is a complex, not a number"),
        ({"metrics": {"loss": True}}, "metrics", "metric 'loss' is a bool, not a number"),
        ({"metrics": {"n": 10**400}}, "metrics", "metric 'n' is larger than any float"),
        ({"metrics": {3: 0.5}}, "metrics", "a metric's name must be printable and of at most 128 characters"),
        ({"metrics": {"a\nb": 0.5}}, "metrics", "a metric's name must be printable and of at most 128 characters"),
        ({"metrics": {"\x1b[2J": 0.5}}, "metrics", "a metric's name must be printable and of at most 128 characters"),
        ({"metrics": {"x" * 129: 0.5}}, "metrics", "a metric's name must be printable and of at most 128 characters"),
        (
            {"metrics": {f"m{i}": 0.0 for i in range(MAX_METRICS + 1)}},
            "metrics",
            "65 metrics came; at most 64 are recorded",
        ),
        ({"extra": None}, "type", "extra must be names with values; got a NoneType"),
        ({"extra": {1: 2.0}}, "type", "extra must be short names with values"),
        ({"extra": {"v": NAN}}, "not_finite", "'v' is not finite"),
        ({"extra": {"v": vec(1, INF)}}, "not_finite", "'v' is not finite"),
        ({"extra": {"v": torch.zeros(99)}}, "size", "'v' holds 99 numbers, more than the model's 3"),
        ({"extra": {"v": torch.zeros(2).to(torch.complex64)}}, "dtype", "'v' has dtype torch.complex64, no usual one"),
        ({"predictions": torch.full((4, 3), 1e30)}, "size", "predictions hold 1e+30, beyond ±1e+06"),
        (
            {"predictions": torch.full((4, 3), -1e300, dtype=torch.float64)},
            "size",
            "predictions hold -1e+300, beyond ±1e+06",
        ),
        ({"predictions": torch.zeros(4, 3).short()}, "dtype", "predictions are torch.int16: logits are wanted"),
        ({"predictions": torch.zeros(12)}, "shape", "predictions have shape (12,), not (4, 3)"),
        ({"weights": vec(1e30, 1e30, 0)}, "not_finite", "weights are not finite"),
        ({"weights": vec(NAN, 0, 0)}, "not_finite", "weights are not finite"),
        ({"weights": vec(3e4, 4e4, 0)}, "norm", "change has an absurd norm, 5e+04 > 1e+04"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_used_is_refused_with_a_word_and_a_reason(
    changed: dict[str, Any], kind: str, reason: str
) -> None:
    assert refused(server(), changed) == (kind, reason)


def test_any_part_may_be_anything_without_a_traceback() -> None:
    """Each part of an answer in turn is each of many things; none is accepted, and good answers still are."""
    things = [*TENSORS.values(), {}, set(), object(), 10**5000, NAN, "\ud800", {"a": {}}, torch.zeros(0, 3), iter(())]
    hand = server()
    for part in ("weights", "buffers", "predictions", "num_examples", "metrics", "extra"):
        for thing in things:
            allowed = (
                (part in ("metrics", "extra") and isinstance(thing, dict) and not thing)
                or (part == "predictions" and thing is None)
                or (part == "num_examples" and isinstance(thing, float) and thing == 1.0)
            )
            if not allowed:
                refused(hand, {part: thing})
    hand.arrive(hand.waiting[0], **good())
    assert hand.server.state.updates == 1
    through_json(hand.server.snapshot())


@pytest.mark.parametrize("number", [None, "0", [0], 0.0, True, -1, 999, 10**400, torch.tensor(0)])
def test_an_answer_to_what_is_no_task_is_refused(number: Any) -> None:
    hand = server()
    hand.event(Arrived(1.0, replace(hand.update(0, **good()), task=number)))
    hand.event(Rejected(1.0, number, "no"))
    assert hand.log.reasons == ["unknown task"] * 2
    assert hand.server.state.refusals == {"task": 2}
    assert hand.server.state.updates == 0
    assert hand.waiting == [0, 1, 2]


def test_what_is_no_answer_at_all_is_refused() -> None:
    hand = server()
    hand.event(Arrived(1.0, "hello"))  # type: ignore[arg-type]
    assert hand.log.reasons == ["unknown task"]
    hand.event(Lost(1.0, [1], "dropout"))  # type: ignore[arg-type]
    assert hand.waiting == [0, 1, 2]


def test_what_a_rules_clients_report_is_judged_by_kind_too() -> None:
    hand = Hand(FedAC(buffer_size=3), clients=6)
    for value in (None, [0.0, 0.0], vec(1, 2).to_sparse(), vec(1, 2).requires_grad_(), vec(1, 2).to(torch.complex64)):
        hand.arrive(hand.waiting[0], extra={"c_i": value})
    assert hand.server.state.refusals == {"type": 4, "dtype": 1}
    hand.arrive(hand.waiting[0], extra={"c_i": vec(1, 2)})
    assert hand.server.state.updates == 1


def test_numbers_of_other_libraries_are_taken_as_plain_numbers() -> None:
    hand = server()
    metrics = {"loss": np.float32(0.5), "steps": np.int64(3), "share": Fraction(1, 2), "odd": NAN}
    hand.arrive(0, **good(), num_examples=np.int64(7), metrics=metrics)
    (entry,) = hand.log.of("accept")
    assert entry.detail["num_examples"] == 7
    assert [type(value) for value in entry.detail.values()] == [int] + [float] * 6
    json.dumps(dict(entry.detail))


def test_the_servers_own_numbers_are_not_overwritten_by_metrics() -> None:
    hand = server()
    mine = {"change_norm": 1e9, "num_examples": -1.0, "waited_s": -5.0, "loss": 0.25}
    hand.arrive(0, at_s=4.0, delta=vec(0, 3, 4), **good(), num_examples=6, metrics=mine)
    (entry,) = hand.log.of("accept")
    assert entry.detail == {
        "num_examples": 6, "waited_s": 4.0, "change_norm": 5.0, "loss": 0.25,
        "client.change_norm": 1e9, "client.num_examples": -1.0, "client.waited_s": -5.0,
    }  # fmt: skip


def test_refusals_in_a_row_are_counted_by_client() -> None:
    hand = Hand(FedBuff(1), clients=1)
    for changed in ({"num_examples": 0}, {"weights": None}, {}, {"weights": vec(NAN, 0)}):
        hand.arrive(hand.waiting[0], **changed)
    hand.event(Rejected(1.0, hand.waiting[0], "no arrays"))
    assert [entry.detail["in_a_row"] for entry in hand.log.of("refuse")] == [1, 2, 1, 2]
    assert [entry.detail["refusal"] for entry in hand.log.of("refuse")] == [
        "examples", "type", "not_finite", "unreadable",
    ]  # fmt: skip
    assert hand.server.state.refused_in_a_row == {0: 2}
    assert through_json(hand.server.snapshot()).refused_in_a_row == {0: 2}
