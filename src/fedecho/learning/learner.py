"""The learner: everything that trains, predicts, distils or judges a model.

One module serves every client. Its trainable parameters are views into one flat vector and so are their gradients, so
that loading a model, a step of SGD and an aggregation are each one vector operation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ..algorithms.base import ClientRule
from ..data.federation import Federation
from ..errors import ConfigError
from ..messages import Model, Task, Update
from ..refine.base import Distillation, Generator, Loss, Synthesis, Synthetic
from ..rng import Key
from .generator import Networks, synthesize

INFERENCE_BATCH = 500
"""Examples per forward pass where no gradient is needed: the fastest on CPUs we timed; larger ones spill the caches."""


@dataclass(frozen=True)
class ClientConfig:
    """Local training.

    Attributes:
        epochs: passes over the client's data.
        steps: K, local steps instead of epochs, where given; batches go on over as many passes as that takes.
        batch_size: examples a step; the last batch of a pass may be smaller.
        lr: η_l, the SGD step.
        momentum: SGD momentum, starting from zero at each task.
        weight_decay: L2 penalty's coefficient, added to the gradient.
        clip: largest gradient norm; 0 does not clip.
    """

    epochs: int = 2
    steps: int | None = None
    batch_size: int = 50
    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip: float = 0.0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Correct answers and examples per class, [C] each, and the mean loss."""

    correct: Tensor
    examples: Tensor
    loss: float

    @property
    def accuracy(self) -> float:
        return float(self.correct.sum() / self.examples.sum())

    def accuracy_under(self, mix: Tensor) -> float:
        """The accuracy expected on data with the label distribution `mix` [C]. Classes without an example here are
        left out of it."""
        seen = self.examples > 0
        weight = mix[seen] / mix[seen].sum()
        return float((weight * self.correct[seen] / self.examples[seen]).sum())


