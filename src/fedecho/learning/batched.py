"""Many jobs' local training as one program: J models side by side, each on its own batches.

Parameters are [J, *shape], inputs [J, B, *shape]. A job's batches are the ones it would train on alone. A batch smaller
than B is filled up with an example of the same job that does not count; the longest job comes first, so that finished
jobs are the last rows, which are left out.
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
from ..objectives.base import Objective
from .flat import Places
from .outputs import output_tensor


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
    counts = [(epochs * batches if steps is None else steps) if batches else 0 for batches in per_epoch]
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
        module: one with `forward_many(parameters, inputs)` computes the outputs [J, B, …] of many models itself; others
            are vmapped.
        places: where its parameters lie.
        gather: inputs [m, *shape], as the module takes them, and targets [m, …] of m examples.
        objective: gives the losses.
    """

    def __init__(
        self,
        module: nn.Module,
        places: Places,
        gather: Callable[[Tensor], tuple[Tensor, Tensor]],
        objective: Objective,
    ) -> None:
        self._module, self._places, self._gather, self._objective = module, places, gather, objective
        self._names = list(places)
        own = getattr(module, "forward_many", None)
        self._forward: Callable[[dict[str, Tensor], Tensor], Tensor] = own or vmap(self._forward_one)

    def _forward_one(self, state: dict[str, Tensor], inputs: Tensor) -> Tensor:
        with _BatchableGroupNorm():
            return output_tensor(functional_call(self._module, state, (inputs,)))

    def views(self, flat: Tensor) -> list[Tensor]:
        """The parameters [J, *shape] in `flat` [J, d], as they lie there."""
        return [flat[:, at].view(len(flat), *shape) for at, shape, _ in self._places.values()]

    def gradients(
        self, parts: Sequence[Tensor], buffers: dict[str, Tensor], examples: Tensor, counted: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Losses [J] and their gradients, laid out as `parts`.

        A job's loss is the mean over all terms that are asked of those of its `examples` [J, B] which are `counted`
        [J, B] bool.
        """
        backs = [back for _, _, back in self._places.values()]
        leaves = [
            part.detach().permute(0, *(1 + i for i in back)).requires_grad_()
            for part, back in zip(parts, backs, strict=True)
        ]
        inputs, targets = self._gather(examples.flatten())
        state = {**dict(zip(self._names, leaves, strict=True)), **buffers}
        outputs = self._forward(state, inputs.view(*examples.shape, *inputs.shape[1:])).flatten(0, 1)
        terms = self._objective.losses(outputs, targets).view(len(examples), -1)
        asked = self._objective.asked(targets).view(*examples.shape, -1) & counted[..., None]
        weight = (asked.to(terms.dtype) / asked.sum((1, 2), keepdim=True)).flatten(1)
        losses = (terms * weight).sum(1)
        gradients = torch.autograd.grad(losses, leaves, torch.ones_like(losses), materialize_grads=True)
        as_they_lie = (
            gradient.permute(0, *(1 + back.index(i) for i in range(len(back))))
            for gradient, back in zip(gradients, backs, strict=True)
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
        device, dtype = start.device, start.dtype
        flat, totals = start.clone(), torch.zeros(len(start), device=device, dtype=dtype)
        parts = self.views(flat)
        if rule is None:  # then all jobs' values of one parameter lie together, and fewer are copied on the way
            parts = [part.contiguous() for part in parts]
        momenta = [torch.zeros_like(part) for part in parts] if how.momentum else []
        counted = (torch.arange(plan.examples.shape[2]) < plan.sizes[..., None]).to(device)
        examples, rates = plan.examples.to(device), torch.tensor(lrs, device=device, dtype=dtype)
        gradient = torch.zeros_like(flat) if rule is not None else None
        active, here, own_buffers, moving = 0, parts, buffers, momenta
        for step in range(plan.sizes.shape[1]):
            width = int(plan.sizes[:, step].max())
            if active != (now := sum(steps > step for steps in plan.steps)):  # jobs that are done do not move any more
                active = now
                here, moving = ([part[:now] for part in of] for of in (parts, momenta))
                own_buffers = {name: buffer[:now] for name, buffer in buffers.items()}
            losses, gradients = self.gradients(
                here, own_buffers, examples[:now, step, :width], counted[:now, step, :width]
            )
            with torch.no_grad():
                totals[:now] += losses
                if how.weight_decay:
                    torch._foreach_add_(gradients, here, alpha=how.weight_decay)
                if rule is not None and gradient is not None:
                    views = self.views(gradient[:now])
                    torch._foreach_copy_(views, gradients)
                    gradients = views
                    for row in range(now):
                        rule.direct(gradient[row], flat[row], start[row], extras[row])
                _step(here, gradients, moving, rates[:now], lrs, how)
        return (torch.cat([part.flatten(1) for part in parts], 1) if rule is None else flat), totals


def _step(
    parts: list[Tensor],
    gradients: list[Tensor],
    momenta: list[Tensor],
    rates: Tensor,
    lrs: Sequence[float],
    how: Training,
) -> None:
    """One step of SGD for every job, in place, with clipping and momentum.

    Args:
        parts: parameters, [J, *shape] each.
        gradients: likewise.
        momenta: likewise; empty without momentum.
        rates: [J] step sizes.
        lrs: the step sizes of all jobs as numbers; where they are equal one number does.
        how: momentum, clip.
    """
    if how.clip:
        squares = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0)
        scale = (how.clip / (squares.sqrt() + 1e-12)).clamp(max=1.0)
        gradients = list(torch._foreach_mul(gradients, [_beside(scale, g) for g in gradients]))
    if momenta:
        torch._foreach_mul_(momenta, how.momentum)
        torch._foreach_add_(momenta, gradients)
        gradients = list(momenta)
    if len(set(lrs)) > 1:
        torch._foreach_add_(
            parts, list(torch._foreach_mul(gradients, [_beside(rates, g) for g in gradients])), alpha=-1
        )
    else:
        torch._foreach_add_(parts, gradients, alpha=-lrs[0])


def _beside(numbers: Tensor, tensor: Tensor) -> Tensor:
    """[J] as [J, 1, …], to be multiplied with [J, …]."""
    return numbers.view(-1, *[1] * (tensor.dim() - 1))


class _BatchableGroupNorm(TorchFunctionMode):
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
