"""Data sets in memory.

Built in: digits (bundled with scikit-learn, always there), and images and texts that are fetched on first use (see
`fetch`). From outside: the user's own `module:function`, and `hf:NAME` or `hf:./folder` by Hugging Face `datasets`.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib
import json
import math
import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedecho.data import text, tokens
from fedecho.data.features import embed
from fedecho.data.fetch import ARCHIVES, fetch
from fedecho.data.kept import Kept
from fedecho.errors import ConfigError, DataError, MissingExtra
from fedecho.rng import Key


@dataclass(frozen=True)
class Scale:
    """How an encoder's features [n, d] are normalised: each minus `mean` [d], over `std` [d]."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, train: Tensor) -> Scale:
        """Of the train part. The sums are numpy's: they do not depend on the number of torch's threads."""
        exact = train.numpy().astype(np.float64)
        mean, std = exact.mean(0), exact.std(0)
        return cls(*(torch.tensor(v, dtype=torch.float32) for v in (mean, np.where(std > 0, std, 1.0))))

    def __call__(self, made: Tensor) -> Tensor:
        return (made - self.mean) / self.std


@dataclass(frozen=True)
class Source:
    """A labelled data set in memory.

    Images and other numbers are float32, texts token ids, int64. A language model's labels are the next tokens.

    Built-in and `hf:` sources are normalised: each channel, minus the train part's mean, over the train part's standard
    deviation, so `inputs` has mean 0 and standard deviation 1 per channel; so is each of an encoder's features. What a
    `module:function` returns is normalised by that function, or not at all.

    Attributes:
        name: what `load` was asked for.
        inputs: the train part, [n, *shape] float32, or [n, L] int64 token ids.
        labels: [n] int64, in 0 … classes - 1; for a language model [n, L] the next token at each place, −100 for none.
        test_inputs: the test part, [m, *shape].
        test_labels: [m] or [m, L] int64.
        classes: the number of classes; for a language model, of tokens.
        owners: [n] int64, whose each train example is, in 0 … K − 1; None where nobody is known.
        test_owners: [m], likewise.
        domains: [K] the group that each owner belongs to (a play, say).
        owner_names: K names.
        domain_names: the groups' names.
        hours: K times the hours of the day at which that owner is active; None where nothing is known of it.
        tokenizer: what made the tokens, of text.
        pad: the token that fills short texts; None where inputs are no tokens.
        length: tokens an example, of text.
        features: the encoder whose features the inputs are.
        scale: how these features were normalised.
    """

    name: str
    inputs: Tensor
    labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor
    classes: int
    owners: Tensor | None = None
    test_owners: Tensor | None = None
    domains: Tensor | None = None
    owner_names: tuple[str, ...] = ()
    domain_names: tuple[str, ...] = ()
    hours: tuple[tuple[int, ...], ...] | None = None
    tokenizer: str | None = None
    pad: int | None = None
    length: int = 0
    features: str | None = None
    scale: Scale | None = None

    @property
    def causal(self) -> bool:
        """Is it for a language model?"""
        return self.labels.dim() == 2


def names() -> tuple[str, ...]:
    """The built-in data sets, sorted."""
    return tuple(sorted(("cifar10", "digits", "fashion_mnist", "mnist", *text.READERS)))


