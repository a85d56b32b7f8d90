"""Local training of one client: SGD on its own examples from the model it was sent."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..algorithms.base import ClientRule
from ..core.errors import ConfigError
from ..core.keys import Key
from ..core.messages import Model, Task, TrainResult
from ..objectives.base import Objective
from .flat import FlatModule, clip_norm
from .settings import ClientConfig


class LocalTraining:
    """Trains one client at a time.

    Args:
        flat: the module.
        inputs: all clients' inputs, as `Layout.place` returned them.
        targets: their targets, on the device.
        offsets: [N + 1] client i holds the examples offsets[i] to offsets[i + 1].
        client: the settings.
        key: where batch orders come from.
        rule: what clients do differently, or None.
        objective: gives the loss.

    Raises:
        ConfigError: for batches of one example and a model whose batch norm needs two.
    """

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
        self._flat, self._inputs, self._targets, self._offsets = flat, inputs, targets, offsets
        self._client, self._key, self._rule, self._objective = client, key, rule, objective
        self._normalizes_batches = any(isinstance(part, _BatchNorm) for part in flat.module.modules())
        if client.batch_size == 1 and any(isinstance(part, nn.BatchNorm1d) for part in flat.module.modules()):
            raise ConfigError(
                "client.batch_size is 1, and the model has batch norm, which needs two examples in a batch; raise "
                "client.batch_size, or give the model group norm"
            )

    def train(self, task: Task, model: Model) -> TrainResult:
        """Local training of the task's client from `model`; afterwards its model is loaded."""
        first, end = self._offsets[task.client], self._offsets[task.client + 1]
        n, client, rule, flat = end - first, self._client, self._rule, self._flat
        lr = client.lr * task.request.lr_scale
        key = self._key.fold("train", task.client, task.id, task.version)
        orders = key.numpy()
        flat.load(model)
        flat.module.train()
        velocity = torch.zeros_like(flat.weights) if client.momentum else None
        plain = rule is None and not (client.weight_decay or client.clip or client.momentum)
        batches = batch_slices(n, client.batch_size, self._normalizes_batches)
        steps = client.epochs * len(batches) if client.steps is None else client.steps
        steps = steps if batches else 0
        total = torch.zeros((), device=flat.layout.device, dtype=flat.layout.dtype)
        with key.torch_global():
            for step in range(steps):
                place = step % len(batches)
                if place == 0:  # one gather an epoch; a batch is then a view
                    order = torch.from_numpy(orders.permutation(n)).to(flat.layout.device) + first
                    inputs, targets = self._inputs[order], self._targets[order]
                loss = self._objective.loss(flat.outputs(inputs[batches[place]]), targets[batches[place]])
                total += loss.detach()
                if plain:  # nobody looks at the gradient as a whole
                    flat.plain_step(loss, lr)
                else:
                    self._step(loss, lr, task, model, velocity)
        trained = flat.weights.clone()
        extra = rule.report(model.weights, trained, steps, lr, task.extra) if rule is not None else {}
        metrics = {"loss": float(total) / steps} if steps else {}
        return TrainResult(task.id, trained, flat.buffers.clone(), n, metrics, None, extra)

    def _step(self, loss: Tensor, lr: float, task: Task, model: Model, velocity: Tensor | None) -> None:
        """A step with weight decay, the clients' rule, clipping and momentum, in this order."""
        client, weights, gradient = self._client, self._flat.weights, self._flat.gradient
        gradient.zero_()
        loss.backward()  # type: ignore[no-untyped-call]
        if client.weight_decay:
            gradient.add_(weights, alpha=client.weight_decay)
        if self._rule is not None:
            self._rule.direct(gradient, weights, model.weights, task.extra)
        if client.clip:
            clip_norm(gradient, client.clip)
        if velocity is not None:
            gradient.add_(velocity, alpha=client.momentum)
            velocity.copy_(gradient)
        weights.add_(gradient, alpha=-lr)


def batch_slices(n: int, batch_size: int, at_least_two: bool = False) -> list[slice]:
    """The batches of one pass over n examples.

    `at_least_two`: a last batch of one example joins the batch before it, since batch norm cannot be trained on a
    single example; a client that holds one example has no batch at all. Batches of size 1 are left as they are.
    """
    starts = list(range(0, n, batch_size))
    if at_least_two and batch_size > 1 and n % batch_size == 1:
        starts.pop()
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], n], strict=True)]
