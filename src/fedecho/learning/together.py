"""What the learner needs to train many clients as one batched program: which models can be, and who sees what when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd


@dataclass(frozen=True)
class Schedule:
    """What J jobs train on, the longest job first.

    Attributes:
        order: [J] the place of each row's job among the jobs given.
        steps: [J] local steps, never rising.
        examples: [J, K, B] the examples of each batch; where a batch is smaller than B, −1.
    """

    order: list[int]
    steps: list[int]
    examples: Tensor


def schedule(
    jobs: Sequence[tuple[int, int, np.random.Generator]], batch_size: int, epochs: int, steps: int | None
) -> Schedule:
    """The batches of jobs (first example, number of examples, generator of orders), drawn as each alone would draw."""
    per_epoch = [-(-n // batch_size) for _, n, _ in jobs]
    counts = [epochs * each if steps is None else steps for each in per_epoch]
    order = sorted(range(len(jobs)), key=lambda job: -counts[job])
    widest = min(batch_size, max(n for _, n, _ in jobs))
    examples = np.full((len(jobs), max(counts, default=0), widest), -1, dtype=np.int64)
    for row, job in enumerate(order):
        first, n, draws = jobs[job]
        for begin in range(0, counts[job], per_epoch[job]):
            drawn = first + draws.permutation(n)
            for step in range(begin, min(begin + per_epoch[job], counts[job])):
                batch = drawn[(step - begin) * batch_size : (step - begin + 1) * batch_size]
                examples[row, step, : len(batch)] = batch
    return Schedule(order, [counts[job] for job in order], torch.from_numpy(examples))


def why_not(module: nn.Module) -> str | None:
    """Why this module cannot be trained for many clients at once, if it cannot."""
    for part in module.modules():
        if isinstance(part, _NormBase) and part.track_running_stats:
            return "has running statistics, and group norm has none"
        if isinstance(part, _DropoutNd) and part.p > 0:
            return "has dropout, which draws from one generator in turn"
        if isinstance(part, nn.RNNBase):
            return "is recurrent, which torch.func cannot batch over weights"
    return None


def pad(examples: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Places to read and labels to learn, [J, B, …]: where a batch has no example, any input, and nothing to say."""
    missing = examples < 0
    wanted = labels[examples.clamp(min=0)]
    return examples.clamp(min=0), wanted.masked_fill(missing.view(*missing.shape, *[1] * (wanted.dim() - 2)), -100)
