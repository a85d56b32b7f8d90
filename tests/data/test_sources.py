from __future__ import annotations

import dataclasses
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fedecho import Config
from fedecho.core.errors import ConfigError, DataError, MissingExtra
from fedecho.core.keys import Key
from fedecho.data.devices import device_fps
from fedecho.data.federation import DataConfig, federation
from fedecho.data.fetch import ARCHIVES, fetch
from fedecho.data.source import Source
from fedecho.data.sources import load, names

CLIENTS = {"npm": ["npm"], "apt": ["apt-get", "dpkg-deb"]}


def needs(name: str) -> pytest.MarkDecorator:
    missing = [client for client in CLIENTS[ARCHIVES[name].client] if shutil.which(client) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)}, which brings {name}, is not installed")


def check(source: Source, shape: tuple[int, ...], train: int, test: int) -> None:
    assert source.inputs.shape == (train, *shape)
    assert source.test_inputs.shape == (test, *shape)
    assert source.labels.shape == (train,)
    assert source.test_labels.shape == (test,)
    assert source.inputs.dtype == source.test_inputs.dtype == torch.float32
    assert source.labels.dtype == source.test_labels.dtype == torch.int64
    assert source.classes == 10
    assert set(source.labels.tolist()) == set(source.test_labels.tolist()) == set(range(10))
    axes = (0, 2, 3)
    np.testing.assert_allclose(source.inputs.numpy().mean(axes, dtype=np.float64), 0, atol=1e-5)
    np.testing.assert_allclose(source.inputs.numpy().std(axes, dtype=np.float64), 1, atol=1e-5)
    assert abs(float(source.test_inputs.mean())) < 0.05, "the test part is normalised by the train part's numbers"


def test_names_are_sorted_and_an_unknown_one_lists_them() -> None:
    assert names() == tuple(sorted(names()))
    assert {"cifar10", "digits", "fashion_mnist", "mnist", "newsgroups", "shakespeare"} <= set(names())
    for unknown in ("imagenet", "hf:", "module:", ":function"):
        with pytest.raises(ConfigError, match=", ".join(names())):
            load(unknown)


def test_digits_are_split_by_class_always_the_same_way() -> None:
    source = load("digits")
    check(source, (1, 8, 8), 1437, 360)
    share = source.test_labels.bincount() / (source.labels.bincount() + source.test_labels.bincount())
    assert (share - 0.2).abs().max() < 0.006
    again = load("digits")
    assert torch.equal(source.inputs, again.inputs)
    assert torch.equal(source.test_labels, again.test_labels)
    # Recorded when the split was made: recorded runs stay comparable only while it stays.
    assert source.test_labels[:12].tolist() == [6, 2, 7, 0, 6, 5, 0, 1, 2, 4, 5, 0]


def mean_and_std(inputs: torch.Tensor) -> list[float]:
    """Of the pixels in [0, 1], from a normalised image's darkest and brightest possible value."""
    low, high = inputs.amin((0, 2, 3)), inputs.amax((0, 2, 3))
    return [*(-low / (high - low)).tolist(), *(1 / (high - low)).tolist()]


@needs("fashion_mnist")
def test_fashion_mnist() -> None:
    source = load("fashion_mnist")
    check(source, (1, 28, 28), 60_000, 10_000)
    assert (source.labels.bincount() == 6000).all()
    assert (source.test_labels.bincount() == 1000).all()
    assert mean_and_std(source.inputs) == pytest.approx([0.2860, 0.3530], abs=1e-4)


@needs("mnist")
def test_mnist() -> None:
    source = load("mnist")
    check(source, (1, 28, 28), 60_000, 10_000)
    assert source.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert mean_and_std(source.inputs) == pytest.approx([0.1307, 0.3081], abs=1e-4)


