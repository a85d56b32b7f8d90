"""FedRevive: stale changes are replaced by data-free distillation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor

from ..algorithms.base import ClientUpdate
from ..core.keys import Key
from ..core.messages import Model
from ..objectives.predictions import Predictions
from .bank import class_shares
from .base import Stage
from .compute import Compute, Distillation, Generator, Synthesis
from .losses import kl_to


@dataclass(frozen=True, slots=True)
class Teacher:
    """A returned model."""

    client: int
    model: Model


@dataclass(frozen=True, slots=True)
class Memory:
    """The stage's state.

    Attributes:
        teachers: the last c returned models, newest last.
        estimates: client to its estimated class proportions, [C] each, one for each of its first two models.
        inputs: the pool of generated inputs, [P, *shape], oldest first.
        labels: the labels for which they were generated, [P].
        generator: the generator after the last step.
        updates: accepted updates so far.
        generated_at: `updates` when inputs were last generated.
    """

    teachers: tuple[Teacher, ...] = ()
    estimates: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)
    inputs: Tensor | None = None
    labels: Tensor | None = None
    generator: Generator | None = None
    updates: int = 0
    generated_at: int = 0

    def proportions(self) -> Tensor:
        """π, the teachers' class proportions, [m, C]."""
        return torch.stack([torch.stack(self.estimates[teacher.client]).mean(0) for teacher in self.teachers])


