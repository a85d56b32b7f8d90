"""U, the public unlabeled set on which clients' models are compared and distilled.

Nothing here reads a label, and U never holds an input of a client: `carve` sets the clients' part, the validation part
and the part held out for U apart before anything is dealt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..core.errors import ConfigError, DataError
from ..core.keys import Key
from .derived import DerivedCache
from .features import embed
from .procedural import Draw, dead_leaves, fractals, in_chunks, standardised
from .source import Source
from .sources import is_text, load
from .tokens import tokenizer

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def carve(source: Source, key: Key, *, unlabeled: int, validation: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split the train part at random into three, without looking at labels.

    Args:
        source: the data set.
        key: where the randomness comes from.
        unlabeled: examples held out for U.
        validation: examples held out for the server's validation.

    Returns:
        Positions in `source.inputs`, sorted int64, disjoint, together all: clients' part, validation, held out.

    Raises:
        ConfigError: a size is negative, or nothing is left to the clients.
    """
    n = len(source.inputs)
    sizes = {"unlabeled": unlabeled, "validation": validation}
    faults = [f"`{name}` ({size}) must not be negative" for name, size in sizes.items() if size < 0]
    if not faults and unlabeled + validation >= n:
        faults.append(
            f"`unlabeled` ({unlabeled}) + `validation` ({validation}) leaves the clients none of the {n} examples of "
            f"{source.name}; lower one of them"
        )
    if faults:
        raise ConfigError(faults)
    order = key.numpy().permutation(n).astype(np.int64)
    valid, held_out, clients = np.split(order, [validation, validation + unlabeled])
    return np.sort(clients), np.sort(valid), np.sort(held_out)


@dataclass(frozen=True)
class _Request:
    """What set is to be made.

    Attributes:
        kind: as the configuration says it, such as "dataset:mnist".
        argument: what follows the colon.
        size: the number of inputs.
        source: the data set that the models are trained on.
        held_out: positions in `source.inputs`.
        rng: all randomness.
        cache: the cache folder, or None.
    """

    kind: str
    argument: str
    size: int
    source: Source
    held_out: np.ndarray
    rng: np.random.Generator
    cache: Path | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input."""
        return tuple(self.source.inputs.shape[1:])


def unlabeled(
    kind: str, size: int, source: Source, held_out: np.ndarray, key: Key, cache: Path | None = None
) -> Tensor:
    """Make U.

    "dataset:NAME" and the procedural kinds have mean 0 and standard deviation 1 per channel, as each built-in source
    has. With a source of your own that is not normalised so, take "held_out", "mixup" or "file:PATH". Where the source
    is tokens, only "held_out", "dataset:NAME", "file:PATH" and "generated" make sense. The functions in `MAKERS` say
    what each kind is.

    Args:
        kind: one of `kinds()`.
        size: the number of inputs.
        source: the data set that the models are trained on; its labels are not read.
        held_out: positions in `source.inputs`, from `carve`.
        key: where the randomness comes from; the same key gives the same U.
        cache: the cache folder of "dataset:NAME"; None is `fetch.cache_dir()`.

    Returns:
        [size, *shape] float32, or [size, L] int64 token ids.

    Raises:
        ConfigError: an unknown kind, or a size that this kind cannot give.
        DataError: a file or a data set cannot be had or does not fit.
    """
    if size < 1:
        raise ConfigError(f"`unlabeled` ({size}) must be at least 1 to make a set of kind {kind!r}")
    name, _, argument = kind.partition(":")
    if source.pad is not None and name not in ("held_out", "dataset", "file", "generated"):
        raise ConfigError(
            f"`unlabeled` of kind {kind!r} makes numbers, and {source.name!r} is text, token ids; "
            "use 'held_out', 'dataset:NAME', 'file:PATH' or, for a language model, 'generated'"
        )
    make = MAKERS.get(f"{name}:{ARGUMENTS[name]}" if name in ARGUMENTS and argument else kind)
    if make is None:
        raise ConfigError(f"`unlabeled` ({kind!r}) is unknown; choose from {', '.join(kinds())}")
    return make(_Request(kind, argument, size, source, held_out, key.numpy(), cache))


def _from_held_out(request: _Request) -> Tensor:
    """Inputs of the source held out by `carve`, in random order."""
    _enough(request.kind, request.size, len(request.held_out), "examples held out")
    return request.source.inputs[torch.from_numpy(request.rng.permutation(request.held_out)[: request.size])]


def _from_mixup(request: _Request) -> Tensor:
    """λa + (1 - λ)b of two different held-out images, λ ~ Beta(1, 1) (Zhang et al. 2018, arXiv 1710.09412)."""
    return _mixup(request.size, request.source.inputs, request.held_out, request.rng)


def _from_noise(request: _Request) -> Tensor:
    """Independent Gaussian pixels (or features), the control."""
    return torch.from_numpy(request.rng.standard_normal((request.size, *request.shape), dtype=np.float32))


def _from_language_model(request: _Request) -> Tensor:
    """Text that the initial language model writes itself; zeros here, as no model is known yet."""
    if not request.source.causal:
        raise ConfigError(
            f"`unlabeled` ('generated') is text that a language model writes, and a model of {request.source.name} "
            "says classes; take 'held_out' or 'dataset:NAME'"
        )
    return torch.zeros(request.size, *request.shape, dtype=torch.int64)


def _from_file(request: _Request) -> Tensor:
    """The first rows of your own array, normalised as the source: floats, .npy, .pt or .safetensors with one tensor.
    Reading it runs no code of the file's. For tokens: integers [n, L], token ids."""
    return _file(Path(request.argument), request.size, request.source, request.cache)


