"""Predictions over a large vocabulary, kept by their top k: a few hundred bytes each instead of four per token.

A row of P predictions over V classes is one int16 tensor [P, 3k + 2], so that it travels, is stored and is
checkpointed like any other tensor. Per prediction it holds, bit for bit:

    k   float16   log-probabilities of the k most probable classes, most probable first
    k   int32     which these are
    1   float32   the log-probability of each of the other V − k classes, on which the missing mass lies evenly

Log-probabilities stand for logits: the two differ by a number that is the same for all classes, which neither a softmax
nor the softmax of a mean of such rows can see.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LOWEST = -60_000.0
"""Stands for the logarithm of nothing; float16 can hold it."""


class Top(NamedTuple):
    """What a row holds: values [P, k] float32, indices [P, k] int64, rest [P] float32 (all log-probabilities)."""

    values: Tensor
    indices: Tensor
    rest: Tensor


def width(k: int) -> int:
    """The int16 numbers that one prediction takes."""
    return 3 * k + 2


def pack(logits: Tensor, k: int) -> Tensor:
    """Logits [P, V] as a row [P, 3k + 2] int16; all V classes are kept where there are no more than k."""
    k = min(k, logits.shape[-1])
    logits = logits.float()
    top = logits.topk(k, dim=-1)
    log_mass = logits.logsumexp(-1)
    others = logits.shape[-1] - k
    if others:
        rest = logits.scatter(-1, top.indices, -torch.inf).logsumexp(-1) - log_mass
        rest = (rest - torch.log(torch.tensor(float(others)))).clamp(min=LOWEST)
    else:
        rest = torch.full_like(log_mass, LOWEST)
    values = (top.values - log_mass.unsqueeze(-1)).clamp(min=LOWEST).half()
    parts = (values.view(torch.int16), top.indices.int().view(torch.int16), rest.unsqueeze(-1).view(torch.int16))
    return torch.cat(parts, dim=-1)


def unpack(row: Tensor) -> Top:
    """What a row [P, 3k + 2] int16, or some of its predictions, holds."""
    k = (row.shape[-1] - 2) // 3
    values, indices, rest = (
        part.clone(memory_format=torch.contiguous_format) for part in torch.split(row, [k, 2 * k, 2], dim=-1)
    )
    return Top(
        values.view(torch.float16).float(),
        indices.view(torch.int32).long(),
        rest.view(torch.float32).squeeze(-1),
    )


def fault(row: Tensor, classes: int) -> str | None:
    """Why a row that came from somewhere cannot be used, if it cannot."""
    top = unpack(row)
    if not bool(torch.isfinite(top.values).all() and torch.isfinite(top.rest).all()):
        return "predictions are not finite"
    if bool((top.indices < 0).any() or (top.indices >= classes).any()):
        return f"predictions name classes beyond the {classes} there are"
    if bool((top.values > 1e-3).any() or (top.rest > 1e-3).any()):
        return "predictions are no log-probabilities: some exceed 0"
    return None
