"""Packed predictions: what a row keeps, and the ensemble of such rows against that of all logits."""

from __future__ import annotations

import gc
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fedecho
from fedecho.config.config import Config
from fedecho.core import topk as sparse
from fedecho.core.errors import RecordError
from fedecho.core.keys import Key
from fedecho.core.mapped import to_mmap
from fedecho.experiment.build import prepare
from fedecho.stages.balanced_echo import BalancedEcho
from fedecho.stages.bank import Bank
from fedecho.stages.compute import LOGITS, PredictionFormat
from fedecho.stages.echo import Echo


def drawn(*shape: int, scale: float = 3.0, seed: int = 0) -> Tensor:
    return torch.from_numpy(Key(seed).fold("logits").numpy().standard_normal(shape)).float() * scale


def bank_of(echo: Echo, rows: Tensor) -> Bank:
    bank = echo.init(len(rows))
    for client, row in enumerate(rows):
        bank = echo.put(bank, client, row, version=client)
    return bank


def both(echo: Echo, rows: Tensor, version: int = 9) -> tuple[Tensor, Tensor]:
    """The teacher on all of U: from all logits, and from packed rows."""
    dense, places = replace(echo, top_k=0), torch.arange(rows.shape[1])
    exact = dense.ensemble(bank_of(dense, rows), version)
    return exact, echo.teach(bank_of(echo, rows), version, places, rows.shape[2])


def apart(p: Tensor, q: Tensor) -> float:
    """Mean total variation."""
    return float((p - q).abs().sum(-1).mean() / 2)


# --------------------------------------------------------------------------------------------------------------- a row


def test_a_row_by_hand() -> None:
    p = torch.tensor([[0.5, 0.1, 0.3, 0.04, 0.06], [0.01, 0.01, 0.01, 0.01, 0.96]])
    row = sparse.pack(p.log() + 7.0, 2)
    assert row.dtype == torch.int16
    assert row.shape == (2, sparse.width(2)) == (2, 8)
    top = sparse.unpack(row)
    assert top.indices[0].tolist() == [0, 2]
    assert top.values[0].exp().tolist() == pytest.approx([0.5, 0.3], rel=1e-3)
    assert top.rest.exp().tolist() == pytest.approx([0.2 / 3, 0.03 / 3], rel=1e-5)
    assert float(top.values[1, 0].exp()) == pytest.approx(0.96, rel=1e-3)


@given(st.integers(2, 40), st.integers(1, 60), st.floats(0.0, 30.0), st.integers(0, 10_000))
def test_a_row_holds_all_of_the_mass(classes: int, k: int, scale: float, seed: int) -> None:
    logits = drawn(3, classes, scale=scale, seed=seed)
    top = sparse.unpack(sparse.pack(logits, k))
    kept = top.values.shape[1]
    assert kept == min(k, classes)
    total = top.values.exp().sum(-1) + (classes - kept) * top.rest.exp()
    torch.testing.assert_close(total, torch.ones(3), rtol=0, atol=2e-3)  # float16 keeps three digits
    exact = logits.log_softmax(-1).gather(-1, top.indices)
    torch.testing.assert_close(top.values, exact, rtol=1e-3, atol=1e-3)
    assert bool((exact.diff(dim=-1) <= 0).all()), "most probable first"
    assert sparse.fault(sparse.pack(logits, k), classes) is None


def test_rows_of_some_predictions_are_some_predictions_of_the_row() -> None:
    row = sparse.pack(drawn(9, 30), 4)
    some = torch.tensor([4, 0, 4])
    for part, whole in zip(sparse.unpack(row[some]), sparse.unpack(row), strict=True):
        assert torch.equal(part, whole[some])


def test_indices_beyond_sixteen_bits() -> None:
    logits = torch.zeros(1, 200_000)
    logits[0, 150_001], logits[0, 70_000] = 20.0, 19.0
    assert sparse.unpack(sparse.pack(logits, 2)).indices.tolist() == [[150_001, 70_000]]


