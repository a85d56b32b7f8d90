"""U, the public unlabeled set on which clients' models are compared and distilled.

Nothing here reads a label, and U never holds an input of a client: `carve` sets the clients' part, the validation part
and the part held out for U apart before anything is dealt.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from ..core.errors import ConfigError, DataError
from ..core.keys import Key
from .derived import DerivedCache
from .features import embed
from .source import Source
from .sources import is_text, load
from .tokens import tokenizer

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


PIXELS = 1 << 15  # drawn at once: bounds memory for large images


LEAVES = 96  # a dead-leaves image


POINTS, BURN_IN, STEPS = 128, 10, 32  # a fractal: POINTS · STEPS points, each after BURN_IN steps of forgetting


def kinds() -> tuple[str, ...]:
    """The kinds of unlabeled set `unlabeled` makes, sorted."""
    return ("dataset:NAME", "dead_leaves", "file:PATH", "fractals", "generated", "held_out", "mixup", "noise")


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


def unlabeled(
    kind: str, size: int, source: Source, held_out: np.ndarray, key: Key, cache: Path | None = None
) -> Tensor:
    """Make U.

    "dataset:NAME" and the procedural kinds have mean 0 and standard deviation 1 per channel, as each built-in source
    has. With a source of your own that is not normalised so, take "held_out", "mixup" or "file:PATH".

    Kinds:

    - "held_out": inputs of `source` held out by `carve`, in random order.
    - "mixup": λa + (1 - λ)b of two different held-out images, λ ~ Beta(1, 1) (Zhang et al. 2018, arXiv 1710.09412).
    - "dataset:NAME": random train inputs of another data set, brought to the source's channels (grey to colour by
      repeating, colour to grey by luma) and size (bilinear, antialiased); of text, made tokens (or features) of as the
      source's are, these normalised by the source's means and deviations: another domain stays apart.
    - "dead_leaves": shapes with power-law radii that hide each other (Lee, Mumford & Huang 2001; as training data:
      Baradad et al. 2021, arXiv 2106.05963).
    - "fractals": attractors of random iterated function systems (Kataoka et al. 2020, arXiv 2101.08515), their maps
      drawn by singular values (Anderson & Farrell 2022, arXiv 2110.03091), so that none diverges or collapses.
    - "generated": text that the initial language model writes itself; here only its place, as no model is known: zeros.
    - "noise": independent Gaussian pixels (or features), the control.
    - "file:PATH": the first `size` rows of your own array in the source's normalisation: floats, .npy, .pt or
      .safetensors with one tensor. Reading it runs no code of the file's. For tokens: integers [n, L], token ids.

    Where the source is tokens, only "held_out", "dataset:NAME", "file:PATH" and "generated" make sense.

    Args:
        kind: see above.
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
    rng = key.numpy()
    shape = tuple(source.inputs.shape[1:])
    name, _, argument = kind.partition(":")
    if kind == "generated":
        if not source.causal:
            raise ConfigError(
                f"`unlabeled` ('generated') is text that a language model writes, and a model of {source.name} says "
                "classes; take 'held_out' or 'dataset:NAME'"
            )
        return torch.zeros(size, *shape, dtype=torch.int64)
    if source.pad is not None and name not in ("held_out", "dataset", "file"):
        raise ConfigError(
            f"`unlabeled` of kind {kind!r} makes numbers, and {source.name!r} is text, token ids; "
            "use 'held_out', 'dataset:NAME', 'file:PATH' or, for a language model, 'generated'"
        )
    if kind == "held_out":
        _enough(kind, size, len(held_out), "examples held out")
        return source.inputs[torch.from_numpy(rng.permutation(held_out)[:size])]
    if kind == "mixup":
        return _mixup(size, source.inputs, held_out, rng)
    if kind == "noise":
        return torch.from_numpy(rng.standard_normal((size, *shape), dtype=np.float32))
    if name == "file" and argument:
        return _file(Path(argument), size, source, cache)
    if name == "dataset" and argument:
        if argument == source.name:
            raise ConfigError(f"`unlabeled` ({kind!r}) would hold the clients' own inputs; use 'held_out'")
        if source.tokenizer is not None:
            return _other_text(kind, size, source, rng, cache)
        channels, height, width = _image_shape(kind, shape)
        if is_text(argument):
            raise ConfigError(f"`unlabeled` ({kind!r}) is text, and {source.name!r} is none; take another data set")
        inputs = load(argument, cache).inputs
        _image_shape(kind, tuple(inputs.shape[1:]))
        _enough(kind, size, len(inputs), f"train inputs in {argument}")
        images = inputs[torch.from_numpy(rng.permutation(len(inputs))[:size])]
        if images.shape[-2:] != (height, width):
            images = interpolate(images, (height, width), mode="bilinear", antialias=True)
        return _standardised(_recoloured(images, channels))
    draw = {"dead_leaves": _dead_leaves, "fractals": _fractals}.get(kind)
    if draw is None:
        raise ConfigError(f"`unlabeled` ({kind!r}) is unknown; choose from {', '.join(kinds())}")
    channels, height, width = _image_shape(kind, shape)
    return _standardised(_in_chunks(draw, size, channels, height, width, rng))


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
    found = load(other, cache, source.tokenizer, source.length)
    _enough(kind, size, len(found.inputs), f"train inputs in {other}")
    inputs = found.inputs[torch.from_numpy(rng.permutation(len(found.inputs))[:size])]
    if source.features is None:
        return inputs
    assert found.pad is not None
    assert source.scale is not None
    return source.scale(embed(source.features, inputs, found.pad, DerivedCache(cache)))


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