@dataclass(frozen=True)
class FedRevive(Stage):
    r"""Data-free revival of stale changes: Δ ← (1−β)·Δ_i + β·Δ^KD, β(τ) = 1 − ½·(1 + cos(π·τ/(2·s_max))).

    Askin, Roth, Sun, Joe-Wong, Joshi, Xu, *Reviving Stale Updates: Data-Free Knowledge Distillation for Asynchronous
    Federated Learning*, arXiv 2511.00655 (2025); settings from the authors' code for CIFAR-10 (NVFlare,
    research/fedrevive). β is 1 past τ = 2·s_max. Δ^KD is the change of the current model x_t by Q steps of Adam on a
    synthetic pool. The teachers are the last c returned models, with the arriving one:

        π_i ← mean of softmax(f(x_i; noise)/T) over Gaussian inputs, mean of the client's first two models
        pool ← pool ∪ inputs from a generator, for labels drawn from the mean of the teachers' π
        Q times: for each teacher j a batch of the pool drawn by π_j;  L = mean KL(softmax(f(x_j)) ‖ softmax(f(x)))

    It uses no real input, and not U. A copy of the generator takes Adam steps: the teachers shall classify its inputs
    by the labels drawn, each teacher weighted by its share of the label, and, weighted by `adversarial_weight`, student
    and teachers shall differ where they agree on the class. Then the generator moves towards the copy (Reptile). The
    server step (theirs .10, at every arrival) is the rule's own: `fedrevive` is `async_sgd+fedrevive`; on any other
    rule each change is revised before the rule receives it.

    Where this is simpler than the paper, or different: the generator is a small perceptron, not an upsampling
    convolution network; there is no augmentation and no term on feature statistics, which a model without running
    statistics does not have; Adam has no weight decay; the student is in evaluation mode; the batches of the Q steps
    are mixed over the teachers at random; waiting and generating are counted in updates, not versions (the same where
    every arrival makes a version); losses far above their recent mean are not left out. An update refused as too late
    is no teacher.

    Memory: c·d for the teachers, N·2·C for the proportions, the pool, and three times the generator.

    Attributes:
        lr: η_d, Adam's step of the student; theirs is 1e-4.
        steps: Q, distillation steps per stale update; theirs is 10.
        batch_size: pool inputs per step and teacher; theirs is 32.
        teachers: c, how many returned models teach; theirs is 8.
        s_max: half the staleness in versions at which only the distillation counts; theirs is 75.
        distill_after: updates before changes are revised; theirs is 100.
        generate_after: updates before inputs are generated; theirs is 50.
        generate_every: updates between two generations of inputs; theirs is 10 with estimated proportions.
        pool_size: the most generated inputs in the pool, the newest; theirs is 16,000.
        synthesis_batch: inputs generated at a time; theirs is 64.
        synthesis_steps: Adam steps on the copy of the generator. Theirs is 2, on a larger generator. With 10 the
            teachers give the labels of our inputs a probability of .96 on digits after 100 generations; with 2, .39.
        generator_lr: of the generator and its copy; theirs is 0.003.
        latent_lr: of noise and class embeddings; theirs is 0.001.
        latent_size: numbers of noise from which an input is generated; theirs is 256.
        generator_width: of the generator's hidden layer; ours.
        adversarial_weight: of the disagreement with the student, once changes are revised; theirs is 0.1.
        probes: Gaussian inputs from which a model's class proportions are estimated; theirs is 64.
        probe_temperature: T; theirs is 0.8.
    """

    name = "fedrevive"
    citation = (
        "@article{askin2025reviving, title={Reviving Stale Updates: Data-Free Knowledge Distillation for Asynchronous "
        "Federated Learning}, author={Askin, Baris and Roth, Holger R. and Sun, Zhenyu and Joe-Wong, Carlee and Joshi, "
        "Gauri and Xu, Ziyue}, journal={arXiv:2511.00655}, year={2025}}"
    )
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"lr": (0.00003, 0.0001, 0.0003, 0.001)}
    needs_predictions: ClassVar[bool] = False
    lr: Annotated[float, Gt(0)] = 0.0001
    steps: Annotated[int, Ge(0)] = 10
    batch_size: Annotated[int, Ge(1)] = 32
    teachers: Annotated[int, Ge(1)] = 8
    s_max: Annotated[float, Gt(0)] = 75.0
    distill_after: Annotated[int, Ge(0)] = 100
    generate_after: Annotated[int, Ge(0)] = 50
    generate_every: Annotated[int, Ge(1)] = 10
    pool_size: Annotated[int, Ge(1)] = 16_000
    synthesis_batch: Annotated[int, Ge(1)] = 64
    synthesis_steps: Annotated[int, Ge(1)] = 10
    generator_lr: Annotated[float, Gt(0)] = 0.003
    latent_lr: Annotated[float, Gt(0)] = 0.001
    latent_size: Annotated[int, Ge(1)] = 256
    generator_width: Annotated[int, Ge(1)] = 256
    adversarial_weight: Annotated[float, Ge(0)] = 0.1
    probes: Annotated[int, Ge(1)] = 64
    probe_temperature: Annotated[float, Gt(0)] = 0.8

    def beta(self, staleness: int) -> float:
        """β(τ), the share of the distillation in the change."""
        if staleness > 2 * self.s_max:
            return 1.0
        return 1.0 - 0.5 * (1.0 + math.cos(math.pi * staleness / (2.0 * self.s_max)))

    def init(self, clients: int, predictions: Predictions | None = None) -> Memory:
        return Memory()

    def revise(
        self, state: Memory, update: ClientUpdate, model: Model, compute: Compute, key: Key
    ) -> tuple[Tensor, Memory, Mapping[str, float]]:
        state = self.remember(state, update, compute, key.fold("probe"))
        if not update.staleness:
            return update.delta, state, {}
        due = state.inputs is None or state.updates - state.generated_at >= self.generate_every
        if due and state.updates > self.generate_after:
            state = self.extend_pool(state, model, compute, key.fold("synthesize"))
        if state.updates <= self.distill_after or state.inputs is None:
            return update.delta, state, {}
        weights, loss = self.distilled(state, model, compute, key.fold("distill"))
        beta = self.beta(update.staleness)
        delta = (1.0 - beta) * update.delta + beta * (weights - model.weights)
        return delta, state, {"beta": beta, "pool": len(state.inputs), "loss": loss}

    def remember(self, state: Memory, update: ClientUpdate, compute: Compute, key: Key) -> Memory:
        """The state with the client's model as the newest teacher; its first two models give its class proportions."""
        model = Model(update.version - update.staleness, update.weights, update.buffers)
        teachers = (*state.teachers, Teacher(update.client, model))[-self.teachers :]
        estimates = state.estimates.get(update.client, ())
        if len(estimates) < 2:
            probes = key.numpy().standard_normal((self.probes, *compute.shape), dtype=np.float32)
            logits = compute.predict(model, torch.from_numpy(probes).to(update.weights.device))
            estimates = (*estimates, class_shares(logits / self.probe_temperature))
        by_client = {**state.estimates, update.client: estimates}
        return replace(state, teachers=teachers, estimates=by_client, updates=state.updates + 1)

    def extend_pool(self, state: Memory, model: Model, compute: Compute, key: Key) -> Memory:
        """The state with a batch of new inputs in the pool, without the oldest beyond its size."""
        adversarial = self.adversarial_weight if state.updates > self.distill_after else 0.0
        settings = Synthesis(
            self.synthesis_steps,
            self.synthesis_batch,
            self.generator_lr,
            self.latent_lr,
            self.latent_size,
            self.generator_width,
            adversarial,
        )
        models = [teacher.model for teacher in state.teachers]
        generator, new = compute.synthesize(state.generator, models, state.proportions(), model, settings, key)
        inputs = new.inputs if state.inputs is None else torch.cat([state.inputs, new.inputs])
        labels = new.labels if state.labels is None else torch.cat([state.labels, new.labels])
        inputs, labels = inputs[-self.pool_size :], labels[-self.pool_size :]
        return replace(state, inputs=inputs, labels=labels, generator=generator, generated_at=state.updates)

    def distilled(self, state: Memory, model: Model, compute: Compute, key: Key) -> tuple[Tensor, float]:
        """The current model's weights [d] after learning from the teachers on the pool, and the loss."""
        assert state.inputs is not None
        assert state.labels is not None
        inputs, targets, generator = [], [], key.fold("draws").numpy()
        labels = state.labels.cpu().numpy()
        for teacher, proportions in zip(state.teachers, state.proportions(), strict=True):
            places = draw(labels, proportions.double().cpu().numpy(), self.steps * self.batch_size, generator)
            inputs.append(state.inputs[torch.from_numpy(places).to(state.inputs.device)])
            targets.append(compute.predict(teacher.model, inputs[-1]).softmax(-1))
        settings = Distillation(self.steps, self.batch_size * len(inputs), self.lr, 0.0, "adam")
        return compute.distill(model, kl_to(torch.cat(targets)), settings, key, torch.cat(inputs))


def draw(labels: np.ndarray, proportions: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """`count` places in `labels` [P], with replacement: labels by `proportions` [C], then any place of that label.

    For a label without an input, any place is drawn.
    """
    order = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels, minlength=len(proportions))
    firsts = np.cumsum(sizes) - sizes
    wanted = generator.choice(len(proportions), size=count, p=proportions / proportions.sum())
    sizes, firsts = np.where(sizes, sizes, len(labels))[wanted], np.where(sizes, firsts, 0)[wanted]
    places: np.ndarray = order[firsts + (generator.random(count) * sizes).astype(np.int64)]
    return places