def test_faulty_rows() -> None:
    row = sparse.pack(drawn(2, 9), 3)
    assert sparse.fault(row, 9) is None
    assert "beyond the 5" in str(sparse.fault(sparse.pack(torch.eye(9)[[8]] * 9, 1), 5))
    for value, why in ((math.nan, "finite"), (math.inf, "finite"), (0.5, "exceed 0")):
        bad = row.clone()
        bad[1, 0] = torch.tensor([value]).half().view(torch.int16)[0]
        assert why in str(sparse.fault(bad, 9))


def test_the_size_of_a_large_vocabularys_row() -> None:
    """Issue: at most a hundredth of all logits."""
    logits = drawn(16, 32_000)
    row = PredictionFormat(top_k=64).of(logits)
    size = row.numel() * row.element_size()
    assert size == 16 * PredictionFormat(top_k=64).bytes(32_000) == 16 * 388
    assert 100 * size <= logits.numel() * 4
    assert LOGITS.bytes(32_000) == 128_000
    assert PredictionFormat(half=True).bytes(32_000) == 64_000
    echo = Echo(top_k=64)
    assert echo.memory_bytes(50, 1000, 32_000) == 50 * 1000 * 388
    assert Echo().memory_bytes(50, 1000, 32_000) == 50 * 1000 * 128_000 + 1000 * 32_000 * 8  # and the running sum


# ------------------------------------------------------------------------------------------------------------- teachers


@pytest.mark.parametrize("average", ["logits", "probabilities"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("teacher_weights", ["uniform", "certainty", "staleness"])
@pytest.mark.parametrize("kind", [Echo, BalancedEcho])
@pytest.mark.parametrize("target", ["uniform", "mean"])
def test_with_all_classes_kept_the_two_banks_teach_the_same(
    average: str, temperature: float, teacher_weights: str, kind: type[Echo], target: str
) -> None:
    more = {"target": target} if kind is BalancedEcho else {}
    echo = kind(average=average, temperature=temperature, teacher_weights=teacher_weights, top_k=12, **more)  # type: ignore[arg-type]
    exact, packed = both(echo, drawn(5, 20, 12))
    torch.testing.assert_close(packed, exact, rtol=0, atol=3e-3)
    torch.testing.assert_close(packed.sum(-1), torch.ones(20))


@pytest.mark.parametrize("kind", [Echo, BalancedEcho])
def test_the_error_falls_with_k(kind: type[Echo]) -> None:
    """On teachers that have much in common, as clients of one federation have."""
    rows = drawn(1, 50, 60, scale=4.0) + drawn(6, 50, 60, seed=1, scale=1.0)
    errors = [apart(*both(kind(top_k=k), rows)) for k in (2, 8, 24, 60)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 5 * errors[2]
    assert errors[-1] < 1e-3


def test_an_ensemble_by_hand() -> None:
    """Two teachers over five classes, two classes each: the missing mass lies evenly."""
    first, second = torch.tensor([[0.6, 0.2, 0.1, 0.05, 0.05]]), torch.tensor([[0.1, 0.1, 0.1, 0.6, 0.1]])
    echo = Echo(top_k=2)
    bank = bank_of(echo, torch.stack([first.log(), second.log()]))
    p = echo.teach(bank, 3, torch.tensor([0]), 5)[0]
    a = [0.6, 0.2, 0.2 / 3, 0.2 / 3, 0.2 / 3]
    i, j = sparse.unpack(bank.rows[1]).indices[0].tolist()  # the second of equals is anybody's
    b = [0.1] * 5
    b[i], b[j] = 0.6, 0.1
    unnormalised = [math.sqrt(x * y) for x, y in zip(a, b, strict=True)]
    assert p.tolist() == pytest.approx([u / sum(unnormalised) for u in unnormalised], rel=2e-3)


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(1, 4))
def test_a_packed_bank_keeps_the_latest_rows(order: list[int], bound: int) -> None:
    echo = BalancedEcho(top_k=3, max_rows=bound)
    rows = drawn(len(order), 6, 8)
    bank = echo.init(5)
    for version, (client, row) in enumerate(zip(order, rows, strict=True)):
        bank = echo.put(bank, client, row, version)
    latest = {client: version for version, client in enumerate(order)}
    kept = sorted(latest, key=lambda client: latest[client])[-bound:]
    assert list(bank.rows) == list(bank.versions) == list(bank.priors) == kept
    assert bank.total is None
    for client in kept:
        assert torch.equal(bank.rows[client], sparse.pack(rows[latest[client]], 3))


def test_the_prior_of_a_packed_row() -> None:
    """What a teacher expects of each class over U: known of the classes it names, level on the others."""
    row = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.05, 0.85, 0.05, 0.05]]).log()
    echo = BalancedEcho(top_k=1, prior_floor=1e-3)
    prior = echo.prior_of(sparse.pack(row, 1))
    assert prior is not None
    assert prior.tolist() == pytest.approx([0.375, 0.475, 0.075], rel=2e-3)  # classes 0 and 1, then each other
    shift = echo.correction(prior, 4)
    assert shift.tolist() == pytest.approx([-math.log(v + 1e-3) for v in (0.375, 0.475, 0.075, 0.075)], rel=2e-3)


