"""Local training of many clients at once, and whether a module can be trained so."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from ..algorithms.base import ClientRule
from ..core.keys import Key
from ..core.messages import Model, Task, TrainResult
from ..objectives.base import Objective
from .batched import BatchedTrainer, schedule, unsupported_reason
from .flat import FlatModule
from .layout import MemoryFormat
from .settings import ClientConfig

GRADIENT_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
"""How far a gradient in a batch of jobs may be from that of the job alone, relative to its largest entry. In float64
rounding is far below it. In float32, which is for modules that cannot be run in float64, two correct kernels may take
two sides of a ReLU or a maximum."""

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
    copy of the module (in float32 where it cannot be run so). The module itself is only read.

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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are for whoever trains, not for a check
        try:
            copied, alone = _gradients_alone(flat, inputs[:n], targets[:n], objective, key, torch.float64)
        except Exception:  # whatever a module raises that computes in float32 by itself
            copied, alone = _gradients_alone(flat, inputs[:n], targets[:n], objective, key, torch.float32)
        try:
            together = _gradients_together(copied, inputs[:n], targets[:n], objective, key)
        except Exception as fault:  # whatever torch or the module raises
            reason = (str(fault).strip() or type(fault).__name__).splitlines()[0]
            return f"cannot be batched over weights ({reason})"
    tolerance = GRADIENT_TOLERANCE[copied.layout.dtype]
    for one, batched in zip(alone, together, strict=True):
        if not float((batched - one).abs().max()) <= tolerance * float(one.abs().max()):
            return "has other gradients in a batch of jobs than alone: its examples seem to influence each other"
    return None


def _gradients_alone(
    flat: FlatModule, inputs: Tensor, targets: Tensor, objective: Objective, key: Key, dtype: torch.dtype
) -> tuple[FlatModule, list[Tensor]]:
    """A copy of the module in this type, and its gradients [d] on all examples and on the first half of them."""
    memory_format: MemoryFormat = "channels_last" if flat.layout.channels_last else "contiguous"
    copied = FlatModule(copy.deepcopy(flat.module).to(dtype), inputs, memory_format)
    copied.module.train()
    stored, wanted, gradients = copied.layout.place(inputs), copied.layout.to_device(targets), []
    for size in (len(inputs), max(1, len(inputs) // 2)):
        copied.gradient.zero_()
        with key.torch_global():
            objective.loss(copied.outputs(stored[:size]), wanted[:size]).backward()  # type: ignore[no-untyped-call]
        gradients.append(copied.gradient.clone())
    return copied, gradients


def _gradients_together(flat: FlatModule, inputs: Tensor, targets: Tensor, objective: Objective, key: Key) -> Tensor:
    """The gradients [2, d] of two jobs: one on all examples, one on the first half of them."""
    stored, wanted = flat.layout.place(inputs), flat.layout.to_device(targets)
    n, device = len(stored), stored.device

    def gather(rows: Tensor) -> tuple[Tensor, Tensor]:
        return flat.layout.view(stored[rows]), wanted[rows]

    trainer = BatchedTrainer(flat.module, flat.places, gather, objective)
    sizes = torch.tensor([n, max(1, n // 2)], device=device)
    examples = torch.arange(n, device=device).repeat(2, 1)
    counted = torch.arange(n, device=device) < sizes[:, None]
    weights, buffers = (torch.stack([part, part]) for part in (flat.weights, flat.buffers))
    with key.torch_global():
        _, gradients = trainer.gradients(trainer.views(weights), flat.named_buffers(buffers), examples, counted)
    return torch.cat([gradient.flatten(1) for gradient in gradients], 1)