def _from_dataset(request: _Request) -> Tensor:
    """Random train inputs of another data set, brought to the source's channels (grey to colour by repeating, colour to
    grey by luma) and size (bilinear, antialiased). Of text: tokens (or features) as the source's, these normalised by
    the source's means and deviations: another domain stays apart."""
    kind, size, source, other = request.kind, request.size, request.source, request.argument
    if other == source.name:
        raise ConfigError(f"`unlabeled` ({kind!r}) would hold the clients' own inputs; use 'held_out'")
    if source.tokenizer is not None:
        return _other_text(kind, size, source, request.rng, request.cache)
    channels, height, width = _image_shape(kind, request.shape)
    if is_text(other):
        raise ConfigError(f"`unlabeled` ({kind!r}) is text, and {source.name!r} is none; take another data set")
    inputs = load(other, request.cache).inputs
    _image_shape(kind, tuple(inputs.shape[1:]))
    _enough(kind, size, len(inputs), f"train inputs in {other}")
    images = inputs[torch.from_numpy(request.rng.permutation(len(inputs))[:size])]
    if images.shape[-2:] != (height, width):
        images = interpolate(images, (height, width), mode="bilinear", antialias=True)
    return standardised(_recoloured(images, channels))


def _drawn(draw: Draw, request: _Request) -> Tensor:
    channels, height, width = _image_shape(request.kind, request.shape)
    return standardised(in_chunks(draw, request.size, channels, height, width, request.rng))


def _from_dead_leaves(request: _Request) -> Tensor:
    """Shapes with power-law radii that hide each other (Lee, Mumford & Huang 2001; as training data: Baradad et al.
    2021, arXiv 2106.05963)."""
    return _drawn(dead_leaves, request)


def _from_fractals(request: _Request) -> Tensor:
    """Attractors of random iterated function systems (Kataoka et al. 2020, arXiv 2101.08515), their maps drawn by
    singular values (Anderson & Farrell 2022, arXiv 2110.03091), so that none diverges or collapses."""
    return _drawn(fractals, request)


ARGUMENTS = {"dataset": "NAME", "file": "PATH"}
"""Kinds that go on after a colon."""

MAKERS: dict[str, Callable[[_Request], Tensor]] = {
    "dataset:NAME": _from_dataset,
    "dead_leaves": _from_dead_leaves,
    "file:PATH": _from_file,
    "fractals": _from_fractals,
    "generated": _from_language_model,
    "held_out": _from_held_out,
    "mixup": _from_mixup,
    "noise": _from_noise,
}


def kinds() -> tuple[str, ...]:
    """The kinds of unlabeled set that `unlabeled` makes, sorted."""
    return tuple(MAKERS)


def _enough(kind: str, size: int, have: int, what: str) -> None:
    if have < size:
        raise ConfigError(f"`unlabeled` ({size}) of kind {kind!r} exceeds the {have} {what}; lower it")