def _standardised(images: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 per channel, over the whole set."""
    axes = (0, 2, 3)
    pixels = images.numpy()  # whose sums do not depend on the number of threads
    mean, std = pixels.mean(axes, dtype=np.float64), pixels.std(axes, dtype=np.float64)
    shift, scale = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (mean, np.maximum(std, 1e-6)))
    return (images - shift) / scale


def _in_chunks(
    draw: Callable[[int, int, int, int, np.random.Generator], Tensor],
    size: int,
    channels: int,
    height: int,
    width: int,
    rng: np.random.Generator,
) -> Tensor:
    chunk = max(1, PIXELS // (height * width))
    counts = [min(chunk, size - start) for start in range(0, size, chunk)]
    # Drawing is many small steps. On a busy machine, waiting for other threads after each made it 15 times slower; one
    # thread is as fast as two at rest.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return torch.cat([draw(count, channels, height, width, rng) for count in counts])
    finally:
        torch.set_num_threads(threads)


def _uniform(rng: np.random.Generator, low: float, high: float, *shape: int) -> Tensor:
    return torch.from_numpy(rng.random(shape, dtype=np.float32)).mul_(high - low).add_(low)


def _dead_leaves(count: int, channels: int, height: int, width: int, rng: np.random.Generator) -> Tensor:
    """[count, channels, height, width]: leaves fall one after another, each hides what lies below it.

    First which leaf is seen at each pixel, then that leaf's colour and stripes, then a slight blur of random strength.
    """
    side = max(height, width)
    smallest, largest = max(1.0, side / 20), side / 2
    # The density of radii is r^-3: the scene then looks the same at any distance.
    radius = (smallest**-2 - _uniform(rng, 0, 1, LEAVES, count) * (smallest**-2 - largest**-2)) ** -0.5
    row, column = _uniform(rng, 0, height, LEAVES, count), _uniform(rng, 0, width, LEAVES, count)
    angle, stretch = _uniform(rng, 0, math.pi, LEAVES, count), _uniform(rng, 0.6, 1.6, LEAVES, count)
    round_leaf = _uniform(rng, 0, 1, LEAVES, count) < 0.5
    ys, xs = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    seen = torch.zeros(count, height, width, dtype=torch.int64)
    for leaf in range(LEAVES):
        dy, dx = (a - b[leaf, :, None, None] for a, b in ((ys, row), (xs, column)))
        cos, sin = angle[leaf].cos()[:, None, None], angle[leaf].sin()[:, None, None]
        u, v = (dx * cos + dy * sin).abs_() * stretch[leaf, :, None, None], (dy * cos - dx * sin).abs_()
        far = torch.where(round_leaf[leaf, :, None, None], torch.hypot(u, v), torch.maximum(u, v))
        seen.masked_fill_(far < radius[leaf, :, None, None], leaf)
    at = (seen + torch.arange(count)[:, None, None] * LEAVES).flatten()

    def of_leaf(low: float, high: float) -> Tensor:
        return _uniform(rng, low, high, count * LEAVES)[at].view(count, 1, height, width)

    turn, wave, phase = of_leaf(0, math.pi), of_leaf(0.5, 2.5), of_leaf(0, 2 * math.pi)
    contrast = of_leaf(-0.3, 0.3).clamp_(min=0)  # half of the leaves are plain
    stripes = contrast * torch.sin((xs * turn.cos() + ys * turn.sin()) * wave + phase)
    images = torch.cat([of_leaf(0, 1) + stripes for _ in range(channels)], dim=1)
    softness = _uniform(rng, 0, 1, count, 1, 1, 1)
    return images + softness * (_blurred(images) - images)


def _blurred(images: Tensor) -> Tensor:
    """The binomial blur (1, 2, 1)/4 along both axes; elementwise, so that its bits do not depend on threads."""
    x = pad(images, (1, 1, 1, 1), mode="replicate")
    x = (x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]) / 4
    return (x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]) / 4


def _fractals(count: int, channels: int, height: int, width: int, rng: np.random.Generator) -> Tensor:
    """[count, channels, height, width]: the chaos game on one random iterated function system an image."""
    maps = _systems(count, rng)  # [count, SLOTS, 6]
    slots = maps.shape[1]
    flat, base = maps.reshape(-1, 6), torch.arange(count)[:, None] * slots
    x, y = _uniform(rng, -1, 1, count, POINTS), _uniform(rng, -1, 1, count, POINTS)
    steps = []
    for step in range(BURN_IN + STEPS):
        slot = torch.from_numpy(rng.integers(slots, size=(count, POINTS), dtype=np.uint8)).long()
        a, b, c, d, e, f = flat[slot + base].unbind(-1)
        x, y = a * x + b * y + e, c * x + d * y + f
        if step >= BURN_IN:
            steps.append(torch.stack([x, y]))
    points = torch.cat(steps, dim=2)  # [2, count, points]
    rare = max(1, POINTS * STEPS // 200)  # a few far points must not shrink the picture
    low, high = (points.kthvalue(k, dim=2, keepdim=True)[0] for k in (rare, points.shape[2] - rare))
    size = torch.tensor([width, height])[:, None, None]
    places = ((points - low) / (high - low).clamp_(min=1e-6) * (size - 1)).round_().long()
    where = places[0] + width * (places[1] + height * torch.arange(count)[:, None])
    inside = ((points >= low) & (points <= high)).all(0)
    hits = torch.bincount(where[inside], minlength=count * height * width).view(count, 1, height, width)
    light = torch.log1p(hits.to(torch.float32))
    light /= light.amax((1, 2, 3), keepdim=True).clamp_(min=1)
    dark, bright = _uniform(rng, 0, 0.3, count, channels, 1, 1), _uniform(rng, 0.4, 1, count, channels, 1, 1)
    return dark + (bright - dark) * light


def _systems(count: int, rng: np.random.Generator) -> Tensor:
    """Random iterated function systems, as tables [count, 64, 6]: a random slot is a map drawn by its probability.

    A system has 2 to 8 maps (x, y) → A(x, y) + (e, f); A is a rotation, singular values below 1, and a rotation.
    Anderson & Farrell find attractors with visible geometry where the sum of σ₁ + 2σ₂ over the N maps lies between
    (5 + N)/2 and (6 + N)/2; here uniform σ are raised to the power that brings the sum there. Probabilities go by
    |det A|.
    """
    most = 8
    number = rng.integers(2, most + 1, size=count)
    real = np.arange(most) < number[:, None]
    sigma = np.sort(rng.uniform(0.05, 0.95, (count, most, 2)))[..., ::-1]
    target = (5 + number + rng.random(count)) / 2
    low, high = np.full(count, -6.0), np.full(count, 6.0)  # of the exponent's logarithm
    for _ in range(30):
        middle = (low + high) / 2
        powered = sigma ** np.exp(middle)[:, None, None]
        too_large = (np.where(real, powered[..., 0] + 2 * powered[..., 1], 0)).sum(1) > target
        low, high = np.where(too_large, middle, low), np.where(too_large, high, middle)
    cos, sin = (f(rng.uniform(-np.pi, np.pi, (2, count, most))) for f in (np.cos, np.sin))
    s1, s2 = powered[..., 0], powered[..., 1] * rng.choice([-1, 1], (count, most))
    a = cos[0] * s1 * cos[1] - sin[0] * s2 * sin[1]
    b = -cos[0] * s1 * sin[1] - sin[0] * s2 * cos[1]
    c = sin[0] * s1 * cos[1] + cos[0] * s2 * sin[1]
    d = -sin[0] * s1 * sin[1] + cos[0] * s2 * cos[1]
    shift = rng.uniform(-1, 1, (2, count, most))
    maps = np.stack([a, b, c, d, shift[0], shift[1]], axis=-1)
    weight = np.where(real, np.abs(s1 * s2) + 0.02, 0)
    edges = np.cumsum(weight, axis=1) / weight.sum(1, keepdims=True)
    slot = (np.arange(64) + 0.5) / 64
    chosen = (slot[None, :, None] > edges[:, None, :-1]).sum(2)
    return torch.from_numpy(np.take_along_axis(maps, chosen[..., None], axis=1).astype(np.float32))
