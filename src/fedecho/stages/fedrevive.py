"""FedRevive: stale changes give way to data-free distillation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..algorithms.base import ClientUpdate
from ..core.keys import Key
from ..core.messages import Model
from .base import Stage
from .compute import Compute, Distillation, Generator, Synthesis
from .round import kl_to


@dataclass(frozen=True, slots=True)
class Teacher:
    """A returned model."""

    client: int
    model: Model


@dataclass(frozen=True, slots=True)
class Memory:
    """What the server keeps.

    Attributes:
        teachers: the last c returned models, newest last.
        guesses: client to its guessed class proportions, [C] each, one for each of its first two models.
        inputs: the pool of made inputs, [P, *shape], oldest first.
        labels: what they were made for, [P].
        generator: what makes them.
        heard: updates so far.
        made_at: `heard` when inputs were last made.
    """

    teachers: tuple[Teacher, ...] = ()
    guesses: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)
    inputs: Tensor | None = None
    labels: Tensor | None = None
    generator: Generator | None = None
    heard: int = 0
    made_at: int = 0

    def proportions(self) -> Tensor:
        """π, the teachers' class proportions, [m, C]."""
        return torch.stack([torch.stack(self.guesses[teacher.client]).mean(0) for teacher in self.teachers])


@dataclass(frozen=True)
class FedRevive(Stage):
    r"""Data-free revival of stale changes: Δ ← (1−β)·Δ_i + β·Δ^KD, β(τ) = 1 − ½·(1 + cos(π·τ/(2·s_max))).

    Askin, Roth, Sun, Joe-Wong, Joshi, Xu, *Reviving Stale Updates: Data-Free Knowledge Distillation for Asynchronous
    Federated Learning*, arXiv 2511.00655 (2025); settings from the authors' code for CIFAR-10 (NVFlare,
    research/fedrevive). β is 1 past τ = 2·s_max. Δ^KD is what Q steps of Adam on a synthetic pool change in the current
    model x_t, the teachers being the last c returned models, the arriving one among them:

        π_i ← mean of softmax(f(x_i; noise)/T) over Gaussian inputs, mean of the client's first two models
        pool ← pool ∪ inputs that a generator makes for labels drawn from the mean of the teachers' π
        Q times: for each teacher j a batch of the pool drawn by π_j;  L = mean KL(softmax(f(x_j)) ‖ softmax(f(x)))

    No real input is used, and U not at all. The generator takes Adam steps on a copy (to be classified by the teachers
    as it was asked, each by its share of the label; and, by `adversarial`, to tell teachers and student apart where
    they agree), then moves towards the copy (Reptile). The server step (theirs .10, at every arrival) is the rule's
    own: `fedrevive` is `async_sgd+fedrevive`; on any other rule each change is revised before the rule receives it.

    Where this is simpler than the paper, or different: the generator is a small perceptron, not an upsampling
    convolution network; there is no augmentation and no term on feature statistics, which a model without running
    statistics does not have; Adam has no weight decay; the student is in evaluation mode; the batches of the Q steps
    are mixed over the teachers at random; waiting and generating are counted in updates, not versions (the same where
    every arrival makes a version); losses far above their recent mean are not left out. An update refused as too late
    is no teacher.

    Memory: c·d for the teachers, N·2·C for the proportions, the pool, and three times the generator.

    Attributes:
        lr: η_d, Adam's step of the student; theirs is 1e-4.
        steps: Q, distillation steps a stale update; theirs is 10.
        batch_size: pool inputs a step and teacher; theirs is 32.
        teachers: c, how many returned models teach; theirs is 8.
        s_max: half the staleness in versions at which only the distillation counts; theirs is 75.
        distill_after: updates before changes are revised; theirs is 100.
        generate_after: updates before inputs are made; theirs is 50.
        generate_every: updates from one making to the next; theirs is 10 with guessed proportions.
        pool_size: made inputs kept, the newest; theirs is 16,000.
        synthesis_batch: inputs made at a time; theirs is 64.
        synthesis_steps: Adam steps on the copy of the generator. Theirs is 2, on a larger generator; ours gets the
            teachers to believe in what it made (.96 on digits after 100 times; .39 with 2 steps) with 10.
        generator_lr: of the generator and its copy; theirs is 0.003.
        latent_lr: of noise and class embeddings; theirs is 0.001.
        latent_size: numbers of noise an input is made of; theirs is 256.
        width: of the generator's hidden layer; ours.
        adversarial: weight of disagreement with the student, once changes are revised; theirs is 0.1.
        probes: Gaussian inputs that guess a model's class proportions; theirs is 64.
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
    lr: float = 0.0001
    steps: int = 10
    batch_size: int = 32
    teachers: int = 8
    s_max: float = 75.0
    distill_after: int = 100
    generate_after: int = 50
    generate_every: int = 10
    pool_size: int = 16_000
    synthesis_batch: int = 64
    synthesis_steps: int = 10
    generator_lr: float = 0.003
    latent_lr: float = 0.001
    latent_size: int = 256
    width: int = 256
    adversarial: float = 0.1
    probes: int = 64
    probe_temperature: float = 0.8

    def beta(self, staleness: int) -> float:
        """β(τ): how much of the change is distilled."""
        if staleness > 2 * self.s_max:
            return 1.0
        return 1.0 - 0.5 * (1.0 + math.cos(math.pi * staleness / (2.0 * self.s_max)))

    def init(self, clients: int) -> Memory:
        return Memory()

    def revise(
        self, state: Memory, update: ClientUpdate, model: Model, compute: Compute, key: Key
    ) -> tuple[Tensor, Memory, Mapping[str, float]]:
        state = self.remember(state, update, compute, key.fold("probe"))
        if not update.staleness:
            return update.delta, state, {}
        due = state.inputs is None or state.heard - state.made_at >= self.generate_every
        if due and state.heard > self.generate_after:
            state = self.grow(state, model, compute, key.fold("synthesize"))
        if state.heard <= self.distill_after or state.inputs is None:
            return update.delta, state, {}
        weights, loss = self.distilled(state, model, compute, key.fold("distill"))
        beta = self.beta(update.staleness)
        delta = (1.0 - beta) * update.delta + beta * (weights - model.weights)
        return delta, state, {"beta": beta, "pool": len(state.inputs), "loss": loss}

    def remember(self, state: Memory, update: ClientUpdate, compute: Compute, key: Key) -> Memory:
        """The client's model becomes the newest teacher; its first two models tell its class proportions."""
        model = Model(update.version - update.staleness, update.weights, update.buffers)
        teachers = (*state.teachers, Teacher(update.client, model))[-self.teachers :]
        guesses = state.guesses.get(update.client, ())
        if len(guesses) < 2:
            probes = key.numpy().standard_normal((self.probes, *compute.shape), dtype=np.float32)
            logits = compute.predict(model, torch.from_numpy(probes).to(update.weights.device))
            guesses = (*guesses, (logits / self.probe_temperature).softmax(-1).mean(0))
        known = {**state.guesses, update.client: guesses}
        return replace(state, teachers=teachers, guesses=known, heard=state.heard + 1)

    def grow(self, state: Memory, model: Model, compute: Compute, key: Key) -> Memory:
        """The pool with a batch of new inputs, and without the oldest beyond its size."""
        adversarial = self.adversarial if state.heard > self.distill_after else 0.0
        how = Synthesis(
            self.synthesis_steps,
            self.synthesis_batch,
            self.generator_lr,
            self.latent_lr,
            self.latent_size,
            self.width,
            adversarial,
        )
        models = [teacher.model for teacher in state.teachers]
        generator, made = compute.synthesize(state.generator, models, state.proportions(), model, how, key)
        inputs = made.inputs if state.inputs is None else torch.cat([state.inputs, made.inputs])
        labels = made.labels if state.labels is None else torch.cat([state.labels, made.labels])
        inputs, labels = inputs[-self.pool_size :], labels[-self.pool_size :]
        return replace(state, inputs=inputs, labels=labels, generator=generator, made_at=state.heard)

    def distilled(self, state: Memory, model: Model, compute: Compute, key: Key) -> tuple[Tensor, float]:
        """The current model's weights [d] after learning from the teachers on the pool, and the loss."""
        assert state.inputs is not None
        assert state.labels is not None
        drawn, targets, draws = [], [], key.fold("draws").numpy()
        labels = state.labels.cpu().numpy()
        for teacher, proportions in zip(state.teachers, state.proportions(), strict=True):
            rows = draw(labels, proportions.double().cpu().numpy(), self.steps * self.batch_size, draws)
            drawn.append(state.inputs[torch.from_numpy(rows).to(state.inputs.device)])
            targets.append(compute.predict(teacher.model, drawn[-1]).softmax(-1))
        how = Distillation(self.steps, self.batch_size * len(drawn), self.lr, 0.0, "adam")
        return compute.distill(model, kl_to(torch.cat(targets)), how, key, torch.cat(drawn))


def draw(labels: np.ndarray, proportions: np.ndarray, count: int, draws: np.random.Generator) -> np.ndarray:
    """`count` places in `labels` [P], with replacement: labels by `proportions` [C], then any place of that label.

    A label that nothing was made for stands for any place at all.
    """
    order = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels, minlength=len(proportions))
    firsts = np.cumsum(sizes) - sizes
    wanted = draws.choice(len(proportions), size=count, p=proportions / proportions.sum())
    sizes, firsts = np.where(sizes, sizes, len(labels))[wanted], np.where(sizes, firsts, 0)[wanted]
    places: np.ndarray = order[firsts + (draws.random(count) * sizes).astype(np.int64)]
    return places