def load(
    name: str,
    cache: Path | None = None,
    tokenizer: str | None = None,
    length: int = 64,
    features: str | None = None,
) -> Source:
    """Load a data set, fetching it first if need be.

    Args:
        name: one of
            - "digits": 1437 + 360 images [1, 8, 8], 10 classes (a fixed split, stratified by class);
            - "fashion_mnist", "mnist": 60000 + 10000 images [1, 28, 28], 10 classes;
            - "cifar10": 50000 + 10000 images [3, 32, 32], 10 classes;
            - "newsgroups": 11293 + 7528 texts, 20 classes;
            - "bbc_news", "imdb", "reuters_r8", "reuters_r52", "sentiment": texts with classes, see `text`;
            - "shakespeare": running text of 431 roles of 36 plays, the last fifth of each for judging;
            - "chat": running text of 471 senders, likewise;
            - "module:function": a function without arguments; the current folder's modules are found too. It returns
              (train_x, train_y, test_x, test_y), arrays or tensors, or two map-style Datasets (train, test) of
              (input, label) pairs. Floats are taken as they are; uint8 are scaled to [0, 1], images of PIL among them;
            - "hf:NAME" or "hf:./folder": an image data set that `datasets.load_dataset` knows or can read, with the
              splits "train" and "test" (or "validation"). Needs the extra `hf`.
        cache: the cache folder; None is `fetch.cache_dir()`.
        tokenizer: of texts, one of `tokens.names()` or hf:NAME.
        length: tokens an example, of texts.
        features: of texts with classes: the frozen encoder whose features [n, 384] the examples shall be.

    Raises:
        ConfigError: an unknown name.
        DataError: the data cannot be had, are damaged, or are not what they should be.
        MissingExtra: an optional dependency is needed.
    """
    if is_text(name):
        tokenizer = features if features is not None else tokenizer
        if tokenizer is None:
            raise ConfigError(
                f"`dataset` ({name!r}) is text, and nothing says how to cut it into tokens: set data.tokenizer to one "
                f"of {', '.join(tokens.names())}, or take a model that brings its own"
            )
        return _text(name, tokenizer, length, features, Kept(cache))
    if features is not None:
        raise ConfigError(f"`features` ({features!r}) are made of text, and {name!r} is none; leave it out")
    if name == "digits":
        return _digits()
    if name in ("fashion_mnist", "mnist"):
        return _idx_source(name, fetch(name, cache))
    if name == "cifar10":
        return _cifar10(fetch(name, cache))
    if name.startswith("hf:") and len(name) > 3:
        return _hugging_face(name, cache)
    module, colon, function = name.partition(":")
    if colon and module and function:
        return _users_own(name, module, function)
    raise ConfigError(
        f"`dataset` ({name!r}) is unknown; choose from {', '.join(names())}, or give `module:function` or `hf:NAME`"
    )


def is_text(name: str) -> bool:
    """Is this a data set of text?"""
    return name in text.READERS


def _text(name: str, tokenizer: str, length: int, features: str | None, kept: Kept) -> Source:
    """A data set of text. Its tokens are made once."""
    archive, read = text.READERS[name]
    folder = fetch(archive, kept.root)
    by = tokens.tokenizer(tokenizer, kept.root)
    about = f"{name} {ARCHIVES[archive].sha256} {tokenizer} {by.size} {length}"
    found = kept.read("tokens", about)
    said = None if found is not None and name in PLAIN else read(folder)
    if features is not None and isinstance(said, text.Spoken):
        raise ConfigError(f"`features` ({features!r}) need texts with classes, and {name!r} has none; leave it out")
    if found is None:
        assert said is not None
        found = _rows(said, by, length) if isinstance(said, text.Labelled) else _windows(said, by, length)
        kept.write("tokens", about, found)
    classes = by.size if isinstance(said, text.Spoken) else int(found["labels"].max()) + 1
    source = Source(
        name,
        found["inputs"],
        found["labels"],
        found["test_inputs"],
        found["test_labels"],
        classes,
        owners=found.get("owners"),
        test_owners=found.get("test_owners"),
        tokenizer=tokenizer,
        pad=by.pad,
        length=length,
    )
    if features is not None:
        inputs, test_inputs = (embed(features, part, by.pad, kept) for part in (source.inputs, source.test_inputs))
        scale = Scale.of(inputs)
        source = replace(
            source, inputs=scale(inputs), test_inputs=scale(test_inputs), pad=None, features=features, scale=scale
        )
    if isinstance(said, text.Spoken):
        who, hours = tuple(said.texts), said.hours
    else:
        who, hours = said.who if said is not None else (), None
    if not who:
        return source
    domains = list(dict.fromkeys(domain for domain, _ in who))
    grouped = len(domains) > 1
    return replace(
        source,
        owner_names=tuple(f"{owner}, {domain}" if grouped else owner for domain, owner in who),
        domains=torch.tensor([domains.index(domain) for domain, _ in who]) if grouped else None,
        domain_names=tuple(domains) if grouped else (),
        hours=None if hours is None else tuple(hours[owner] for owner in who),
    )


