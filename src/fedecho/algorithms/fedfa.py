"""FedFa: the mean of the last few client models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from ..core.messages import View
from .base import Algorithm, ClientUpdate


@dataclass(frozen=True, slots=True)
class Queue:
    """The last k client models and their buffers, oldest first; `fresh` once one has come since the last step."""

    models: tuple[Tensor, ...] = ()
    buffers: tuple[Tensor, ...] = ()
    fresh: bool = False


@dataclass(frozen=True)
class FedFa(Algorithm):
    r"""A sliding window: at every arrival x ← (1/k)·Σ of the last k client models, once there are k.

    Xu, Zhang, Di, Liu, Alharthi, Cao, *FedFa: A Fully Asynchronous Training Paradigm for Federated Learning*, IJCAI
    2024; https://arxiv.org/abs/2404.11015. This is the variant whose clients send models, checked against a
    re-implementation. Left out: FedFa-Delta, whose clients send changes. The server keeps k models, k·d numbers, and
    has no step size: k takes its place, since the newest model counts for 1/k. A schedule of the server step with
    factor s mixes, x ← x + s·(mean − x). Batch-norm statistics are averaged over the same window.

    Attributes:
        window: k ≥ 1, the client models that are averaged (k is not M: every arrival is a step); 5 is ours.
    """

    name = "fedfa"
    citation = (
        "@inproceedings{xu2024fedfa, title={FedFa: A Fully Asynchronous Training Paradigm for Federated Learning}, "
        "author={Xu, Haotian and Zhang, Zhaorui and Di, Sheng and Liu, Benben and Alharthi, Khalid Ayed and Cao, "
        "Jiannong}, booktitle={IJCAI}, year={2024}}"
    )
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"window": (3, 5, 10, 20)}
    window: Annotated[int, Ge(1)] = 5

    def init(self, weights: Tensor, clients: int) -> Queue:
        return Queue()

    def memory(self, clients: int) -> int:
        return self.window

    def receive(self, state: Queue, update: ClientUpdate) -> Queue:
        keep = slice(-self.window, None)
        models, buffers = (*state.models, update.weights), (*state.buffers, update.buffers)
        return Queue(models[keep], buffers[keep], True)

    def ready(self, state: Queue, view: View) -> bool:
        return state.fresh and len(state.models) == self.window

    def aggregate(self, state: Queue, weights: Tensor, scale: float) -> tuple[Tensor, Queue]:
        return weights.lerp(torch.stack(state.models).mean(0), scale), Queue(state.models, state.buffers)

    def mix_buffers(self, state: Queue, current: Tensor, arrived: Tensor) -> Tensor:
        return torch.stack(state.buffers).mean(0)
