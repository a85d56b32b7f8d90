"""The echo bank: rows replaced and evicted, the running sums, its cost, and what older banks hold."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedecho.core import trees
from fedecho.stages.balanced_echo import BalancedEcho
from fedecho.stages.bank import Bank, Entry
from fedecho.stages.bank_ensemble import BankEnsemble
from fedecho.stages.calibrated_echo import CalibratedEcho
from fedecho.stages.echo import Echo
from fedecho.stages.persistent import RecencyMap
from helpers import change, through_json, vec
from stage_helpers import bank_of, softmax, weighted

ROWS = {3: [[4.0, 0.0, 1.0]], 1: [[0.0, 3.0, 0.0]], 7: [[0.1, 0.0, 0.2]]}
TENSORS = {client: torch.tensor(row) for client, row in ROWS.items()}


def test_a_client_that_reports_again_replaces_its_row() -> None:
    echo = Echo()
    bank = echo.put(bank_of(echo, TENSORS), 3, torch.tensor([[0.0, 0.0, 9.0]]), 5)
    assert list(bank.rows) == [1, 7, 3], "least recently heard first"
    assert bank.versions == {1: 0, 7: 0, 3: 5}
    want = softmax(weighted([1, 1, 1], [ROWS[1][0], ROWS[7][0], [0, 0, 9]]))
    assert echo.ensemble(bank, 6)[0].tolist() == pytest.approx(want, rel=1e-5)


def test_the_row_remembers_the_version_its_model_started_from() -> None:
    bank = Echo().on_update(Bank(), change(vec(1, 1), client=4, version=9, staleness=7), torch.zeros(2, 3))
    assert bank.versions == {4: 2}


@settings(max_examples=30)
@given(
    teacher_weights=st.sampled_from(["uniform", "certainty", "staleness"]),
    average=st.sampled_from(["logits", "probabilities"]),
    row_dtype=st.sampled_from(["float32", "float16"]),
    max_rows=st.sampled_from([None, 1, 3]),
    temperature=st.sampled_from([1.0, 3.0]),
    scale=st.sampled_from([0.1, 5.0, 60.0]),
    seed=st.integers(0, 10**6),
)
def test_the_incremental_mean_stays_the_mean_of_the_rows(scale: float, seed: int, **options: Any) -> None:
    echo, generator = Echo(**options), torch.Generator().manual_seed(seed)
    bank, heard = echo.init(9), []
    for step in range(200):
        client = int(torch.randint(9, (), generator=generator))
        if client in bank.rows and step % 5 == 0:
            bank = bank.evict(client, echo.contribution(bank))
            heard.remove(client)
        else:
            row = scale * torch.randn(4, 3, generator=generator)
            bank = echo.put(bank, client, row, step)
            heard = [*(i for i in heard if i != client), client][-(options["max_rows"] or 9) :]
            assert torch.equal(bank.rows[client], row.to(getattr(torch, echo.row_dtype)))
    assert list(bank.rows) == list(bank.versions) == heard
    if heard:  # the same rows, put into an empty bank
        afresh = bank_of(replace(echo, max_rows=None), bank.rows, bank.versions)
        torch.testing.assert_close(echo.ensemble(bank, 200), echo.ensemble(afresh, 200), rtol=1e-5, atol=1e-7)
        assert torch.isfinite(echo.loss(echo.ensemble(bank, 200))(torch.zeros(4, 3), torch.arange(4)))


def test_a_full_bank_lets_the_least_recently_heard_client_go() -> None:
    echo, rows = Echo(max_rows=2), {i: torch.full((1, 3), float(i)) for i in range(4)}
    bank = bank_of(echo, {0: rows[0], 1: rows[1]})
    bank = echo.put(bank, 0, rows[3], 1)  # client 0 is heard again, so that client 1 is now the oldest
    bank = echo.put(bank, 2, rows[2], 2)
    assert list(bank.rows) == [0, 2]
    assert torch.equal(bank.rows[0], rows[3])


def test_probabilities_that_nobody_gives_any_more_never_make_the_teacher_negative() -> None:
    echo = Echo(average="probabilities")
    quiet = torch.tensor([[60.0, 0.0]], dtype=torch.float32)  # the second class: 1e-26
    noisy = [torch.tensor([[a, b]]) for a, b in ((0.0, 2.3), (1.7, 0.0), (0.4, 0.1), (0.3, 0.9), (2.0, 0.3))]
    worst = 0.0
    for order in range(5):
        bank = echo.put(echo.init(9), 0, quiet, 0)
        for i in range(5):
            bank = echo.put(bank, 1 + (i + order) % 5, noisy[(i * 2 + order) % 5], 0)
        for i in range(5):
            bank = bank.evict(1 + i, echo.contribution(bank))
        assert bank.total is not None
        worst = min(worst, float(bank.total.min()))
        p = echo.ensemble(bank, 1)
        assert bool((p >= 0).all())
        assert math.isfinite(float(echo.loss(p)(torch.zeros(1, 2), torch.tensor([0]))))
    assert worst < 0, "the case has a sum that rounding left below zero"


def test_logits_beyond_half_precision_leave_no_infinity_in_the_bank() -> None:
    echo = Echo(row_dtype="float16")
    bank = bank_of(echo, {0: torch.tensor([[1e6, -1e6]]), 1: torch.tensor([[1.0, 2.0]])})
    bank = echo.put(bank, 0, torch.tensor([[3.0, 1.0]]), 1)
    assert echo.ensemble(bank, 2)[0].tolist() == pytest.approx(softmax([2.0, 1.5]), rel=1e-4)


def through_a_checkpoint(bank: Bank) -> Bank:
    restored = through_json(bank)
    assert isinstance(restored, Bank)
    return restored


@pytest.mark.parametrize("echo", [Echo(), Echo(teacher_weights="certainty"), Echo(top_k=2), CalibratedEcho()])
def test_a_bank_read_from_a_checkpoint_is_the_same_and_goes_on_alike(echo: BankEnsemble) -> None:
    draws = torch.Generator().manual_seed(1)
    bank = bank_of(echo, {client: torch.randn(4, 5, generator=draws) for client in (5, 2, 9, 2, 40)})
    bank = echo.put(bank, 5, torch.randn(4, 5, generator=draws), 3)
    restored = through_a_checkpoint(bank)
    assert list(restored.entries) == list(bank.entries) == [2, 9, 40, 5], "least recently heard first"
    row = torch.randn(4, 5, generator=draws)
    for one, other in ((bank, restored), (echo.put(bank, 9, row, 4), echo.put(restored, 9, row, 4))):
        assert one.predictions == other.predictions
        skeleton, tensors = trees.flatten(one)
        other_skeleton, other_tensors = trees.flatten(other)
        assert skeleton == other_skeleton
        assert all(torch.equal(tensor, other_tensors[name]) for name, tensor in tensors.items())


def test_an_older_bank_does_not_change_when_rows_are_put_and_evicted() -> None:
    echo, rows = Echo(max_rows=3), {client: torch.full((2, 3), float(client)) for client in range(6)}
    older = bank_of(echo, {0: rows[0], 1: rows[1], 2: rows[2]})
    assert older.total is not None
    total = older.total.clone()
    newer = older
    for client in (1, 3, 0, 5, 1):
        newer = echo.put(newer, client, rows[(client + 1) % 6], 7)
    assert list(newer.entries) == [0, 5, 1]
    assert list(older.entries) == [0, 1, 2]
    assert older.versions == {0: 0, 1: 0, 2: 0}
    assert all(torch.equal(older.rows[client], rows[client]) for client in (0, 1, 2))
    assert torch.equal(older.total, total)
    again = echo.put(older, 1, rows[4], 9)  # the older bank is still good to go on from
    assert list(again.entries) == [0, 2, 1]
    assert torch.equal(again.total, rows[0].double() + rows[2].double() + rows[4].double())


def seconds_per_put(clients: int, puts: int = 200) -> float:
    """The least processor time per put, of several series, into a bank of this many clients."""
    echo, row = Echo(), torch.zeros(1000, 10)
    bank = Bank(entries=RecencyMap({client: Entry(row, 0) for client in range(clients)}))
    bank = replace(bank, total=row.double(), mass=torch.ones(1000, 1, dtype=torch.float64))
    order = [(client * 7919) % clients for client in range(puts)]
    series = []
    for _ in range(5):
        began = time.thread_time()
        for client in order:
            bank = echo.put(bank, client, row, 1)
        series.append((time.thread_time() - began) / puts)
    assert len(bank.entries) == clients
    return min(series)


def test_a_put_takes_the_same_time_for_any_number_of_clients() -> None:
    """Copying dictionaries of 100,000 entries would take a hundred times as long."""
    assert seconds_per_put(100_000) < 3 * seconds_per_put(100)


@pytest.mark.parametrize("echo", [Echo(), Echo(teacher_weights="certainty"), BalancedEcho()])
@pytest.mark.parametrize("size", [1e15, 1e30])
def test_a_huge_row_leaves_nothing_behind_when_it_is_replaced(echo: BankEnsemble, size: float) -> None:
    draws = torch.Generator().manual_seed(0)
    rows = {client: torch.randn(6, 4, generator=draws) for client in range(5)}
    bank = echo.put(bank_of(echo, rows), 2, size * torch.randn(6, 4, generator=draws), 1)
    assert bool(torch.isfinite(echo.ensemble(bank, 2)).all())
    bank = echo.put(bank, 2, rows[2], 1)
    torch.testing.assert_close(echo.mean(bank, 2), echo.mean(bank_of(echo, rows), 2), rtol=1e-9, atol=1e-9)


def test_stored_rows_take_the_place_of_the_others() -> None:
    bank = bank_of(Echo(), TENSORS, {3: 4, 1: 5, 7: 6})
    stored = Echo().with_rows_stored(bank, torch.clone)
    assert list(stored.entries) == list(bank.entries)
    assert stored.versions == bank.versions
    for client, row in stored.rows.items():
        assert torch.equal(row, bank.rows[client])
        assert row is not bank.rows[client]