def test_teachers_corrected_to_their_mean_keep_a_prior_that_all_share() -> None:
    """Corrected to uniform they do not: words of a language are not equally frequent."""
    p = torch.tensor([[0.6, 0.3, 0.1]]).log().expand(40, 3)
    rows = torch.stack([p, p])
    kept = BalancedEcho(target="mean").ensemble(bank_of(BalancedEcho(target="mean"), rows), 0)
    level = BalancedEcho().ensemble(bank_of(BalancedEcho(), rows), 0)
    torch.testing.assert_close(kept[0], torch.tensor([0.6, 0.3, 0.1]), rtol=0, atol=1e-3)
    torch.testing.assert_close(level[0], torch.full((3,), 1 / 3), rtol=0, atol=3e-3)


# ---------------------------------------------------------------------------------------------------------- a whole run


def config(top_k: int = 0, **records: str) -> Config:
    return Config.from_dict(
        {
            "experiment": {"updates": 24, "eval_every": 24},
            "data": {"clients": 8, "unlabeled_size": 50},
            "model": {"hidden": [16]},
            "client": {"epochs": 1},
            "server": {"concurrency": 4, "buffer_size": 3},
            "stages": {"name": "echo", "steps": 3, "top_k": top_k},
            "records": records,
        }
    )


def test_a_run_with_packed_predictions() -> None:
    """With all ten classes kept it ends where the run with all logits ends, but for what float16 rounds off."""
    exact, packed, few = (fedecho.run(config(top_k)) for top_k in (0, 10, 2))
    accuracies = [result.metrics["accuracy"].last for result in (exact, packed)]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.03)
    assert len({exact.model_sha256, packed.model_sha256, few.model_sha256}) == 3
    setup = prepare(config(2))
    setup.close()
    assert setup.sizes.predictions_bytes == 50 * 8 * 2
    assert setup.sizes.bank_bytes == 8 * 50 * 8 * 2
    assert setup.server.state.started is False


def test_a_bank_in_mapped_files_gives_the_same_bits() -> None:
    assert fedecho.run(config(bank="mapped")).model_sha256 == fedecho.run(config(bank="memory")).model_sha256


def mapped() -> int:
    """How many files without a name in the temporary folder are mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sum(f" {tempfile.gettempdir()}/" in line and line.endswith("(deleted)") for line in lines)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="what is mapped can be read on Linux only")
def test_what_is_shelved_lies_in_a_file_for_as_long_as_it_is_used() -> None:
    gc.collect()  # what an earlier test has mapped may not be gone yet
    there = mapped()
    rows = [drawn(7, 5), sparse.pack(drawn(7, 50), 4), torch.zeros(0), drawn(4, 6).half().t()]
    kept = [to_mmap(row) for row in rows]
    assert mapped() == there + 3  # nothing is no file
    for row, copy in zip(rows, kept, strict=True):
        assert row.dtype == copy.dtype
        assert torch.equal(row, copy)
    del kept, copy
    gc.collect()
    assert mapped() == there


def test_no_room_for_the_bank(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(RecordError, match=r"set TMPDIR to a folder with more room, or records.bank to 'memory'"):
        to_mmap(torch.zeros(3))