PLAIN = ("bbc_news", "imdb", "newsgroups", "reuters_r52", "reuters_r8")
"""Of which nothing need be known but the tokens."""


def _rows(said: text.Labelled, by: tokens.Tokenizer, length: int) -> dict[str, Tensor]:
    """Labelled texts as tokens."""
    made = {
        "inputs": tokens.rows(said.texts, by, length),
        "labels": torch.tensor(said.labels),
        "test_inputs": tokens.rows(said.test_texts, by, length),
        "test_labels": torch.tensor(said.test_labels),
    }
    if said.who:
        made |= {"owners": torch.tensor(said.owners), "test_owners": torch.tensor(said.test_owners)}
    return made


def _windows(said: text.Spoken, by: tokens.Tokenizer, length: int) -> dict[str, Tensor]:
    """Running text as windows of tokens, owner after owner."""
    made = {}
    for part, texts in (("", said.texts), ("test_", said.test_texts)):
        cut = [tokens.windows(texts[owner], by, length) for owner in said.texts]
        made[f"{part}inputs"] = torch.cat([inputs for inputs, _ in cut])
        made[f"{part}labels"] = torch.cat([labels for _, labels in cut])
        counts = torch.tensor([len(inputs) for inputs, _ in cut])
        made[f"{part}owners"] = torch.arange(len(cut)).repeat_interleave(counts)
    return made


def device_fps(cache: Path | None = None) -> np.ndarray:
    """How fast real phones and tablets are: one frame rate per device, in frames/s, float64 [822], ordered by name.

    The detect-gpu benchmarks, one WebGL scene each. A device listed several times (mostly the same measurement under
    several GPU names) counts once, by its median; the one device measured at 0 is dropped.
    """
    folder = fetch("phones", cache)
    rates: dict[str, list[float]] = {}
    try:
        for path in sorted(folder.glob("m-*.json")):
            for entry in json.loads(path.read_bytes())[1:]:  # the first is the format's version
                for _width, _height, fps, device in entry[4]:
                    if fps > 0:
                        rates.setdefault(device, []).append(fps)
    except (ValueError, LookupError, TypeError) as error:
        raise _damaged(folder, error) from error
    if not rates:
        raise _damaged(folder, "no device in it")
    return np.array([np.median(rates[device]) for device in sorted(rates)], dtype=np.float64)


def _digits() -> Source:
    from sklearn.datasets import load_digits  # here, since importing scikit-learn takes a second

    pixels, labels = load_digits(return_X_y=True)
    order = Key(0).fold("digits", "split").numpy().permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    test = np.sort(order[::5])  # every fifth of the images in order of class: 20 % of each class, within one image
    train = np.setdiff1d(order, test)
    images = pixels.astype(np.uint8).reshape(-1, 1, 8, 8)
    return _normalised("digits", images[train], labels[train], images[test], labels[test], 10)


def _idx_source(name: str, folder: Path) -> Source:
    suffix = ".gz" if name == "fashion_mnist" else ""
    kinds = ("images-idx3", "labels-idx1")
    train, train_labels, test, test_labels = (
        _idx(folder / f"{part}-{kind}-ubyte{suffix}") for part in ("train", "t10k") for kind in kinds
    )
    if train.shape != (60_000, 28, 28) or test.shape != (10_000, 28, 28):
        raise _damaged(folder, f"images {train.shape} and {test.shape}, expected 60000 and 10000 of 28×28")
    return _normalised(name, train[:, None], train_labels, test[:, None], test_labels, 10)


