"""The learner: everything that trains, predicts, distils or judges a model.

One module serves every client. Its trainable parameters are views into one flat vector and so are their gradients, so
that loading a model, a step of SGD and an aggregation are each one vector operation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ..algorithms.base import ClientRule
from ..core.errors import ConfigError
from ..core.keys import Key
from ..core.messages import Model, Task, TrainResult
from ..data.federation import Federation
from ..stages.compute import LOGITS, Distillation, Generator, Loss, PredictionFormat, Synthesis, Synthetic
from .batched import BatchedTrainer, schedule, unsupported_reason
from .evaluation import Evaluation
from .generator import Networks, synthesize
from .settings import ClientConfig

INFERENCE_BATCH = 500
"""Examples per forward pass where no gradient is needed: the fastest on CPUs we timed; larger ones spill the caches."""


INFERENCE_TOKENS = 1 << 13
"""Of texts with classes: tokens per forward pass, at most, which is fewer examples."""


INFERENCE_LOGITS = 1 << 23
"""Of a language model: logits per forward pass, at most, which is fewer examples. 32 MiB."""


GRADIENT_TOLERANCE = 1e-3
"""How far a gradient in a batch of jobs may be from what the job gets alone, of its largest number."""


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
        self._batched = BatchedTrainer(self.module, self._places, self._gathered)

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
        self._parameters = parameters
        a = 0
        self._places: dict[str, tuple[slice, list[int], tuple[int, ...]]] = {}
        for (name, p), (order, back) in zip(named.items(), layouts, strict=True):
            shape, place = [p.shape[i] for i in order], slice(a, a + p.numel())
            p.data = self._weights[place].view(shape).permute(back)
            p.grad = self._gradient[place].view(shape).permute(back)
            self._places[name] = (place, shape, back)
            a += p.numel()
        self._slots = [p.detach() for p in parameters]
        # what a module does not save (rotary frequencies and the like) follows from its settings and need not travel
        floats = [
            (m, n, b)
            for m in self.module.modules()
            for n, b in m.named_buffers(recurse=False)
            if b.is_floating_point() and n not in m._non_persistent_buffers_set
        ]
        self._frozen = {name for name, p in self.module.named_parameters(remove_duplicate=False) if not p.requires_grad}
        self._frozen -= set(getattr(self.module, "drawn", ()))  # frozen, but to be had from nowhere else
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
        logits: Tensor = functional_call(self.module, {**views, **self._named_buffers(model.buffers)}, (inputs,))
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
        """Weights [d] and buffers [b] of a plain state_dict, which may leave out what is frozen.

        Raises:
            RuntimeError: when it does not fit the module, as `nn.Module.load_state_dict` does.
        """
        frozen = {name: value for name, value in self.module.state_dict().items() if name in self._frozen}
        self.module.load_state_dict({**frozen, **state_dict})
        return self._weights.clone(), self._buffers.clone()

    def state_dict(self, model: Model) -> dict[str, Tensor]:
        """A plain state_dict of the model, contiguous CPU tensors, for `nn.Module.load_state_dict`; of a module with
        frozen parameters, such as one with adapters, without these (`strict=False`). Those that a module names in
        `drawn`, frozen as they were drawn, are part of it."""
        self._load(model)
        named = self.module.state_dict().items()
        return {name: value.detach().cpu().clone().contiguous() for name, value in named if name not in self._frozen}

    # -- a client's work

    def train(self, task: Task, model: Model) -> TrainResult:
        """Local training of the task's client from `model`; predicts on U where the task requests it."""
        with self._timed("train_s"):
            update = self._train(task, model)
        if task.request.predictions is None:
            return update
        with self._timed("infer_s"):
            predictions = self._outputs(self._unlabeled, task.request.predictions)
        return TrainResult(
            update.task, update.weights, update.buffers, update.num_examples, update.metrics, predictions, update.extra
        )

    def _train(self, task: Task, model: Model) -> TrainResult:
        first, end = self.data.offsets[task.client], self.data.offsets[task.client + 1]
        n, how, rule = end - first, self.client, self.rule
        lr = how.lr * task.request.lr_scale
        key = self._key.fold("train", task.client, task.id, task.version)
        orders = key.numpy()
        self._load(model)
        self.module.train()
        weights, gradient = self._weights, self._gradient
        velocity = torch.zeros_like(weights) if how.momentum else None
        plain = rule is None and not (how.weight_decay or how.clip or how.momentum)
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
                loss = F.cross_entropy(*_predicted(self.module(inputs[rows]), labels[rows]))
                total += loss.detach()
                if plain:  # nobody looks at the gradient as a whole: it need not be laid out in one vector
                    self._step(loss, lr)
                    continue
                gradient.zero_()
                loss.backward()  # type: ignore[no-untyped-call]
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
        return TrainResult(task.id, trained, self._buffers.clone(), n, metrics, None, extra)

    def _step(self, loss: Tensor, lr: float) -> None:
        """One plain step of SGD, in place."""
        gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        for slot, gradient in zip(self._slots, gradients, strict=True):
            if gradient is not None:
                slot.add_(gradient, alpha=-lr)

    # -- many clients' work at once

    @cached_property
    def batching_unsupported_reason(self) -> str | None:
        """Why `train_many` cannot train this module, if it cannot.

        Once, the gradients of two jobs with batches of unequal sizes are compared with what each gets alone.
        """
        if reason := unsupported_reason(self.module):
            return reason
        first, end = max(pairwise(self.data.offsets), key=lambda ends: ends[1] - ends[0])
        n = min(end - first, self.client.batch_size, 8)
        if not n:
            return None
        sizes, start = (n, max(1, n // 2)), self._initial
        examples = torch.arange(first, first + n, device=self.device).repeat(2, 1)
        own = torch.stack([(torch.arange(n, device=self.device) < size) / size for size in sizes])
        weights, buffers = (torch.stack([part, part]) for part in (start.weights, start.buffers))
        self.module.train()
        self._load(start)
        try:
            with self._key.fold("together").torch_global():
                views = self._batched.views(weights)
                _, found = self._batched.gradients(views, self._named_buffers(buffers), examples, own)
        except Exception as fault:  # whatever torch or the module raises
            said = str(fault).strip() or type(fault).__name__
            return f"cannot be batched over weights ({said.splitlines()[0]})"
        for size, together in zip(sizes, torch.cat([g.flatten(1) for g in found], 1), strict=True):
            self._load(start)
            self._gradient.zero_()
            inputs, labels = self._gathered(examples[0, :size])
            F.cross_entropy(*_predicted(self.module(inputs), labels)).backward()  # type: ignore[no-untyped-call]
            if not float((together - self._gradient).abs().max()) <= GRADIENT_TOLERANCE * float(
                self._gradient.abs().max()
            ):
                return "has other gradients in a batch of jobs than alone: its examples seem to influence each other"
        return None

    def train_many(self, jobs: Sequence[tuple[Task, Model]]) -> list[TrainResult]:
        """Local training of several jobs as one batched program: every client's own batches, from its own version.

        Agrees with `train` but for rounding: a sum over a batch is taken in another order.
        """
        with self._timed("train_s"):
            updates = self._train_many(jobs)
        with self._timed("infer_s"):
            for place, (task, _) in enumerate(jobs):
                if task.request.predictions is not None:
                    self._load(Model(0, updates[place].weights, updates[place].buffers))
                    predictions = self._outputs(self._unlabeled, task.request.predictions)
                    updates[place] = replace(updates[place], predictions=predictions)
        return updates

    def _train_many(self, jobs: Sequence[tuple[Task, Model]]) -> list[TrainResult]:
        how, rule, offsets = self.client, self.rule, self.data.offsets
        sizes = [offsets[task.client + 1] - offsets[task.client] for task, _ in jobs]
        keys = [self._key.fold("train", task.client, task.id, task.version) for task, _ in jobs]
        drawing = [(offsets[task.client], n, key.numpy()) for (task, _), n, key in zip(jobs, sizes, keys, strict=True)]
        plan = schedule(drawing, how.batch_size, how.epochs, how.steps)
        jobs = [jobs[place] for place in plan.order]
        lrs = [how.lr * task.request.lr_scale for task, _ in jobs]
        start = torch.stack([model.weights for _, model in jobs])
        buffers = torch.stack([model.buffers for _, model in jobs])
        self.module.train()
        extras, named = [task.extra for task, _ in jobs], self._named_buffers(buffers)
        weights, totals = self._batched.train(plan, start, named, lrs, extras, how, rule)
        losses = totals.tolist()
        made: dict[int, TrainResult] = {}
        for row, (task, model) in enumerate(jobs):
            trained, steps = weights[row].clone(), plan.steps[row]
            extra = rule.report(model.weights, trained, steps, lrs[row], task.extra) if rule is not None else {}
            metrics = {"loss": losses[row] / max(steps, 1)}
            place = plan.order[row]
            made[place] = TrainResult(task.id, trained, buffers[row].clone(), sizes[place], metrics, None, extra)
        return [made[place] for place in range(len(jobs))]

    def _gathered(self, examples: Tensor) -> tuple[Tensor, Tensor]:
        return self._seen(self._inputs[examples]), self._labels[examples]

    def _named_buffers(self, buffers: Tensor) -> dict[str, Tensor]:
        """Views of flat buffers [..., b] by name."""
        found, a = {}, 0
        for path, m in self.module.named_modules():
            for n, buffer in m.named_buffers(recurse=False):
                if buffer.is_floating_point() and n not in m._non_persistent_buffers_set:
                    part = buffers[..., a : a + buffer.numel()]
                    found[f"{path}.{n}" if path else n] = part.view(*buffers.shape[:-1], *buffer.shape)
                    a += buffer.numel()
        return found

    # -- language

    def generate(self, model: Model, prompts: Tensor, length: int, key: Key | None = None) -> Tensor:
        """How a language model goes on: token ids [n, length] that begin with the prompts [n, l], 1 ≤ l ≤ length.

        Each next token is the most probable one, or with a key drawn from the model's probabilities. After a token that
        fills short texts there is nothing but that. A module that has `step` (see `models.lstm.LSTM`) is not asked for
        what it said before.
        """
        self._load(model)
        self.module.eval()
        step = getattr(self.module, "step", None)
        made, past, new = prompts.to(self.device), None, prompts.to(self.device)
        over = torch.zeros(len(made), dtype=torch.bool, device=self.device)
        draws = None if key is None else key.numpy()
        with torch.no_grad():
            while made.shape[1] < length:
                if step is not None:
                    logits, past = step(new, past)
                else:
                    logits = self.module(made)[:, -1]
                if draws is None:
                    new = logits.argmax(-1, keepdim=True)
                else:
                    up_to = logits.double().softmax(-1).cumsum(-1)
                    u = torch.from_numpy(draws.random((len(made), 1))).to(self.device) * up_to[:, -1:]
                    new = torch.searchsorted(up_to, u, right=True).clamp(max=logits.shape[-1] - 1)
                if self.data.pad is not None:
                    new = new.masked_fill(over.unsqueeze(1), self.data.pad)
                    over = over | (new.squeeze(1) == self.data.pad)
                made = torch.cat([made, new], 1)
        return made

    # -- the server's work

    def _outputs(self, inputs: Tensor, form: PredictionFormat = LOGITS) -> Tensor:
        self.module.eval()
        with torch.no_grad():
            parts = torch.split(inputs, self._inference_batch)
            batches = [form.of(self._asked(self.module(self._seen(part)), part)) for part in parts]
        return torch.cat(batches)

    @property
    def _inference_batch(self) -> int:
        if not self.data.causal:
            tokens = not self.data.inputs.is_floating_point()
            return (
                max(1, min(INFERENCE_BATCH, INFERENCE_TOKENS // math.prod(self.shape))) if tokens else INFERENCE_BATCH
            )
        return max(1, min(INFERENCE_BATCH, INFERENCE_LOGITS // (math.prod(self.shape) * self.classes)))

    def _said(self, inputs: Tensor) -> Tensor | None:
        """Where a language model's inputs [n, L] are no padding, [n, L]; None of other models."""
        if not self.data.causal:
            return None
        return torch.ones_like(inputs, dtype=torch.bool) if self.data.pad is None else inputs != self.data.pad

    def _asked(self, logits: Tensor, inputs: Tensor) -> Tensor:
        """The predictions among a module's logits: [B, C] as they are, those of a language model [B, L, C] where its
        inputs are no padding, [P, C]."""
        said = self._said(inputs)
        return logits if said is None else logits[said]

    @property
    def shape(self) -> tuple[int, ...]:
        """One input's shape."""
        return tuple(self.data.inputs.shape[1:])

    @property
    def classes(self) -> int:
        """C; of a language model, its vocabulary's size."""
        return self.data.classes

    @property
    def predictions(self) -> int:
        """P: how many predictions a model makes on U; of a language model, one a token that is no padding."""
        said = self._said(self._unlabeled)
        return len(self._unlabeled) if said is None else int(said.sum())

    def publish(self, unlabeled: Tensor) -> None:
        """Take another U, [|U|, *shape]."""
        self.data = replace(self.data, unlabeled=unlabeled)
        self._unlabeled = self._place(unlabeled)

    def predict(self, model: Model, inputs: Tensor | None = None, form: PredictionFormat = LOGITS) -> Tensor:
        """Predictions on `inputs` [n, *shape], [P, C] logits or in another form; by default on all of U."""
        with self._timed("infer_s"):
            self._load(model)
            return self._outputs(self._unlabeled if inputs is None else self._place(inputs), form)

    def distill(
        self, model: Model, loss: Loss, how: Distillation, key: Key, inputs: Tensor | None = None
    ) -> tuple[Tensor, float]:
        """`how.steps_on(n)` steps on mini-batches of `inputs` [n, *shape] from `model`; the weights [d] after them and
        their mean loss. By default the inputs are U.

        Batches go through the inputs in a keyed random order. Buffers are left alone: the module is in evaluation mode.
        """
        with self._timed("distill_s"):
            self._load(model)
            self.module.eval()
            examples = self._unlabeled if inputs is None else self._place(inputs)
            weights, gradient, size = self._weights, self._gradient, len(examples)
            said = self._said(examples)
            places = None if said is None else said.flatten().cumsum(0).view(said.shape) - 1
            adam = None
            if how.optimizer == "adam":
                weights.grad = gradient
                adam = torch.optim.Adam([weights], lr=how.lr)
            orders, total, queue = key.numpy(), 0.0, torch.zeros(0, dtype=torch.int64)
            steps = how.steps_on(size)
            for _ in range(steps):
                if len(queue) < min(how.batch_size, size):
                    queue = torch.cat([queue, torch.from_numpy(orders.permutation(size))])
                batch, queue = queue[: how.batch_size].to(self.device), queue[how.batch_size :]
                gradient.zero_()
                logits = self.module(self._seen(examples[batch]))
                if said is None or places is None:
                    value = loss(logits, batch)
                else:
                    value = loss(logits[said[batch]], places[batch][said[batch]])
                value.backward()  # type: ignore[no-untyped-call]
                if how.clip:
                    _clip(gradient, how.clip)
                if adam is not None:
                    adam.step()
                else:
                    weights.add_(gradient, alpha=-how.lr)
                total += float(value.detach())
            return weights.clone(), total / max(steps, 1)

    def synthesize(
        self,
        generator: Generator | None,
        teachers: Sequence[Model],
        mix: Tensor,
        student: Model,
        how: Synthesis,
        key: Key,
    ) -> tuple[Generator, Synthetic]:
        """Inputs made from noise, on which the teachers agree and the student can learn; see `fedecho.stages.base`."""
        with self._timed("distill_s"):
            self.module.eval()
            networks = Networks(
                lambda x: [self._apply(model, x) for model in teachers], lambda x: self._apply(student, x)
            )
            return synthesize(generator, networks, self.shape, mix.to(self.device), how, key)

    def evaluate(self, model: Model, inputs: Tensor, labels: Tensor) -> Evaluation:
        """Judge a model on inputs [n, *shape] with labels [n], or [n, L] of a language model."""
        self._load(model)
        self.module.eval()
        correct = torch.zeros(self.classes, dtype=torch.float64)
        examples, by_example = torch.zeros_like(correct), []
        size = self._inference_batch
        with torch.no_grad():
            for part, wanted in zip(torch.split(self._place(inputs), size), torch.split(labels, size), strict=True):
                logits, flat = _predicted(self.module(self._seen(part)).cpu(), wanted)
                asked = flat >= 0
                right = (logits.argmax(-1) == flat) & asked
                losses = F.cross_entropy(logits, flat, reduction="none")  # 0 where nothing is asked
                correct += torch.bincount(flat[right], minlength=self.classes)
                examples += torch.bincount(flat[asked], minlength=self.classes)
                each = torch.stack([right.double(), asked.double(), losses.double()], -1)
                by_example.append(each.view(len(wanted), -1, 3).sum(1))
        rows = torch.cat(by_example)
        return Evaluation(correct, examples, float(rows[:, 2].sum() / rows[:, 1].sum()), rows)


def _predicted(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [m, C] and labels [m]: of a classifier as they are; of a language model all tokens in a row."""
    return (logits, labels) if labels.dim() == 1 else (logits.flatten(0, 1), labels.flatten())


def _clip(gradient: Tensor, limit: float) -> None:
    """Scale the gradient down to the norm `limit`, in place."""
    norm = torch.linalg.vector_norm(gradient)
    gradient.mul_((limit / (norm + 1e-12)).clamp(max=1.0))
