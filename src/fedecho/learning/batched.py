"""Many jobs' local training as one program: J models side by side, each on its own batches.

Parameters are [J, *shape], inputs [J, B, *shape]. A job's batches are the ones it would train on alone. Where one is
smaller than B it is filled up with an example of its own that weighs 0; the longest job comes first, so that those that
are done leave the program from behind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

from ..algorithms.base import ClientRule
from ..core.messages import Extra

Places = Mapping[str, tuple[slice, Sequence[int], Sequence[int]]]
"""Where each parameter lies in the flat vector: its slice, its shape there, and the dimensions' way back."""


class Training(Protocol):
    """Of `ClientConfig`, what a step needs."""

    @property
    def momentum(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def clip(self) -> float: ...


@dataclass(frozen=True)
class Schedule:
    """What J jobs train on, the longest job first.

    Attributes:
        order: [J] the place of each row's job among the jobs given.
        steps: [J] local steps, never rising.
        examples: [J, K, B] the examples of each batch; one smaller than B is filled up with its job's first.
        sizes: [J, K] how many are the batch's own: 0 for who is done.
    """

    order: list[int]
    steps: list[int]
    examples: Tensor
    sizes: Tensor


def schedule(
    jobs: Sequence[tuple[int, int, np.random.Generator]], batch_size: int, epochs: int, steps: int | None
) -> Schedule:
    """The batches of jobs (first example, number of examples, generator of orders), drawn as each alone would draw."""
    per_epoch = [-(-n // batch_size) for _, n, _ in jobs]
    counts = [epochs * each if steps is None else steps for each in per_epoch]
    order = sorted(range(len(jobs)), key=lambda job: -counts[job])
    longest, widest = max(counts), min(batch_size, max(n for _, n, _ in jobs))
    examples = np.zeros((len(jobs), longest, widest), dtype=np.int64)
    sizes = np.zeros((len(jobs), longest), dtype=np.int64)
    for row, job in enumerate(order):
        first, n, draws = jobs[job]
        own = np.minimum(batch_size, n - batch_size * np.arange(per_epoch[job]))
        for begin in range(0, counts[job], max(per_epoch[job], 1)):
            drawn = np.full(per_epoch[job] * batch_size, first)
            drawn[:n] = first + draws.permutation(n)
            end = min(begin + per_epoch[job], counts[job])
            examples[row, begin:end] = drawn.reshape(-1, batch_size)[: end - begin, :widest]
            sizes[row, begin:end] = own[: end - begin]
    return Schedule(order, [counts[job] for job in order], torch.from_numpy(examples), torch.from_numpy(sizes))


def unsupported_reason(module: nn.Module) -> str | None:
    """Why this module cannot be trained for many clients at once, as far as its parts tell."""
    for part in module.modules():
        if isinstance(part, _NormBase) and part.track_running_stats:
            return "has running statistics, and group norm has none"
        if isinstance(part, _DropoutNd) and part.p > 0:
            return "has dropout, which draws from one generator in turn"
        if isinstance(part, nn.RNNBase):
            return "is recurrent, which torch.func cannot batch over weights"
    return None


class BatchedTrainer:
    """Trains many models of one module at once.

    Args:
        module: one with `forward_many(parameters, inputs)` computes the logits [J, B, C] of many models itself; others
            are vmapped.
        places: where its parameters lie.
        gather: inputs [m, *shape], as the module sees them, and labels [m] or [m, L] of m examples.
    """

    def __init__(self, module: nn.Module, places: Places, gather: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        self._module, self._places, self._gather = module, places, gather
        self._names = list(places)
        own = getattr(module, "forward_many", None)
        self._forward: Callable[[dict[str, Tensor], Tensor], Tensor] = own or vmap(self._one)

    def _one(self, state: dict[str, Tensor], inputs: Tensor) -> Tensor:
        with _Grouped():
            logits: Tensor = functional_call(self._module, state, (inputs,))
        return logits

    def views(self, flat: Tensor) -> list[Tensor]:
        """The parameters [J, *shape] in `flat` [J, d], as they lie there."""
        return [flat[:, at].view(len(flat), *shape) for at, shape, _ in self._places.values()]

    def gradients(
        self, parts: Sequence[Tensor], buffers: dict[str, Tensor], examples: Tensor, weight: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Losses [J] and their gradients, laid out as `parts`, on `examples` [J, B], of which each weighs `weight`
        [J, B] in its job's mean."""
        backs = [back for _, _, back in self._places.values()]
        leaves = [
            part.detach().permute(0, *(1 + i for i in back)).requires_grad_()
            for part, back in zip(parts, backs, strict=True)
        ]
        inputs, labels = self._gather(examples.flatten())
        state = {**dict(zip(self._names, leaves, strict=True)), **buffers}
        logits = self._forward(state, inputs.view(*examples.shape, *inputs.shape[1:]))
        each = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.flatten(), reduction="none")
        if labels.dim() > 1:  # a mean over all tokens that are asked for, not over texts
            asked = (labels >= 0).view(*examples.shape, -1) & (weight > 0)[..., None]
            weight = (asked.to(each.dtype) / asked.sum((1, 2), keepdim=True)).flatten(1)
        losses = (each.view(len(examples), -1) * weight).sum(1)
        found = torch.autograd.grad(losses, leaves, torch.ones_like(losses), materialize_grads=True)
        as_they_lie = (
            g.permute(0, *(1 + back.index(i) for i in range(len(back)))) for g, back in zip(found, backs, strict=True)
        )
        return losses.detach(), list(as_they_lie)

    def train(
        self,
        plan: Schedule,
        start: Tensor,
        buffers: dict[str, Tensor],
        lrs: Sequence[float],
        extras: Sequence[Extra],
        how: Training,
        rule: ClientRule | None,
    ) -> tuple[Tensor, Tensor]:
        """Weights [J, d] after the plan's jobs, and the sums [J] of their losses, all in the plan's order.

        Args:
            plan: what they train on.
            start: [J, d].
            buffers: [J, *shape] by name.
            lrs: [J], step sizes.
            extras: [J], what came with the tasks.
            how: momentum, weight decay, clip.
            rule: what clients do differently; it sees one job after the other.
        """
        device = start.device
        flat, totals = start.clone(), torch.zeros(len(start), device=device, dtype=start.dtype)
        gradient = torch.zeros_like(flat) if rule is not None else None
        parts = self.views(flat)
        if rule is None:  # then all jobs' values of one parameter lie together, and fewer are copied on the way
            parts = [part.contiguous() for part in parts]
        momenta = [torch.zeros_like(part) for part in parts] if how.momentum else []
        own = torch.arange(plan.examples.shape[2]) < plan.sizes[..., None]
        weight = (own.to(start.dtype) / plan.sizes[..., None].clamp(min=1)).to(device)
        examples, rates = plan.examples.to(device), torch.tensor(lrs, device=device, dtype=start.dtype)
        alike = lrs[0] if len(set(lrs)) == 1 else None
        widths = [plan.sizes[:, step].max() for step in range(plan.sizes.shape[1])]
        active, here, kept, moving = 0, parts, buffers, momenta
        for step, width in enumerate(map(int, widths)):
            if active != (now := sum(steps > step for steps in plan.steps)):  # who is done does not move any more
                active = now
                here, moving = ([part[:now] for part in of] for of in (parts, momenta))
                kept = {name: buffer[:now] for name, buffer in buffers.items()}
            losses, found = self.gradients(here, kept, examples[:now, step, :width], weight[:now, step, :width])
            with torch.no_grad():
                totals[:now] += losses
                if how.weight_decay:
                    torch._foreach_add_(found, here, alpha=how.weight_decay)
                if rule is not None and gradient is not None:
                    views = self.views(gradient[:now])
                    torch._foreach_copy_(views, found)
                    found = views
                    for row in range(now):
                        rule.direct(gradient[row], flat[row], start[row], extras[row])
                if how.clip:
                    squares = torch.stack([g.flatten(1).square().sum(1) for g in found]).sum(0)
                    scale = (how.clip / (squares.sqrt() + 1e-12)).clamp(max=1.0)
                    found = list(torch._foreach_mul(found, [_beside(scale, g) for g in found]))
                if moving:
                    torch._foreach_mul_(moving, how.momentum)
                    torch._foreach_add_(moving, found)
                    found = list(moving)
                if alike is None:
                    found = list(torch._foreach_mul(found, [_beside(rates[:now], g) for g in found]))
                torch._foreach_add_(here, found, alpha=-1.0 if alike is None else -alike)
        return (torch.cat([part.flatten(1) for part in parts], 1) if rule is None else flat), totals


def _beside(numbers: Tensor, tensor: Tensor) -> Tensor:
    """[J] as [J, 1, …], to be multiplied with [J, …]."""
    return numbers.view(-1, *[1] * (tensor.dim() - 1))


class _Grouped(TorchFunctionMode):
    """Group norm by the operation beneath it: the one above asks how its inputs lie, which vmap cannot answer where
    channels lie behind."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return (_group_norm if func is F.group_norm else func)(*args, **(kwargs or {}))


def _group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    examples, channels, *sides = input.shape
    laid = input.contiguous()
    return torch.native_group_norm(laid, weight, bias, examples, channels, math.prod(sides), num_groups, eps)[0]