@needs("cifar10")
def test_cifar10_is_decoded_once_and_then_loads_fast() -> None:
    pytest.importorskip("PIL", reason="its archive holds PNG")
    fetch("cifar10")
    start = time.process_time()
    source = load("cifar10")
    assert time.process_time() - start < 15, "2 to 3 s"
    check(source, (3, 32, 32), 50_000, 10_000)
    assert (source.labels.bincount() == 5000).all()
    assert source.labels[:5].tolist() == [6, 9, 9, 4, 1]
    assert mean_and_std(source.inputs) == pytest.approx([0.4914, 0.4822, 0.4465, 0.2470, 0.2435, 0.2616], abs=1e-4)
    # Neighbouring pixels resemble each other along both axes, so do a pixel's three colours: the layout is right.
    image = source.inputs[:1000]
    for a, b in ((image[..., 1:], image[..., :-1]), (image[:, :, 1:], image[:, :, :-1]), (image[:, 0], image[:, 1])):
        assert float((a * b).mean() / image.square().mean()) > 0.85


def test_cifar10_without_pillow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingExtra, match=r"fedecho\[images\]"):
        load("cifar10", tmp_path)


@needs("phones")
def test_device_fps_has_one_rate_per_device() -> None:
    fps = device_fps()
    assert fps.shape == (822,)
    assert fps.dtype == np.float64
    assert fps.min() > 0
    assert np.percentile(fps, [5, 25, 50, 75]).tolist() == [4, 7, 12, 35]
    assert (device_fps() == fps).all()


def test_damaged_files_say_what_to_delete(tmp_path: Path) -> None:
    folder = tmp_path / "mnist"
    folder.mkdir()
    for damage in (b"", b"\x00\x00\x0d\x01\x00\x00\x00\x00", b"\x00\x00\x08\x03" + b"\x00\x00\x00\x02" * 3 + b"short"):
        (folder / "train-images-idx3-ubyte").write_bytes(damage)
        with pytest.raises(DataError, match="delete that folder"):
            load("mnist", tmp_path)
    (tmp_path / "fashion_mnist").mkdir()
    for damage in (b"no gzip", b"\x1f\x8b\x08\x00cut"):
        (tmp_path / "fashion_mnist" / "train-images-idx3-ubyte.gz").write_bytes(damage)
        with pytest.raises(DataError, match="delete that folder"):
            load("fashion_mnist", tmp_path)
    (tmp_path / "cifar10").mkdir()
    with pytest.raises(DataError, match="delete that folder"):
        load("cifar10", tmp_path)
    np.save(tmp_path / "cifar10" / "train_images.npy", np.zeros((2, 3, 32, 32), np.uint8))
    with pytest.raises(DataError, match="delete that folder"):
        load("cifar10", tmp_path)
    (tmp_path / "phones").mkdir()
    with pytest.raises(DataError, match="no device"):
        device_fps(tmp_path)
    (tmp_path / "phones" / "m-a.json").write_text('["5", ["a", 1]]')
    with pytest.raises(DataError, match="delete that folder"):
        device_fps(tmp_path)


