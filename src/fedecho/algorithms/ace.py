"""ACE and ACED: every arrival steps by the mean of all clients' latest changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core.messages import View
from .base import Algorithm, ClientUpdate, zeros

CITATION = (
    "@article{chang2025mitigating, title={Mitigating Participation Imbalance Bias in Asynchronous Federated Learning}, "
    "author={Chang, Xiangyu and Yao, Manyi and Krishnamurthy, Srikanth V. and Shelton, Christian R. and Chakraborty, "
    "Anirban and Swami, Ananthram and Oymak, Samet and Roy-Chowdhury, Amit}, journal={arXiv:2511.19066}, year={2025}}"
)


@dataclass(frozen=True, slots=True)
class Latest:
    """`rows[i]` is U_i, the last change of client i, and `total` their sum; `fresh` once one has come since."""

    rows: dict[int, Tensor]
    total: Tensor
    fresh: bool = False


@dataclass(frozen=True)
class ACE(Algorithm):
    r"""All clients engaged: at every arrival x ← x + η·(mean of U_i over the clients heard so far).

    U_i is the last change of client i, however old.

    Chang et al., *Mitigating Participation Imbalance Bias in Asynchronous Federated Learning*, arXiv 2511.19066 (2025),
    from its abstract and public reviews. The paper's clients send one gradient; here Δ_i takes the place of −gradient.
    The paper begins with a round over all clients: `warm_up`.

    Keeps N·d numbers on the server. Buffers are never cached: they are those of the arriving client.

    Attributes:
        lr: η, the server step, tuned in the paper; 0.1 is ours.
        warm_up: clients that must have been heard before the first step; N is the paper's first round, 1 is ours.
    """

    name = "ace"
    citation = CITATION
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"lr": (0.02, 0.05, 0.1, 0.2)}
    lr: float = 0.1
    warm_up: int = 1

    def init(self, weights: Tensor, clients: int) -> Latest:
        return Latest({}, zeros(weights))

    def memory(self, clients: int) -> int:
        return clients + 1

    def receive(self, state: Latest, update: ClientUpdate) -> Latest:
        moved = update.delta - state.rows.get(update.client, 0.0)
        return Latest({**state.rows, update.client: update.delta}, state.total + moved, True)

    def ready(self, state: Latest, view: View) -> bool:
        return state.fresh and len(state.rows) >= self.warm_up

    def aggregate(self, state: Latest, weights: Tensor, scale: float) -> tuple[Tensor, Latest]:
        return weights + (scale * self.lr / len(state.rows)) * state.total, Latest(state.rows, state.total)


@dataclass(frozen=True, slots=True)
class Recent:
    """`rows[i]` is U_i with the version it started from, for the clients that still count."""

    rows: dict[int, tuple[int, Tensor]]
    fresh: bool = False


@dataclass(frozen=True)
class ACED(Algorithm):
    r"""ACE over the clients whose last change is not too old: x ← x + η·(mean of U_i with t − t_i ≤ τ_algo).

    t_i is the version that client i's last change started from. Where nobody counts the model stays as it is. The same
    paper as `ACE`: its delay-aware variant.

    Keeps at most τ_algo + 1 changes on the server, since a client that has dropped out of the mean comes back with a
    new one only. Buffers are never cached: they are those of the arriving client.

    Attributes:
        lr: η, the server step, tuned in the paper; 0.1 is ours.
        tau_algo: τ_algo, the age in versions up to which a change counts; 50, twice the default concurrency, is ours.
    """

    name = "aced"
    citation = CITATION
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"lr": (0.02, 0.05, 0.1, 0.2)}
    lr: float = 0.1
    tau_algo: int = 50

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
