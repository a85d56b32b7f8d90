"""Local training of many clients at once, and whether a module can be trained so."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..algorithms.base import ClientRule
from ..core.keys import Key
from ..core.messages import Model, Task, TrainResult
from ..objectives.base import Objective
from .batched import BatchedTrainer, schedule, unsupported_reason
from .flat import FlatModule
from .settings import ClientConfig

GRADIENT_TOLERANCE = 1e-6
"""How far a gradient in a batch of jobs may be from that of the job alone, relative to its largest entry, in float64.
Rounding is far below it. In float32 it would not be: two correct kernels may take two sides of a ReLU or a maximum."""

CHECKED_EXAMPLES = 8
"""Examples on which gradients are compared, at most."""


class BatchedTraining:
    """Trains many clients at once; see `LocalTraining` for the arguments."""

    def __init__(
        self,
        flat: FlatModule,
        inputs: Tensor,
        targets: Tensor,
        offsets: tuple[int, ...],
        client: ClientConfig,
        key: Key,
        rule: ClientRule | None,
        objective: Objective,
    ) -> None:
        self._flat, self._offsets, self._client, self._key, self._rule = flat, offsets, client, key, rule

        def gather(examples: Tensor) -> tuple[Tensor, Tensor]:
            return flat.layout.view(inputs[examples]), targets[examples]

        self._trainer = BatchedTrainer(flat.module, flat.places, gather, objective)

    def train_many(self, jobs: Sequence[tuple[Task, Model]]) -> list[TrainResult]:
        """Local training of several jobs as one batched program: every client's own batches, from its own version.

        Agrees with `LocalTraining.train` but for rounding: a sum over a batch is taken in another order.
        """
        client, rule, offsets = self._client, self._rule, self._offsets
        sizes = [offsets[task.client + 1] - offsets[task.client] for task, _ in jobs]
        keys = [self._key.fold("train", task.client, task.id, task.version) for task, _ in jobs]
        drawing = [(offsets[task.client], n, key.numpy()) for (task, _), n, key in zip(jobs, sizes, keys, strict=True)]
        plan = schedule(drawing, client.batch_size, client.epochs, client.steps)
        jobs = [jobs[place] for place in plan.order]
        lrs = [client.lr * task.request.lr_scale for task, _ in jobs]
        start = torch.stack([model.weights for _, model in jobs])
        buffers = torch.stack([model.buffers for _, model in jobs])
        self._flat.module.train()
        extras, named = [task.extra for task, _ in jobs], self._flat.named_buffers(buffers)
        weights, totals = self._trainer.train(plan, start, named, lrs, extras, client, rule)
        losses = totals.tolist()
        results: dict[int, TrainResult] = {}
        for row, (task, model) in enumerate(jobs):
            trained, steps, place = weights[row].clone(), plan.steps[row], plan.order[row]
            extra = rule.report(model.weights, trained, steps, lrs[row], task.extra) if rule is not None else {}
            metrics = {"loss": losses[row] / steps} if steps else {}
            results[place] = TrainResult(task.id, trained, buffers[row].clone(), sizes[place], metrics, None, extra)
        return [results[place] for place in range(len(jobs))]


def batching_fault(
    flat: FlatModule, inputs: Tensor, targets: Tensor, objective: Objective, key: Key, examples: int
) -> str | None:
    """Why a module cannot be trained for many clients at once; None where it can.

    The gradients of two jobs with batches of unequal sizes are compared with those of each job alone, in float64 on a
    copy of the module. The module itself is only read.

    Args:
        flat: the module, with the initial model loaded.
        inputs: some inputs [n, *shape], n ≥ 1, not yet placed.
        targets: their targets, [n, …].
        objective: gives the losses.
        key: of random draws inside the module.
        examples: size of a batch.
    """
    if reason := unsupported_reason(flat.module):
        return reason
    n = min(len(inputs), examples, CHECKED_EXAMPLES)
    try:
        memory_format = "channels_last" if flat.layout.channels_last else "contiguous"
        double = FlatModule(copy.deepcopy(flat.module).double(), inputs, memory_format)
        stored = double.layout.place(inputs[:n])
        wanted = double.layout.to_device(targets[:n])
        double.module.train()
        alone = [_gradient_alone(double, stored[:size], wanted[:size], objective, key) for size in (n, max(1, n // 2))]
    except Exception as fault:  # whatever torch or the module raises
        return f"cannot be run in float64, in which batching is checked ({_first_line(fault)})"
    try:
        together = _gradients_together(double, stored, wanted, objective, key)
    except Exception as fault:
        return f"cannot be batched over weights ({_first_line(fault)})"
    for one, batched in zip(alone, together, strict=True):
        if not float((batched - one).abs().max()) <= GRADIENT_TOLERANCE * float(one.abs().max()):
            return "has other gradients in a batch of jobs than alone: its examples seem to influence each other"
    return None


def _gradient_alone(flat: FlatModule, stored: Tensor, targets: Tensor, objective: Objective, key: Key) -> Tensor:
    flat.gradient.zero_()
    with key.torch_global():
        objective.loss(flat.outputs(stored), targets).backward()  # type: ignore[no-untyped-call]
    return flat.gradient.clone()


def _gradients_together(flat: FlatModule, stored: Tensor, targets: Tensor, objective: Objective, key: Key) -> Tensor:
    """The gradients [2, d] of two jobs: one on all examples, one on the first half of them."""
    n, device = len(stored), stored.device
    gather: Callable[[Tensor], tuple[Tensor, Tensor]] = lambda rows: (flat.layout.view(stored[rows]), targets[rows])  # noqa: E731
    trainer = BatchedTrainer(flat.module, flat.places, gather, objective)
    sizes = torch.tensor([n, max(1, n // 2)], device=device)
    examples = torch.arange(n, device=device).repeat(2, 1)
    counted = torch.arange(n, device=device) < sizes[:, None]
    weights, buffers = (torch.stack([part, part]) for part in (flat.weights, flat.buffers))
    with key.torch_global():
        _, gradients = trainer.gradients(trainer.views(weights), flat.named_buffers(buffers), examples, counted)
    return torch.cat([gradient.flatten(1) for gradient in gradients], 1)


def _first_line(fault: Exception) -> str:
    return (str(fault).strip() or type(fault).__name__).splitlines()[0]