OWN = """
import numpy as np
import torch
from PIL import Image

def floats():
    x = np.linspace(0, 1, 24, dtype=np.float64).reshape(6, 4)
    return x, np.arange(6) % 3, torch.from_numpy(x), torch.arange(6) % 3

def bytes_():
    x = np.full((4, 1, 2, 2), 51, np.uint8)
    return x, [0, 1, 0, 1], x, [0, 1, 0, 1]

class Pairs(torch.utils.data.Dataset):
    def __init__(self, image): self.image = image
    def __len__(self): return 4
    def __getitem__(self, i): return self.image, i % 2

def datasets(): return Pairs(torch.ones(3, 5)), Pairs(torch.zeros(3, 5))
def pictures(): return [Pairs(Image.new("RGB", (5, 4), (255, 0, 51)))] * 2
def grey(): return [Pairs(Image.new("L", (5, 4), 51))] * 2

def three(): return 1, 2, 3
def fails():
    raise RuntimeError("no disk")
def fails_deep():
    return dict(b=1)["a"]
class Broken:
    def __len__(self):
        return 3
    def __getitem__(self, i):
        return [0][i], 1
def fails_reading(): return Broken(), Broken()
def short(): return np.ones((3, 2)), np.zeros(2, int), np.ones((3, 2)), np.zeros(3, int)
def negative(): return np.ones((2, 2)), np.array([-1, 0]), np.ones((2, 2)), np.array([0, 1])
def mixed(): return np.ones((2, 2)), np.array([0.5, 0]), np.ones((2, 2)), np.array([0, 1])
def tabular(): return np.full((2, 2), 7), np.array([0, 1]), np.ones((2, 2), bool), np.array([0, 1])
def integer_images(): return [np.ones((2, 1, 8, 8), int), np.array([0, 1])] * 2
def swapped(): return np.ones((6, 4)), np.ones((3, 4)), np.zeros(6, int), np.zeros(3, int)
def swapped_alike(): return np.ones((6, 4)), np.ones((6, 4)), np.zeros(6, int), np.zeros(6, int)
def labels_first(): return np.zeros(6, int), np.ones((6, 4)), np.zeros(3, int), np.ones((3, 4))
def huge(): return [np.ones((2, 2)), np.array([0, 2_000_000])] * 2
def quantities(): return [np.ones((1500, 2)), np.arange(1500) * 7 + 3] * 2
def named(): return np.ones((3, 2)), np.array(["cat", "dog", "cat"]), np.ones((2, 2)), ["dog", "eel"]
def from_one(): return np.ones((3, 2)), np.array([1, 3, 2]), np.ones((2, 2)), np.array([3, 1])
def signs(): return np.ones((2, 2)), np.array([-1, 1]), np.ones((2, 2)), np.array([1, -1])
def with_options(n, scale=1.0): return [np.full((n, 2), scale), np.arange(n) % 2] * 2
def part(n, value): return np.full((n, 3), float(value)), np.arange(n) % 2
def per_client(): return [part(4, 0), Pairs(torch.ones(3)), part(9, 2)], part(5, 3)
def by_name(): return {"berlin": part(4, 0), "cairo": part(6, 1)}, {"berlin": part(1, 7), "cairo": part(2, 8)}
def pairs(): return part(4, 0), part(3, 1)
def listed(): return [(np.ones(3), 0), (np.ones(3), 1)], [(np.ones(3), 1)]
def nobody(): return [], part(3, 0)
def other_clients(): return [part(3, 0), part(3, 0)], [part(3, 0)]
def uneven_clients(): return [part(3, 0), (np.ones((3, 5)), np.zeros(3, int))], part(3, 0)
def number(): return 5
def nan(): return np.full((2, 2), np.nan), np.array([0, 1]), np.ones((2, 2)), np.array([0, 1])
def shapes(): return np.ones((2, 2)), np.array([0, 1]), np.ones((2, 3)), np.array([0, 1])
def empty(): return np.ones((0, 2)), np.array([], int), np.ones((2, 2)), np.array([0, 1])
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's in the current folder."""
    pytest.importorskip("PIL")
    (tmp_path / "own_data_module.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_data_module", raising=False)
    return "own_data_module"