class Learner:
    """Trains, predicts, distils and judges.

    Args:
        build: makes the module, drawing its initial weights from torch's global generator.
        data: the federation's data.
        client: local training.
        key: where batch orders and the initial weights come from.
        rule: what clients do differently, or None.
        device: torch device.
        memory_format: "channels_last" is faster for convolutions on most CPUs and GPUs; "auto" uses it for modules with
            2-d convolutions. It decides the bits.

    Raises:
        ConfigError: when the module has no trainable parameter, or one that is not float32.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        data: Federation,
        client: ClientConfig,
        key: Key,
        rule: ClientRule | None = None,
        device: str = "cpu",
        memory_format: Literal["auto", "contiguous", "channels_last"] = "auto",
    ) -> None:
        self.data, self.client, self.rule = data, client, rule
        self._key = key
        self.device = torch.device(device)
        with key.fold("init").torch_global():
            self.module = build().to(self.device)
        convolutional = any(isinstance(part, nn.Conv2d) for part in self.module.modules())
        self.channels_last = data.inputs.dim() == 4 and (
            memory_format == "channels_last" or (memory_format == "auto" and convolutional)
        )
        self._flatten()
        self._initial = Model(0, self._weights.clone(), self._buffers.clone())
        self._inputs, self._labels = self._place(data.inputs), data.labels.to(self.device)
        self._unlabeled = self._place(data.unlabeled)
        self.seconds = {"train_s": 0.0, "infer_s": 0.0, "distill_s": 0.0}

    def _flatten(self) -> None:
        named = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        parameters = list(named.values())
        if not parameters or any(p.dtype != torch.float32 for p in parameters):
            raise ConfigError("the model needs trainable parameters, all float32; freeze or convert the others")
        layouts = [self._layout(p) for p in parameters]
        self._weights = torch.cat(
            [p.detach().permute(order).reshape(-1) for p, (order, _) in zip(parameters, layouts, strict=True)]
        )
        self._gradient = torch.zeros_like(self._weights)
        a = 0
        self._places: dict[str, tuple[slice, list[int], tuple[int, ...]]] = {}
        for (name, p), (order, back) in zip(named.items(), layouts, strict=True):
            shape, place = [p.shape[i] for i in order], slice(a, a + p.numel())
            p.data = self._weights[place].view(shape).permute(back)
            p.grad = self._gradient[place].view(shape).permute(back)
            self._places[name] = (place, shape, back)
            a += p.numel()
        floats = [(m, n, b) for m in self.module.modules() for n, b in m.named_buffers(recurse=False)]
        floats = [(m, n, b) for m, n, b in floats if b.is_floating_point()]
        none = torch.zeros(0, device=self.device)
        self._buffers = torch.cat([none, *(b.detach().reshape(-1).float() for _, _, b in floats)])
        a = 0
        for m, n, buffer in floats:
            m._buffers[n] = self._buffers[a : a + buffer.numel()].view(buffer.shape)
            a += buffer.numel()
        # counters (of batch norm) do not travel: every job starts from the module's own, whoever worked before
        counters = [buffer for buffer in self.module.buffers() if not buffer.is_floating_point()]
        self._counters = [(buffer, buffer.clone()) for buffer in counters]

    def _layout(self, parameter: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The order in which a parameter's dimensions lie in the flat vector, and the way back."""
        if self.channels_last and parameter.dim() == 4:  # convolutions follow their weights' layout, too
            return (0, 2, 3, 1), (0, 3, 1, 2)
        return tuple(range(parameter.dim())), tuple(range(parameter.dim()))

    def laid_out(self) -> Federation:
        """The data as they are best given to a learner like this one, which then works on them without a copy."""
        how = torch.channels_last if self.channels_last else torch.contiguous_format
        inputs, unlabeled = (part.contiguous(memory_format=how) for part in (self.data.inputs, self.data.unlabeled))
        return replace(self.data, inputs=inputs, unlabeled=unlabeled)

    def _place(self, inputs: Tensor) -> Tensor:
        """Inputs on the device, channels behind where the module wants them so."""
        if self.channels_last:
            inputs = inputs.permute(0, 2, 3, 1).contiguous()
        return inputs.to(self.device)

    def _seen(self, inputs: Tensor) -> Tensor:
        """What `_place` stored, as the module sees it: [B, *shape]."""
        return inputs.permute(0, 3, 1, 2) if self.channels_last else inputs

    def _apply(self, model: Model, inputs: Tensor) -> Tensor:
        """The model's logits on inputs [B, *shape], without loading it: gradients reach the inputs."""
        views = {n: model.weights[at].view(shape).permute(back) for n, (at, shape, back) in self._places.items()}
        a = 0
        for name, buffer in self.module.named_buffers():
            if buffer.is_floating_point():
                views[name] = model.buffers[a : a + buffer.numel()].view(buffer.shape)
                a += buffer.numel()
        logits: Tensor = functional_call(self.module, views, (inputs,))
        return logits

    def _load(self, model: Model) -> None:
        self._weights.copy_(model.weights)
        self._buffers.copy_(model.buffers)
        for counter, start in self._counters:
            counter.copy_(start)

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] += time.perf_counter() - began

    # -- models in and out

    def initial(self) -> Model:
        """Version 0."""
        return self._initial

    def read(self, state_dict: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Weights [d] and buffers [b] of a plain state_dict.

        Raises:
            RuntimeError: when it does not fit the module, as `nn.Module.load_state_dict` does.
        """
        self.module.load_state_dict(state_dict)
        return self._weights.clone(), self._buffers.clone()

    def state_dict(self, model: Model) -> dict[str, Tensor]:
        """A plain state_dict of the model, contiguous CPU tensors, for `nn.Module.load_state_dict`."""
        self._load(model)
        return {name: value.detach().cpu().clone().contiguous() for name, value in self.module.state_dict().items()}

    # -- a client's work

    def train(self, task: Task, model: Model) -> Update:
        """Local training of the task's client from `model`; predicts on U where the task asks (`extra["predict"]`)."""
        with self._timed("train_s"):
            update = self._train(task, model)
        if not task.extra.get("predict"):
            return update
        with self._timed("infer_s"):
            predictions = self._outputs(self._unlabeled)
        return Update(
            update.task, update.weights, update.buffers, update.num_examples, update.metrics, predictions, update.extra
        )

    def _train(self, task: Task, model: Model) -> Update:
        first, end = self.data.offsets[task.client], self.data.offsets[task.client + 1]
        n, how, rule = end - first, self.client, self.rule
        lr = how.lr * float(task.extra.get("lr_scale", 1.0))
        key = self._key.fold("train", task.client, task.id, task.version)
        orders = key.numpy()
        self._load(model)
        self.module.train()
        weights, gradient = self._weights, self._gradient
        velocity = torch.zeros_like(weights) if how.momentum else None
        per_epoch = -(-n // how.batch_size)
        steps = how.epochs * per_epoch if how.steps is None else how.steps
        total = torch.zeros((), device=self.device)
        with key.torch_global():
            for step in range(steps):
                place = step % per_epoch
                if place == 0:  # one gather an epoch; a batch is then a view
                    order = torch.from_numpy(orders.permutation(n)).to(self.device) + first
                    inputs, labels = self._seen(self._inputs[order]), self._labels[order]
                rows = slice(place * how.batch_size, (place + 1) * how.batch_size)
                gradient.zero_()
                loss = F.cross_entropy(self.module(inputs[rows]), labels[rows])
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.detach()
                if how.weight_decay:
                    gradient.add_(weights, alpha=how.weight_decay)
                if rule is not None:
                    rule.direct(gradient, weights, model.weights, task.extra)
                if how.clip:
                    _clip(gradient, how.clip)
                if velocity is not None:
                    gradient.add_(velocity, alpha=how.momentum)
                    velocity.copy_(gradient)
                weights.add_(gradient, alpha=-lr)
        trained = weights.clone()
        extra = rule.report(model.weights, trained, steps, lr, task.extra) if rule is not None else {}
        metrics = {"loss": float(total) / max(steps, 1)}
        return Update(task.id, trained, self._buffers.clone(), n, metrics, None, extra)

    # -- the server's work

    def _outputs(self, inputs: Tensor) -> Tensor:
        self.module.eval()
        with torch.no_grad():
            batches = [self.module(self._seen(part)) for part in torch.split(inputs, INFERENCE_BATCH)]
        return torch.cat(batches)

    @property
    def shape(self) -> tuple[int, ...]:
        """One input's shape."""
        return tuple(self.data.inputs.shape[1:])

    def predict(self, model: Model, inputs: Tensor | None = None) -> Tensor:
        """Logits on `inputs` [n, *shape], [n, C]; by default on all of U, [|U|, C]."""
        with self._timed("infer_s"):
            self._load(model)
            return self._outputs(self._unlabeled if inputs is None else self._place(inputs))

    def distill(
        self, model: Model, loss: Loss, how: Distillation, key: Key, inputs: Tensor | None = None
    ) -> tuple[Tensor, float]:
        """`how.steps` steps on mini-batches of `inputs` [n, *shape] from `model`; the weights [d] after them and their
        mean loss. By default the inputs are U.

        Batches go through the inputs in a keyed random order. Buffers are left alone: the module is in evaluation mode.
        """
        with self._timed("distill_s"):
            self._load(model)
            self.module.eval()
            examples = self._unlabeled if inputs is None else self._place(inputs)
            weights, gradient, size = self._weights, self._gradient, len(examples)
            adam = None
            if how.optimizer == "adam":
                weights.grad = gradient
                adam = torch.optim.Adam([weights], lr=how.lr)
            orders, total, queue = key.numpy(), 0.0, torch.zeros(0, dtype=torch.int64)
            for _ in range(how.steps):
                if len(queue) < min(how.batch_size, size):
                    queue = torch.cat([queue, torch.from_numpy(orders.permutation(size))])
                batch, queue = queue[: how.batch_size].to(self.device), queue[how.batch_size :]
                gradient.zero_()
                value = loss(self.module(self._seen(examples[batch])), batch)
                value.backward()  # type: ignore[no-untyped-call]
                if how.clip:
                    _clip(gradient, how.clip)
                if adam is not None:
                    adam.step()
                else:
                    weights.add_(gradient, alpha=-how.lr)
                total += float(value.detach())
            return weights.clone(), total / max(how.steps, 1)

    def synthesize(
        self,
        generator: Generator | None,
        teachers: Sequence[Model],
        mix: Tensor,
        student: Model,
        how: Synthesis,
        key: Key,
    ) -> tuple[Generator, Synthetic]:
        """Inputs made from noise, on which the teachers agree and the student can learn; see `fedecho.refine.base`."""
        with self._timed("distill_s"):
            self.module.eval()
            networks = Networks(
                lambda x: [self._apply(model, x) for model in teachers], lambda x: self._apply(student, x)
            )
            return synthesize(generator, networks, self.shape, mix.to(self.device), how, key)

    def evaluate(self, model: Model, inputs: Tensor, labels: Tensor) -> Evaluation:
        """Judge a model on inputs [n, *shape] with labels [n]."""
        self._load(model)
        logits = self._outputs(self._place(inputs)).cpu()
        right = logits.argmax(-1) == labels
        classes = self.data.classes
        return Evaluation(
            correct=torch.bincount(labels[right], minlength=classes).double(),
            examples=torch.bincount(labels, minlength=classes).double(),
            loss=float(F.cross_entropy(logits, labels)),
        )


def _clip(gradient: Tensor, limit: float) -> None:
    """Scale the gradient down to the norm `limit`, in place."""
    norm = torch.linalg.vector_norm(gradient)
    gradient.mul_((limit / (norm + 1e-12)).clamp(max=1.0))
