"""The learner: everything that trains, predicts, distils or judges a model.

One module serves every client; see `flat` for how its weights lie.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..algorithms.base import ClientRule
from ..core.errors import ConfigError
from ..core.keys import Key
from ..core.messages import Model, Task, TrainResult
from ..data.federation import Federation
from ..objectives.base import Objective
from ..objectives.predictions import Predictions
from ..stages.compute import LOGITS, Distillation, Generator, Loss, PredictionFormat, Synthesis, Synthetic
from .batching import BatchedTraining, batching_fault
from .choice import objective_for
from .distillation import distill
from .flat import FlatModule
from .generation import generate
from .generator import Networks, synthesize
from .inference import Inference
from .layout import MemoryFormat
from .settings import ClientConfig
from .training import LocalTraining


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
        objective: the loss and the metrics; None: the one that fits the data's targets.

    Raises:
        ConfigError: when the module has no trainable parameter, or these are neither all float32 nor all float64; when
            its outputs do not fit the targets, or the targets do not fit the objective.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        data: Federation,
        client: ClientConfig,
        key: Key,
        rule: ClientRule | None = None,
        device: str = "cpu",
        memory_format: MemoryFormat = "auto",
        objective: Objective | None = None,
    ) -> None:
        self.objective = objective_for(data) if objective is None else objective
        if len(data.labels):
            data = replace(data, labels=self.objective.prepare(data.labels))
        self.data, self.client, self.rule, self._key = data, client, rule, key
        self.device = torch.device(device)
        with key.fold("init").torch_global():
            module = build().to(self.device)
        self._flat = FlatModule(module, data.inputs, memory_format)
        self._initial = Model(0, self._flat.weights.clone(), self._flat.buffers.clone())
        layout = self._flat.layout
        self._inputs, self._targets = layout.place(data.inputs), layout.to_device(data.labels)
        self._unlabeled = layout.place(data.unlabeled)
        self.seconds = {"train_s": 0.0, "infer_s": 0.0, "distill_s": 0.0}
        tokens = not data.inputs.is_floating_point()
        self._inference = Inference(self._flat, self.shape, data.classes, data.causal, data.pad, tokens)
        self._check_outputs()
        parts = (self._flat, self._inputs, self._targets, data.offsets, client, key, rule, self.objective)
        self._training, self._batched = LocalTraining(*parts), BatchedTraining(*parts)

    def _check_outputs(self) -> None:
        """See that the module's outputs for two examples fit the targets."""
        stored = (self._inputs if len(self._inputs) else self._unlabeled)[:2]
        if not len(stored):
            return
        self._flat.module.eval()
        with torch.no_grad():
            outputs = self._flat.outputs(stored)
        if outputs.shape[:1] != stored.shape[:1]:
            raise ConfigError(
                f"the model returns {list(outputs.shape)} for {len(stored)} examples; its first dimension must be the "
                "examples"
            )
        if len(self.data.labels):
            self.objective.check(tuple(outputs.shape[1:]), self.data.labels)
        if self.objective.class_labels and outputs.shape[1:] != (self.classes,):
            raise ConfigError(
                f"the model has {outputs.shape[-1]} outputs, and the data have {self.classes} classes; give the "
                f"model's last layer {self.classes} outputs"
            )

    # -- what it is about

    @property
    def module(self) -> nn.Module:
        """The module, with whatever model was loaded last."""
        return self._flat.module

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights: float32, or float64."""
        return self._flat.layout.dtype

    @property
    def channels_last(self) -> bool:
        """Whether images lie with their channels last."""
        return self._flat.layout.channels_last

    @property
    def shape(self) -> tuple[int, ...]:
        """One input's shape."""
        return tuple(self.data.inputs.shape[1:])

    @property
    def classes(self) -> int:
        """The module's outputs: C classes, labels or target columns; of a language model, its vocabulary's size."""
        return self.data.classes

    @property
    def predictions(self) -> Predictions | None:
        """What the outputs mean as probabilities; None where they are none."""
        return self.objective.predictions

    @property
    def prediction_count(self) -> int:
        """P: how many predictions a model makes on U; of a language model, one a token that is not padding."""
        return self._inference.count(self._unlabeled)

    def laid_out(self) -> Federation:
        """The data as they are best given to a learner like this one, which then works on them without a copy."""
        memory_format = torch.channels_last if self.channels_last else torch.contiguous_format
        inputs, unlabeled = (
            part.contiguous(memory_format=memory_format) for part in (self.data.inputs, self.data.unlabeled)
        )
        return replace(self.data, inputs=inputs, unlabeled=unlabeled)

    def in_float64(self) -> Learner:
        """A learner of the initial model that computes in float64, to compare two ways of computing the same.

        In float32 two correct kernels may take two sides of a ReLU."""
        self._load(self._initial)
        module = copy.deepcopy(self.module).double()
        memory_format: MemoryFormat = "channels_last" if self.channels_last else "contiguous"
        parts = (self.data, self.client, self._key, self.rule, str(self.device), memory_format, self.objective)
        return Learner(lambda: module, *parts)

    def publish(self, unlabeled: Tensor) -> None:
        """Take another U, [|U|, *shape]."""
        self.data = replace(self.data, unlabeled=unlabeled)
        self._unlabeled = self._flat.layout.place(unlabeled)

    def _load(self, model: Model) -> None:
        self._flat.load(model)

    @contextmanager
    def _timed(self, kind: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[kind] += time.perf_counter() - began

    # -- models in and out

    def initial(self) -> Model:
        """Version 0."""
        return self._initial

    def read(self, state_dict: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Weights [d] and buffers [b] of a plain state_dict, which may leave out what is frozen.

        Raises:
            RuntimeError: when it does not fit the module, as `nn.Module.load_state_dict` does.
        """
        return self._flat.read(state_dict)

    def state_dict(self, model: Model) -> dict[str, Tensor]:
        """A plain state_dict of the model, contiguous CPU tensors, for `nn.Module.load_state_dict`; of a module with
        frozen parameters, such as one with adapters, without these (`strict=False`). Those that a module names in
        `drawn`, frozen as they were drawn, are part of it."""
        self._load(model)
        return self._flat.state_dict()

    # -- clients' work

    def train(self, task: Task, model: Model) -> TrainResult:
        """Local training of the task's client from `model`; predicts on U where the task requests it."""
        with self._timed("train_s"):
            result = self._training.train(task, model)
        if task.request.predictions is None:
            return result
        with self._timed("infer_s"):
            return replace(result, predictions=self._predictions_on_u(task))

    def train_many(self, jobs: Sequence[tuple[Task, Model]]) -> list[TrainResult]:
        """Local training of several jobs as one batched program: every client's own batches, from its own version.

        Agrees with `train` but for rounding: a sum over a batch is taken in another order.
        """
        with self._timed("train_s"):
            results = self._batched.train_many(jobs)
        with self._timed("infer_s"):
            for place, (task, _) in enumerate(jobs):
                if task.request.predictions is not None:
                    self._load(Model(0, results[place].weights, results[place].buffers))
                    results[place] = replace(results[place], predictions=self._predictions_on_u(task))
        return results

    def _predictions_on_u(self, task: Task) -> Tensor:
        """What the loaded model predicts on U, in the form that the task asks for."""
        return self._inference.predict(self._unlabeled, task.request.predictions or LOGITS)

    @cached_property
    def batching_unsupported_reason(self) -> str | None:
        """Why `train_many` cannot train this module, if it cannot: see `batching_fault`."""
        first, end = max(pairwise(self.data.offsets), key=lambda ends: ends[1] - ends[0])
        if first == end:
            return None
        self._load(self._initial)
        rows, key = slice(first, end), self._key.fold("together")
        inputs, targets = self.data.inputs[rows], self.data.labels[rows]
        return batching_fault(self._flat, inputs, targets, self.objective, key, self.client.batch_size)

    # -- the server's work

    def predict(self, model: Model, inputs: Tensor | None = None, form: PredictionFormat = LOGITS) -> Tensor:
        """Predictions on `inputs` [n, *shape], [P, C] logits or in another form; by default on all of U."""
        with self._timed("infer_s"):
            self._load(model)
            return self._inference.predict(self._stored(inputs), form)

    def distill(
        self, model: Model, loss: Loss, how: Distillation, key: Key, inputs: Tensor | None = None
    ) -> tuple[Tensor, float]:
        """`how.steps_on(n)` steps on mini-batches of `inputs` [n, *shape] from `model`; the weights [d] after them and
        their mean loss. By default the inputs are U; see `distillation.distill`."""
        with self._timed("distill_s"):
            self._load(model)
            stored = self._stored(inputs)
            return distill(self._flat, stored, self._inference.predicted_places(stored), loss, how, key)

    def _stored(self, inputs: Tensor | None) -> Tensor:
        return self._unlabeled if inputs is None else self._flat.layout.place(inputs)

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
                lambda x: [self._flat.outputs_of(model, x) for model in teachers],
                lambda x: self._flat.outputs_of(student, x),
            )
            return synthesize(generator, networks, self.shape, mix.to(self.device), how, key)

    def generate(self, model: Model, prompts: Tensor, length: int, key: Key | None = None) -> Tensor:
        """How a language model continues prompts [n, l]: token ids [n, length]; see `generation.generate`."""
        self._load(model)
        return generate(self._flat, prompts, length, self.data.pad, key)

    def evaluate(self, model: Model, inputs: Tensor, targets: Tensor) -> Tensor:
        """The objective's statistics [n, r] of a model on inputs [n, *shape] with prepared targets [n, …]."""
        self._load(model)
        layout = self._flat.layout
        wanted = targets.to(layout.dtype) if targets.is_floating_point() else targets
        return self._inference.statistics(layout.place(inputs), wanted, self.objective)
