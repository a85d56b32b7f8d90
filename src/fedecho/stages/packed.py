"""The ensemble of packed rows: teachers of which only the top k classes of each prediction are known."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..core.topk import Top


class PackedSum:
    """The weighted sum of packed teachers at B predictions over C classes, and the sum of the weights.

    A teacher's missing mass lies evenly on the classes that it does not name, so this is the exact sum of the packed
    rows; every class that any of them names counts.
    """

    def __init__(self, predictions: int, classes: int, device: torch.device) -> None:
        self.total = torch.zeros(predictions, classes, device=device)
        self.mass = torch.zeros(predictions, 1, device=device)

    def add_log_probabilities(self, top: Top, weight: Tensor, correction: Tensor | None) -> None:
        """Add a teacher's log-probabilities; `weight` is [B, 1] or [1], `correction` [C] is added to them."""
        rest = top.rest.unsqueeze(-1)
        self.total += weight * (rest if correction is None else rest + correction)
        self.total.scatter_add_(-1, top.indices, weight * (top.values - rest))
        self.mass += weight

    def add_probabilities(self, top: Top, weight: Tensor, correction: Tensor | None, temperature: float) -> None:
        """Add a teacher's probabilities at this temperature; the rest as above."""
        z = top.rest.unsqueeze(-1).expand(-1, self.total.shape[-1]).scatter(-1, top.indices, top.values)
        z = z if correction is None else z + correction
        self.total += weight * (z / temperature).softmax(-1)
        self.mass += weight

    def mean(self) -> Tensor:
        """The weighted mean, [B, C]."""
        return self.total / self.mass


def packed_uncertainty(top: Top, classes: int) -> Tensor:
    """h = H(p)/log C of packed predictions, [B, 1]."""
    others = classes - top.values.shape[-1]
    entropy = -(top.values.exp() * top.values).sum(-1) - others * top.rest.exp() * top.rest
    return (entropy / math.log(classes)).unsqueeze(-1)


def packed_class_shares(top: Top) -> Tensor:
    """How frequent a packed teacher expects the classes over its predictions, [n + 1]: the first n classes, and each
    class beyond them. Classes from n on are named nowhere."""
    rest = top.rest.exp()
    level = rest.mean()
    above = (top.values.exp() - rest.unsqueeze(-1)) / len(rest)
    named = rest.new_zeros(int(top.indices.max()) + 1).index_add_(0, top.indices.flatten(), above.flatten())
    return torch.cat([(named + level).clamp(min=0.0), level.unsqueeze(0)])


def over_all_classes(shares: Tensor, classes: int) -> Tensor:
    """Shares [n + 1] as `packed_class_shares` gives them, for all classes, [C]."""
    return torch.cat([shares[:-1], shares[-1:].expand(classes - len(shares) + 1)])
