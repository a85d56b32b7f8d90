"""ACE and ACED: every arrival is a step by the mean of all clients' latest changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from ..core.messages import View
from .base import Algorithm, ClientUpdate, RunShape, zeros

CITATION = (
    "@article{chang2025mitigating, title={Mitigating Participation Imbalance Bias in Asynchronous Federated Learning}, "
    "author={Chang, Xiangyu and Yao, Manyi and Krishnamurthy, Srikanth V. and Shelton, Christian R. and Chakraborty, "
    "Anirban and Swami, Ananthram and Oymak, Samet and Roy-Chowdhury, Amit}, journal={arXiv:2511.19066}, year={2025}}"
)


@dataclass(frozen=True, slots=True)
class Latest:
    """`rows[i]` is U_i, the last change of client i, `total` is their sum; `fresh`: one came since the last step."""

    rows: dict[int, Tensor]
    total: Tensor
    fresh: bool = False


@dataclass(frozen=True)
class ACE(Algorithm):
    r"""All-client engagement: at every arrival x ← x + η·(mean of U_i over the clients heard so far).

    U_i is the last change of client i, however old.

    Chang et al., *Mitigating Participation Imbalance Bias in Asynchronous Federated Learning*, 2025, from its abstract
    and public reviews; https://arxiv.org/abs/2511.19066. The paper's clients send one gradient; here Δ_i takes the
    place of −gradient. The paper begins with a round over all clients: `warm_up`.

    Keeps N·d numbers on the server. Batch-norm statistics are never cached: they are those of the arriving client.

    Attributes:
        lr: η > 0, the server step; tuned in the paper, 0.1 is ours.
        warm_up: ≥ 1, clients that must have been heard before the first step; N in the paper, 1 is ours.
    """

    name = "ace"
    citation = CITATION
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"lr": (0.02, 0.05, 0.1, 0.2)}
    lr: Annotated[float, Gt(0)] = 0.1
    warm_up: Annotated[int, Ge(1)] = 1

    def check(self, shape: RunShape) -> list[str]:
        first = min(shape.clients, shape.concurrency) if shape.refill == "batch" else shape.clients
        if shape.live or self.warm_up <= first:
            return []
        return [
            f"algorithm.warm_up ({self.warm_up}) exceeds the {first} clients that can be heard before the first step: "
            "no aggregation could ever happen; lower it"
        ]

    def init(self, weights: Tensor, clients: int) -> Latest:
        return Latest({}, zeros(weights))

    def memory(self, clients: int) -> int:
        return clients + 1

    def receive(self, state: Latest, update: ClientUpdate) -> Latest:
        total = state.total + (update.delta - state.rows.get(update.client, 0.0))
        return Latest({**state.rows, update.client: update.delta}, total, True)

    def ready(self, state: Latest, view: View) -> bool:
        return state.fresh and len(state.rows) >= self.warm_up

    def aggregate(self, state: Latest, weights: Tensor, scale: float) -> tuple[Tensor, Latest]:
        return weights + (scale * self.lr / len(state.rows)) * state.total, Latest(state.rows, state.total)


@dataclass(frozen=True, slots=True)
class Recent:
    """`rows[i]` is U_i with the version it started from, for the clients that count; `fresh` as in `Latest`."""

    rows: dict[int, tuple[int, Tensor]]
    fresh: bool = False


@dataclass(frozen=True)
class ACED(Algorithm):
    r"""ACE over the clients whose last change is not too old: x ← x + η·(mean of U_i with t − t_i ≤ τ_algo).

    t_i is the version that client i's last change started from. Where no client counts, the model stays as it is. The
    same paper as `ACE`: its delay-aware variant.

    Keeps at most τ_algo + 1 changes on the server: a client that has left the mean returns with a new change only.
    Batch-norm statistics are never cached: they are those of the arriving client.

    Attributes:
        lr: η > 0, the server step; tuned in the paper, 0.1 is ours.
        tau_algo: τ_algo ≥ 0, the age in versions up to which a change counts; 50, twice the default concurrency, is
            ours.
    """

    name = "aced"
    citation = CITATION
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"lr": (0.02, 0.05, 0.1, 0.2)}
    lr: Annotated[float, Gt(0)] = 0.1
    tau_algo: Annotated[int, Ge(0)] = 50

    def init(self, weights: Tensor, clients: int) -> Recent:
        return Recent({})

    def memory(self, clients: int) -> int:
        return min(clients, self.tau_algo + 1)

    def receive(self, state: Recent, update: ClientUpdate) -> Recent:
        rows = {**state.rows, update.client: (update.version - update.staleness, update.delta)}
        oldest = update.version - self.tau_algo
        return Recent({client: row for client, row in rows.items() if row[0] >= oldest}, True)

    def ready(self, state: Recent, view: View) -> bool:
        return state.fresh

    def aggregate(self, state: Recent, weights: Tensor, scale: float) -> tuple[Tensor, Recent]:
        if not state.rows:
            return weights, Recent({})
        mean = torch.stack([row for _, row in state.rows.values()]).mean(0)
        return weights + scale * self.lr * mean, Recent(state.rows)
