"""Max pooling that is fast where no gradient is needed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def max_pool(x: Tensor) -> Tensor:
    """`F.max_pool2d(x, 2)` of x [B, C, H, W]: the same values.

    Without a gradient nobody needs to know which of the four values was the largest, and on a CPU the maxima of slices
    take a fifth of the time: pooling was half of the cost of LeNet-5 there.
    """
    if torch.is_grad_enabled() or x.device.type != "cpu":
        return F.max_pool2d(x, 2)
    height, width = x.shape[-2] // 2 * 2, x.shape[-1] // 2 * 2
    x = torch.maximum(x[..., 0:height:2, :], x[..., 1:height:2, :])
    return torch.maximum(x[..., 0:width:2], x[..., 1:width:2])