def test_a_users_own_arrays_and_datasets(own: str) -> None:
    path = list(sys.path)
    source = load(f"{own}:floats")
    assert source.inputs.shape == (6, 4)
    assert source.inputs.dtype == torch.float32
    assert float(source.inputs.max()) == 1
    assert source.classes == 3
    assert float(load(f"{own}:bytes_").inputs[0, 0, 0, 0]) == pytest.approx(0.2)
    source = load(f"{own}:datasets")
    assert source.inputs.shape == (4, 3, 5)
    assert source.labels.tolist() == [0, 1, 0, 1]
    assert float(source.test_inputs.sum()) == 0
    source = load(f"{own}:pictures")
    assert source.inputs.shape == (4, 3, 4, 5)
    assert source.inputs[0, :, 0, 0].tolist() == pytest.approx([1, 0, 0.2])
    assert load(f"{own}:grey").inputs.shape == (4, 1, 4, 5)
    assert sys.path == path


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("three", "returned 3 things"),
        ("fails", r"the function raised RuntimeError: no disk \(own_data_module\.py, line 25\); mend it"),
        ("fails_deep", r"raised KeyError: 'a' \(own_data_module\.py, line 27\)"),
        ("fails_reading", r"reading its Dataset raised IndexError: .*\(own_data_module\.py, line 32\)"),
        ("short", r"\[2\] train labels for 3 inputs"),
        ("negative", "labels from -1"),
        ("mixed", r"train target is torch\.float32 \[\], a test target torch\.int64"),
        ("integer_images", "give images as uint8"),
        ("nan", "NaN"),
        ("shapes", "one shape"),
        ("empty", "n ≥ 1"),
        ("swapped", r"look swapped: .*\[6, 4\], \[3, 4\], \[6\], \[3\], as \(train_x, test_x, train_y, test_y\)"),
        ("swapped_alike", "look swapped"),
        ("labels_first", "look swapped"),
        ("huge", "2 different ones among 2 examples, and a model would need 2,000,001 outputs"),
        ("quantities", "give floats if these are quantities"),
        ("nobody", "data of no client"),
        ("other_clients", "train data are of 2 clients, test data of 1"),
        ("uneven_clients", "clients' data do not fit together"),
        ("number", "returned a int"),
    ],
)
def test_a_users_own_data_that_do_not_fit(own: str, function: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        load(f"{own}:{function}")


def test_a_users_own_function_takes_the_options_of_the_table(own: str) -> None:
    assert load(f"{own}:with_options", options={"n": 5}).inputs.shape == (5, 2)
    assert float(load(f"{own}:with_options", options={"n": 5, "scale": 3.0}).inputs.max()) == 3
    with pytest.raises(
        ConfigError, match=r"data\.options do not fit .*missing a required argument: 'n'; it takes \(n,"
    ):
        load(f"{own}:with_options")
    with pytest.raises(ConfigError, match="unexpected keyword argument 'm'"):
        load(f"{own}:with_options", options={"n": 5, "m": 1})
    config = Config.from_dict(
        {
            "experiment": {"updates": 1},
            "server": {"concurrency": 2},
            "data": {"dataset": f"{own}:with_options", "clients": 2, "options": {"n": 40, "scale": 2}, "held_out": 0},
        }
    )
    assert Config.from_dict(config.to_dict()) == config
    data = dataclasses.replace(config.data, partition="iid", unlabeled="noise")
    assert float(federation(data, Key(0)).inputs.max()) == 2
    with pytest.raises(ConfigError, match="are for a function of your own"):
        federation(dataclasses.replace(data, dataset="digits"), Key(0))


def test_labels_are_numbered_and_the_numbering_is_kept(own: str) -> None:
    source = load(f"{own}:named")
    assert (source.labels.tolist(), source.test_labels.tolist(), source.classes) == ([0, 1, 0], [1, 2], 3)
    assert source.label_names == ("cat", "dog", "eel")
    source = load(f"{own}:from_one")
    assert (source.labels.tolist(), source.test_labels.tolist(), source.classes) == ([0, 2, 1], [2, 0], 3)
    assert source.label_names == ("1", "2", "3")
    assert load(f"{own}:signs").label_names == ("-1", "1")
    assert load(f"{own}:floats").label_names == ()
    data = DataConfig(f"{own}:from_one", clients=1, partition="iid", unlabeled="noise", unlabeled_size=1)
    assert federation(data, Key(0)).label_names == ("1", "2", "3")


def test_integer_tables_are_inputs(own: str) -> None:
    source = load(f"{own}:tabular")
    assert source.inputs.dtype == torch.float32
    assert float(source.inputs[0, 0]) == 7
    assert load(f"{own}:pairs").inputs.shape == (4, 3)
    assert load(f"{own}:listed").labels.tolist() == [0, 1]


def test_clients_with_data_of_their_own(own: str) -> None:
    data = DataConfig(f"{own}:per_client", clients=3, partition="natural", unlabeled="noise", unlabeled_size=1)
    shared = federation(data, Key(0))
    assert shared.offsets == (0, 4, 8, 17), "in the function's order"
    assert [float(shared.inputs[start].max()) for start in (0, 4, 8)] == [0, 1, 2]
    assert len(shared.test[0]) == 5
    assert shared.test_clients is None
    named = federation(dataclasses.replace(data, dataset=f"{own}:by_name", clients=2), Key(0))
    assert named.test_clients is not None
    assert named.test_clients.tolist() == [0, 1, 1]
    assert load(f"{own}:by_name").owner_names == ("berlin", "cairo")
    with pytest.raises(ConfigError, match=r"data\.partition is 'iid', and .* returns each client's own data; set"):
        federation(dataclasses.replace(data, partition="iid"), Key(0))
    with pytest.raises(ConfigError, match="exceeds the 3 owners"):
        federation(dataclasses.replace(data, clients=4), Key(0))


def test_a_users_own_function_that_is_not_there(own: str) -> None:
    with pytest.raises(ConfigError, match="no_such_module"):
        load("no_such_module:f")
    with pytest.raises(ConfigError, match="no_function"):
        load(f"{own}:no_function")


def draw_pictures(folder: Path, mode: str, splits: tuple[str, ...] = ("train", "test")) -> None:
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for split in splits:
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for number in range(3):
                pixels = rng.integers(0, 256, (6, 7) if mode == "L" else (6, 7, 3), dtype=np.uint8)
                image.fromarray(pixels).save(folder / split / name / f"{number}.png")


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_hugging_face_reads_a_folder_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, channels: int, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("datasets")
    draw_pictures(tmp_path / "pictures", mode)
    monkeypatch.chdir(tmp_path)
    source = load("hf:./pictures", tmp_path / "cache")
    assert source.inputs.shape == (6, channels, 6, 7)
    assert source.test_inputs.shape == (6, channels, 6, 7)
    assert source.labels.bincount().tolist() == [3, 3]
    assert source.classes == 2
    np.testing.assert_allclose(source.inputs.mean((0, 2, 3)), 0, atol=1e-6)
    assert capfd.readouterr() == ("", "")


def test_hugging_face_reads_parquet(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    image = pytest.importorskip("PIL.Image")
    features = datasets.Features({"img": datasets.Image(), "fine_label": datasets.ClassLabel(names=["a", "b", "c"])})
    for split in ("train", "test"):
        pictures = [image.new("RGB", (4, 4), (40 * i, 10, 90 * (i % 2) + i)) for i in range(4)]
        pictures[0].putpixel((0, 0), (1, 2, 3))
        data = datasets.Dataset.from_dict({"img": pictures, "fine_label": [0, 1, 1, 0]}, features=features)
        data.to_parquet(tmp_path / "data" / f"{split}.parquet")
    source = load(f"hf:{tmp_path}/data", tmp_path / "cache")
    assert source.inputs.shape == (4, 3, 4, 4)
    assert source.labels.tolist() == [0, 1, 1, 0]
    assert source.classes == 3, "declared, though one class has no example"


def test_hugging_face_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    image = pytest.importorskip("PIL.Image")
    draw_pictures(tmp_path / "one_split", "L", ("train",))
    with pytest.raises(DataError, match=r"splits are train.*are needed"):
        load(f"hf:{tmp_path}/one_split", tmp_path / "cache")
    draw_pictures(tmp_path / "sizes", "L")
    image.new("L", (9, 9)).save(tmp_path / "sizes" / "train" / "cat" / "0.png")
    with pytest.raises(DataError, match="resize them"):
        load(f"hf:{tmp_path}/sizes", tmp_path / "cache")
    (tmp_path / "text").mkdir()
    for split in ("train", "test"):
        (tmp_path / "text" / f"{split}.csv").write_text("text,label\nhello,1\nthere,0\n")
    with pytest.raises(DataError, match=r"text, label.*module:function"):
        load(f"hf:{tmp_path}/text", tmp_path / "cache")
    with pytest.raises(DataError, match="check the name and the network"):
        load(f"hf:{tmp_path}/nothing", tmp_path / "cache")

    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach the hub\nmore lines")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(DataError, match="ConnectionError: Couldn't reach the hub; check"):
        load("hf:someone/something")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"fedecho\[hf\]"):
        load("hf:someone/something")