def _idx(path: Path) -> np.ndarray:
    """Read an idx file of bytes: 0, 0, type 8, the number of dimensions; each dimension, big-endian; the data."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path.parent, f"{path.name}: {error}") from error
    dimensions = raw[3] if len(raw) > 3 else 0
    shape = tuple(int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions))
    if raw[:3] != b"\x00\x00\x08" or not dimensions or len(raw) != 4 + 4 * dimensions + math.prod(shape):
        raise _damaged(path.parent, f"{path.name}: its idx header is {raw[:4].hex()} and its size {len(raw)} bytes")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _cifar10(folder: Path) -> Source:
    parts = {}
    for part, size in {"train": 50_000, "test": 10_000}.items():
        for kind, dtype, shape in (("images", np.uint8, (size, 3, 32, 32)), ("labels", np.int64, (size,))):
            try:
                array = np.load(folder / f"{part}_{kind}.npy", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise _damaged(folder, error) from error
            if array.dtype != dtype or array.shape != shape:
                raise _damaged(folder, f"{part}_{kind}.npy holds {array.dtype} {array.shape}")
            parts[part, kind] = array
    train, train_labels, test, test_labels = parts.values()
    return _normalised("cifar10", train, train_labels, test, test_labels, 10)


def _damaged(folder: Path, what: object) -> DataError:
    return DataError(f"{folder.name}: its files in {folder} are damaged ({what}); delete that folder and load it again")


def _normalised(
    name: str, train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, classes: int
) -> Source:
    """Make a Source of uint8 images [n, channels, height, width].

    The sums are over integers, hence exact: the normalisation does not depend on the number of threads.
    """
    count = np.zeros((train.shape[1], 256), dtype=np.int64)
    for start in range(0, len(train), 4096):
        for channel, total in enumerate(count):
            total += np.bincount(train[start : start + 4096, channel].ravel(), minlength=256)
    value, n = np.arange(256), count.sum(1)
    mean = (count * value).sum(1) / n
    std = np.sqrt((count * value**2).sum(1) / n - mean**2)
    if not (std > 0).all():
        raise DataError(f"{name}: a channel of its images is constant (std {std}), so it cannot be normalised; drop it")
    shift, scale = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (mean, std))
    x, test_x = (torch.tensor(part, dtype=torch.float32).sub_(shift).div_(scale) for part in (train, test))
    return _checked(name, x, _labels(name, train_labels), test_x, _labels(name, test_labels), classes)


def _checked(name: str, x: Tensor, y: Tensor, test_x: Tensor, test_y: Tensor, classes: int | None = None) -> Source:
    """A Source, if its parts fit together."""
    for part, inputs, labels in (("train", x, y), ("test", test_x, test_y)):
        if inputs.ndim < 2 or len(inputs) == 0:
            raise DataError(f"{name}: the {part} inputs have shape {list(inputs.shape)}; give [n, *shape] with n ≥ 1")
        if labels.shape != inputs.shape[:1]:
            raise DataError(
                f"{name}: {list(labels.shape)} {part} labels for {len(inputs)} inputs; give one integer label per input"
            )
    if x.shape[1:] != test_x.shape[1:]:
        raise DataError(
            f"{name}: train inputs are {list(x.shape[1:])}, test inputs {list(test_x.shape[1:])}; give both one shape"
        )
    low, high = (int(bound) for bound in torch.aminmax(torch.cat([y, test_y])))
    if low < 0 or (classes is not None and high >= classes):
        raise DataError(
            f"{name}: labels from {low} to {high}, expected 0 to {'classes' if classes is None else classes} - 1; "
            "number the classes from 0 and leave unlabeled examples out"
        )
    return Source(name, x, y, test_x, test_y, high + 1 if classes is None else classes)


def _labels(name: str, labels: object) -> Tensor:
    array = np.asarray(labels)
    if array.dtype.kind not in "iu":
        raise DataError(f"{name}: labels are {array.dtype}, expected integers from 0; number the classes")
    return torch.from_numpy(array.astype(np.int64))


def _users_own(name: str, module: str, function: str) -> Source:
    with _current_folder_importable():
        try:
            make = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"`dataset` ({name!r}) cannot be imported: {error}; give `module:function`") from error
        try:
            parts = make()
            count = len(parts)
            if count == 2:
                parts = [side for part in parts for side in _unzip(part)]
        except Exception as error:  # whatever the user's own code raises
            raise DataError(f"{name}: the function raised {type(error).__name__}: {error}; mend it") from error
    if count not in (2, 4):
        raise DataError(
            f"{name}: the function returned {count} things; return (train_x, train_y, test_x, test_y), or two Datasets"
        )
    x, y, test_x, test_y = parts
    return _checked(name, _floats(name, x), _labels(name, y), _floats(name, test_x), _labels(name, test_y))


@contextlib.contextmanager
def _current_folder_importable() -> Iterator[None]:
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _unzip(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """A map-style Dataset of (input, label) pairs as two arrays."""
    pairs = [dataset[i] for i in range(len(dataset))]
    inputs = [x for x, _ in pairs]
    if hasattr(inputs[0], "getbands"):  # images of PIL, without importing it
        stacked = _pixels(inputs, "L" if all(map(_grey, inputs)) else "RGB")
    else:
        stacked = np.stack([np.asarray(x) for x in inputs])
    return stacked, np.array([int(y) for _, y in pairs])


def _floats(name: str, values: Any) -> Tensor:
    tensor = torch.as_tensor(values)
    if tensor.dtype == torch.uint8:
        return tensor.to(torch.float32) / 255
    if not tensor.is_floating_point():
        raise DataError(f"{name}: inputs are {tensor.dtype}, expected floats, or uint8 images; convert them")
    if not bool(torch.isfinite(tensor).all()):
        raise DataError(f"{name}: its inputs hold NaN or infinite values; clean them")
    return tensor.detach().to("cpu", torch.float32)


def _grey(image: Any) -> bool:
    return image.mode in ("1", "L", "LA")


def _pixels(images: Sequence[Any], mode: str) -> np.ndarray:
    """Images of PIL as uint8 [n, channels, height, width]; mode is "L" or "RGB"."""
    if len(sizes := {image.size for image in images}) > 1:
        few = ", ".join(f"{width}×{height}" for width, height in sorted(sizes)[:3])
        raise ValueError(f"its images have {len(sizes)} sizes ({few}, …); resize them to one")
    pixels = np.stack([np.asarray(image.convert(mode)) for image in images])
    return pixels[:, None] if mode == "L" else pixels.transpose(0, 3, 1, 2)


def _hugging_face(name: str, cache: Path | None) -> Source:
    try:
        import datasets
    except ImportError:
        raise MissingExtra(f"`dataset` ({name!r})", "hf") from None
    where = name[3:]
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(where, cache_dir=None if cache is None else str(Path(cache) / "hf"))
    except Exception as error:  # each of the hub client's layers raises its own
        said = str(error).splitlines()[0] if str(error) else ""
        raise DataError(
            f"{name}: `datasets` cannot load it: {type(error).__name__}: {said}; "
            "check the name and the network, or give a local folder as hf:./folder"
        ) from error
    finally:
        if bars:
            datasets.enable_progress_bars()
    test_split = next((split for split in ("test", "validation", "valid") if split in found), None)
    if "train" not in found or test_split is None:
        raise DataError(f"{name}: its splits are {', '.join(found)}; `train` and `test` (or `validation`) are needed")
    train, test = found["train"], found[test_split]
    images = [column for column, feature in train.features.items() if isinstance(feature, datasets.Image)]
    labels = [column for column, feature in train.features.items() if isinstance(feature, datasets.ClassLabel)]
    usual = [column for column in ("label", "labels", "fine_label") if column in train.features]
    if len(images) != 1 or not (usual or len(labels) == 1):
        raise DataError(
            f"{name}: of its columns {', '.join(train.features)} {images} are images and {labels or usual} labels; "
            "one of each is needed: load it in a function of your own and give `module:function`"
        )
    label = usual[0] if usual else labels[0]
    feature = train.features[label]
    try:
        parts = [[row[images[0]] for row in split.select_columns(images)] for split in (train, test)]
        mode = "L" if all(map(_grey, parts[0])) else "RGB"
        pixels = [_pixels(part, mode) for part in parts]
    except (OSError, ValueError) as error:
        raise DataError(f"{name}: {error}") from error
    targets = [np.array(split[label][:]) for split in (train, test)]
    most = max(int(part.max()) for part in targets)
    classes = feature.num_classes if isinstance(feature, datasets.ClassLabel) else most + 1
    return _normalised(name, pixels[0], targets[0], pixels[1], targets[1], classes)
