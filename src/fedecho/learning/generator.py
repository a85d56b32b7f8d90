"""Inputs made from noise: a small generator that learns what a set of classifiers is sure of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..core.keys import Key
from ..stages.compute import Generator, Synthesis, Synthetic

RANGE = 3.0
"""Made inputs lie within ±this: data are normalised to a standard deviation of 1."""


EMBEDDING_WEIGHT = 0.2
"""How much a class embedding adds to the noise, as in the FedRevive authors' code."""


BETAS = (0.5, 0.999)
"""Of both Adams, likewise."""


@dataclass(frozen=True)
class Networks:
    """The classifiers that inputs are made for: the teachers' logits, [B, C] each, and the student's."""

    teachers: Callable[[Tensor], Sequence[Tensor]]
    student: Callable[[Tensor], Tensor]


class Perceptron(nn.Module):
    """Noise [B, latent] to inputs [B, *shape]: two linear layers, batch norm between them, tanh at the end."""

    def __init__(self, shape: Sequence[int], latent_size: int, width: int) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.layers = nn.Sequential(
            nn.Linear(latent_size, width),
            nn.BatchNorm1d(width, track_running_stats=False),
            nn.LeakyReLU(0.2),
            nn.Linear(width, math.prod(shape)),
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        made: Tensor = RANGE * self.layers(z).view(-1, *self.shape)
        return made


def synthesize(
    state: Generator | None, networks: Networks, shape: Sequence[int], mix: Tensor, how: Synthesis, key: Key
) -> tuple[Generator, Synthetic]:
    """A batch of inputs, and the generator moved towards the copy that made them (Reptile).

    The copy, the noise and one embedding per class take `how.steps` steps of Adam on

        Σ_j w_j(y)·[CE(teacher_j, y) − adversarial·1{teacher_j and student name the same class}·KL(teacher_j ‖ student)]

    with labels y drawn from the mean of the teachers' proportions `mix` [m, C] and w_j(y) = mix_j(y) / Σ_k mix_k(y).
    The inputs with the least loss on the way are kept. Then the generator takes a step of an Adam of its own, whose
    moments are in the state, along (its weights − the copy's).
    """
    with key.fold("generator").torch_global():
        module = Perceptron(shape, how.latent_size, how.width).to(mix.device)
    names, parameters = zip(*module.named_parameters(), strict=True)
    if state is None:
        start = torch.cat([p.detach().reshape(-1) for p in parameters])
        state = Generator(start, torch.zeros_like(start), torch.zeros_like(start), 0)
    sizes = [p.numel() for p in parameters]
    draws, classes = key.fold("draws").numpy(), mix.shape[1]
    p = mix.double().mean(0).cpu().numpy()
    labels = torch.from_numpy(draws.choice(classes, size=how.batch_size, p=p / p.sum())).to(mix.device)
    share = (mix / mix.sum(0).clamp(min=1e-8))[:, labels]

    def normal(*size: int) -> Tensor:
        return torch.from_numpy(draws.standard_normal(size)).float().to(mix.device).requires_grad_()

    fast = state.weights.clone().requires_grad_()
    noise, embeddings = normal(how.batch_size, how.latent_size), normal(classes, how.latent_size)
    groups: list[dict[str, Any]] = [{"params": [fast]}, {"params": [noise, embeddings], "lr": how.latent_lr}]
    adam = torch.optim.Adam(groups, lr=how.lr, betas=BETAS)
    best = Synthetic(torch.empty(0), labels, math.inf)
    for _ in range(how.steps):
        parts = torch.split(fast, sizes)
        views = {name: part.view(q.shape) for name, part, q in zip(names, parts, parameters, strict=True)}
        inputs = functional_call(module, views, (noise + EMBEDDING_WEIGHT * embeddings[labels],))
        loss = _loss(networks, inputs, labels, share, how.adversarial)
        value = float(loss.detach())
        if value < best.loss or not len(best.inputs):
            best = Synthetic(inputs.detach(), labels, value)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    return _towards(state, fast.detach(), how.lr), best


def _loss(networks: Networks, inputs: Tensor, labels: Tensor, share: Tensor, adversarial: float) -> Tensor:
    log_t = torch.stack(list(networks.teachers(inputs))).log_softmax(-1)  # [m, B, C]
    each = -log_t[:, torch.arange(len(labels), device=labels.device), labels]
    if adversarial:
        log_s = networks.student(inputs).log_softmax(-1)
        agree = log_t.argmax(-1) == log_s.argmax(-1)
        each = each - adversarial * agree * (log_t.exp() * (log_t - log_s)).sum(-1)
    return (share * each).sum(0).mean()


def _towards(state: Generator, goal: Tensor, lr: float) -> Generator:
    """One step of Adam on ½‖weights − goal‖²."""
    gradient, steps = state.weights - goal, state.steps + 1
    first = state.first.lerp(gradient, 1 - BETAS[0])
    second = state.second.lerp(gradient.square(), 1 - BETAS[1])
    step = first / (1 - BETAS[0] ** steps) / ((second / (1 - BETAS[1] ** steps)).sqrt() + 1e-12)
    return Generator(state.weights - lr * step, first, second, steps)
