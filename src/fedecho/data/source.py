"""A labelled data set, and the checks that every one passes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import DataError


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
        labels: [n] int64, in 0 … classes - 1; for a language model [n, L] the next token at each place, −100 for none;
            float32 for other targets: [n] or [n, T] numbers, or [n, L] of 0 and 1, one for each label that may hold.
        test_inputs: the test part, [m, *shape].
        test_labels: likewise, m of them.
        classes: the number of classes; for a language model, of tokens; of other targets, numbers per example.
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
        return self.labels.dim() == 2 and not self.labels.is_floating_point()

    @property
    def class_labels(self) -> bool:
        """Is each target one class label, as partitions by label need?"""
        return self.labels.dim() == 1 and not self.labels.is_floating_point()


def damaged(folder: Path, what: object) -> DataError:
    return DataError(f"{folder.name}: its files in {folder} are damaged ({what}); delete that folder and load it again")


def normalised(
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
    return check_source(name, x, to_labels(name, train_labels), test_x, to_labels(name, test_labels), classes)


def check_source(name: str, x: Tensor, y: Tensor, test_x: Tensor, test_y: Tensor, classes: int | None = None) -> Source:
    """A Source, if its parts fit together."""
    for part, inputs, labels in (("train", x, y), ("test", test_x, test_y)):
        if inputs.ndim < 2 or len(inputs) == 0:
            raise DataError(f"{name}: the {part} inputs have shape {list(inputs.shape)}; give [n, *shape] with n ≥ 1")
        if labels.shape[:1] != inputs.shape[:1]:
            raise DataError(
                f"{name}: {list(labels.shape)} {part} labels for {len(inputs)} inputs; give one label, or one row of "
                "targets, per input"
            )
    if x.shape[1:] != test_x.shape[1:]:
        raise DataError(
            f"{name}: train inputs are {list(x.shape[1:])}, test inputs {list(test_x.shape[1:])}; give both one shape"
        )
    if y.dtype != test_y.dtype or y.shape[1:] != test_y.shape[1:]:
        train, test = (f"{part.dtype} {list(part.shape[1:])}" for part in (y, test_y))
        raise DataError(f"{name}: a train target is {train}, a test target {test}; give both one type and shape")
    if y.is_floating_point():
        return Source(name, x, y, test_x, test_y, 1 if y.dim() == 1 else y.shape[1])
    low, high = (int(bound) for bound in torch.aminmax(torch.cat([y, test_y])))
    if low < 0 or (classes is not None and high >= classes):
        raise DataError(
            f"{name}: labels from {low} to {high}, expected 0 to {'classes' if classes is None else classes} - 1; "
            "number the classes from 0 and leave unlabeled examples out"
        )
    return Source(name, x, y, test_x, test_y, high + 1 if classes is None else classes)


def to_labels(name: str, labels: object) -> Tensor:
    array = np.asarray(labels)
    if array.dtype.kind not in "iu":
        raise DataError(f"{name}: labels are {array.dtype}, expected integers from 0; number the classes")
    return torch.from_numpy(array.astype(np.int64))


def to_targets(name: str, targets: object) -> Tensor:
    """A user's targets: [n] int64 class labels; [n] or [n, T] float32 numbers; or [n, L] float32 of 0 and 1, given as
    integers or booleans, one for each label that may hold.

    Raises:
        DataError: for another type or shape, or values that are not finite.
    """
    array = np.asarray(targets)
    if array.ndim == 1 and array.dtype.kind != "f":
        return to_labels(name, array)
    if array.ndim not in (1, 2) or array.dtype.kind not in "iubf":
        raise DataError(
            f"{name}: targets are {array.dtype} {list(array.shape)}; give class labels [n], numbers [n] or [n, T], or "
            "0 and 1 for each label [n, L]"
        )
    if array.dtype.kind != "f" and not np.isin(array, (0, 1)).all():
        raise DataError(f"{name}: integer targets [n, L] must be 0 or 1 for each label; give floats for regression")
    if not np.isfinite(array).all():
        raise DataError(f"{name}: its targets hold NaN or infinite values; clean them")
    return torch.from_numpy(array.astype(np.float32))


def to_floats(name: str, values: Any) -> Tensor:
    tensor = torch.as_tensor(values)
    if tensor.dtype == torch.uint8:
        return tensor.to(torch.float32) / 255
    if not tensor.is_floating_point():
        raise DataError(f"{name}: inputs are {tensor.dtype}, expected floats, or uint8 images; convert them")
    if not bool(torch.isfinite(tensor).all()):
        raise DataError(f"{name}: its inputs hold NaN or infinite values; clean them")
    return tensor.detach().to("cpu", torch.float32)
