"""Images drawn at random: dead leaves and fractals."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

PIXELS = 1 << 15
"""Drawn at once: bounds memory for large images."""

LEAVES = 96
"""Of a dead-leaves image."""

POINTS, BURN_IN, STEPS = 128, 10, 32
"""A fractal has POINTS · STEPS points, each drawn after BURN_IN steps that forget the start."""

SYSTEM_SLOTS = 64
"""Of a table of maps."""

Draw = Callable[[int, int, int, int, np.random.Generator], Tensor]
"""Draws (count, channels, height, width, rng) images."""


def standardised(images: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 per channel, over the whole set."""
    axes = (0, 2, 3)
    pixels = images.numpy()  # whose sums do not depend on the number of threads
    mean, std = pixels.mean(axes, dtype=np.float64), pixels.std(axes, dtype=np.float64)
    shift, scale = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (mean, np.maximum(std, 1e-6)))
    return (images - shift) / scale


def in_chunks(
    draw: Draw,
    size: int,
    channels: int,
    height: int,
    width: int,
    rng: np.random.Generator,
) -> Tensor:
    chunk = max(1, PIXELS // (height * width))
    counts = [min(chunk, size - start) for start in range(0, size, chunk)]
    # Drawing is many small steps. On a busy machine, waiting for other threads after each made it 15 times slower; on
    # an idle one, one thread is as fast as two.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return torch.cat([draw(count, channels, height, width, rng) for count in counts])
    finally:
        torch.set_num_threads(threads)


def _uniform(rng: np.random.Generator, low: float, high: float, *shape: int) -> Tensor:
    return torch.from_numpy(rng.random(shape, dtype=np.float32)).mul_(high - low).add_(low)


def dead_leaves(count: int, channels: int, height: int, width: int, rng: np.random.Generator) -> Tensor:
    """Dead leaves [count, channels, height, width]: leaves fall one after another, each hides what lies below it.

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


def fractals(count: int, channels: int, height: int, width: int, rng: np.random.Generator) -> Tensor:
    """Fractals [count, channels, height, width]: the chaos game on one random iterated function system per image."""
    maps = _systems(count, rng)  # [count, SYSTEM_SLOTS, 6]
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
    """Random iterated function systems, tables [count, SYSTEM_SLOTS, 6]: a random slot is a map by its probability.

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
    slot = (np.arange(SYSTEM_SLOTS) + 0.5) / SYSTEM_SLOTS
    chosen = (slot[None, :, None] > edges[:, None, :-1]).sum(2)
    return torch.from_numpy(np.take_along_axis(maps, chosen[..., None], axis=1).astype(np.float32))