def _image_shape(kind: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ConfigError(
            f"`unlabeled` of kind {kind!r} needs images [channels, height, width], got {list(shape)}; "
            "use 'held_out', 'mixup', 'noise' or 'file:PATH'"
        )
    return shape[0], shape[1], shape[2]


def _mixup(size: int, inputs: Tensor, held_out: np.ndarray, rng: np.random.Generator) -> Tensor:
    if len(held_out) < 2:
        raise ConfigError(
            f"`unlabeled` of kind 'mixup' mixes two held-out examples, got {len(held_out)}; hold out more"
        )
    n = len(held_out)
    first = rng.integers(n, size=size)
    second = (first + rng.integers(1, n, size=size)) % n  # never the same image twice
    weight = torch.from_numpy(rng.beta(1, 1, (size, *[1] * (inputs.ndim - 1))).astype(np.float32))
    a, b = (inputs[torch.from_numpy(held_out[pick])] for pick in (first, second))
    return weight * a + (1 - weight) * b


def _other_text(kind: str, size: int, source: Source, rng: np.random.Generator, cache: Path | None) -> Tensor:
    """Random texts of another data set, as tokens or features like the source's."""
    other = kind.partition(":")[2]
    if not is_text(other):
        raise ConfigError(f"`unlabeled` ({kind!r}) is no text, and {source.name!r} is; take another data set")
    texts = load(other, cache, source.tokenizer, source.length)
    _enough(kind, size, len(texts.inputs), f"train inputs in {other}")
    inputs = texts.inputs[torch.from_numpy(rng.permutation(len(texts.inputs))[:size])]
    if source.features is None:
        return inputs
    assert texts.pad is not None
    assert source.scale is not None
    return source.scale(embed(source.features, inputs, texts.pad, DerivedCache(cache)))


def _file(path: Path, size: int, source: Source, cache: Path | None) -> Tensor:
    shape = tuple(source.inputs.shape[1:])
    try:
        if path.suffix == ".npy":
            array: object = torch.from_numpy(np.load(path, allow_pickle=False))
        elif path.suffix == ".pt":
            array = torch.load(path, map_location="cpu", weights_only=True)
        elif path.suffix == ".safetensors":
            from safetensors.torch import load_file

            tensors = load_file(path)
            array = next(iter(tensors.values())) if len(tensors) == 1 else tensors
        else:
            raise ConfigError(f"`unlabeled` ('file:{path}') must end in .npy, .pt or .safetensors")
    except ConfigError:
        raise
    except Exception as error:  # each format raises its own on a damaged file
        raise DataError(f"the unlabeled set {path} cannot be read: {error}; give one array of numbers") from error
    words = source.pad is not None
    if not isinstance(array, Tensor) or (array.dtype not in INTEGERS if words else not array.is_floating_point()):
        got = str(array.dtype) if isinstance(array, Tensor) else type(array).__name__
        wanted = "integers, token ids" if words else "floats, normalised as the source"
        raise DataError(f"the unlabeled set {path} holds {got}; give one tensor of {wanted}")
    if tuple(array.shape[1:]) != shape or array.ndim == 0:
        raise DataError(
            f"the unlabeled set {path} has shape {list(array.shape)}, the source's inputs {list(shape)}; "
            f"give [n, {', '.join(map(str, shape))}]"
        )
    _enough(f"file:{path}", size, len(array), "rows in it")
    if words:
        assert source.tokenizer is not None
        most, ids = tokenizer(source.tokenizer, cache).size, array[:size].to(torch.int64)
        if int(ids.min()) < 0 or int(ids.max()) >= most:
            raise DataError(
                f"the unlabeled set {path} holds tokens from {int(ids.min())} to {int(ids.max())}, and "
                f"{source.tokenizer!r} has 0 to {most - 1}; give it in this tokenizer's ids"
            )
        return ids.clone()
    if not bool(torch.isfinite(array[:size]).all()):
        raise DataError(f"the unlabeled set {path} holds NaN or infinite values; clean it")
    return array[:size].to(torch.float32).clone()


def _recoloured(images: Tensor, channels: int) -> Tensor:
    """[n, c, h, w] with `channels` channels: by ITU-R 601 luma, by repeating, else through the channels' mean."""
    if images.shape[1] == channels:
        return images
    if images.shape[1] == 3:
        images = (images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    return images.mean(1, keepdim=True).repeat(1, channels, 1, 1)
