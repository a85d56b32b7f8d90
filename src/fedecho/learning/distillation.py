"""Distilling into the server's model on the unlabeled set, or on other inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.keys import Key
from ..stages.compute import Distillation, Loss
from .flat import FlatModule, clip_norm


def distill(
    flat: FlatModule, stored: Tensor, places: Tensor | None, loss: Loss, how: Distillation, key: Key
) -> tuple[Tensor, float]:
    """`how.steps_on(n)` steps from the loaded model; the weights [d] after them and their mean loss.

    Batches go through the inputs in a keyed random order. Buffers are left alone: the module is in evaluation mode.

    Args:
        flat: the module.
        stored: n inputs, as `Layout.place` returned them.
        places: of a language model, where its inputs are not padding, [n, L] bool; else None.
        loss: of a batch's logits and the places of these predictions among all.
        how: optimizer, steps, batch size.
        key: where the orders come from.
    """
    flat.module.eval()
    weights, gradient, size = flat.weights, flat.gradient, len(stored)
    numbers = None if places is None else places.flatten().cumsum(0).view(places.shape) - 1
    adam = None
    if how.optimizer == "adam":
        weights.grad = gradient
        adam = torch.optim.Adam([weights], lr=how.lr)
    orders, total, queue = key.numpy(), 0.0, torch.zeros(0, dtype=torch.int64)
    steps = how.steps_on(size)
    for _ in range(steps):
        if len(queue) < min(how.batch_size, size):
            queue = torch.cat([queue, torch.from_numpy(orders.permutation(size))])
        batch, queue = queue[: how.batch_size].to(flat.layout.device), queue[how.batch_size :]
        gradient.zero_()
        logits = flat.outputs(stored[batch])
        if places is None or numbers is None:
            value = loss(logits, batch)
        else:
            value = loss(logits[places[batch]], numbers[batch][places[batch]])
        value.backward()  # type: ignore[no-untyped-call]
        if how.clip:
            clip_norm(gradient, how.clip)
        if adam is not None:
            adam.step()
        else:
            weights.add_(gradient, alpha=-how.lr)
        total += float(value.detach())
    return weights.clone(), total / max(steps, 1)
