"""FedASMU: a mixing factor that falls with staleness and with time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt
from torch import Tensor

from ..core.messages import View
from .base import Algorithm, ClientUpdate


@dataclass(frozen=True, slots=True)
class Mixed:
    """The client's model that is to be mixed in, and α."""

    weights: Tensor | None = None
    alpha: float = 0.0


@dataclass(frozen=True)
class FedASMU(Algorithm):
    r"""Mix every model in as it arrives: x ← (1 − α)·x + α·x_i with α = μ_α·ξ/(1 + μ_α·ξ).

    ξ = λ/(√t·(τ + 1)^σ) + ι, where t counts versions from 1.

    Liu et al., *FedASMU: Efficient Asynchronous Federated Learning with Dynamic Staleness-aware Model Update*, AAAI
    2024, equations (1) and (2) as two re-implementations have them; https://arxiv.org/abs/2312.05770. This is its
    server rule with fixed coefficients. Left out: the paper learns λ, σ and ι online for every client, and clients mix
    the fresh global model in while they train. Batch-norm statistics are mixed by the same factor.

    Attributes:
        mu_alpha: μ_α > 0, how strongly models are mixed in; 1 in the re-implementations.
        lam: λ ≥ 0, the part of ξ that falls with time; 1 in the re-implementations, where it is the initial value only.
        sigma: σ ≥ 0, the exponent of staleness; 0.5 in one re-implementation and 1 in another (initial values).
        iota: ι ≥ 0, the part of ξ that stays. The re-implementations learn it from 0; fixed at 0 the model would freeze
            (α is at most .025 at t = 1500), so 0.1 is ours.
        max_staleness: τ ≥ 0 in versions above which updates are refused; None accepts all. The paper's limit is on
            τ + 1.
    """

    name = "fedasmu"
    citation = (
        "@inproceedings{liu2024fedasmu, title={FedASMU: Efficient Asynchronous Federated Learning with Dynamic "
        "Staleness-aware Model Update}, author={Liu, Ji and Jia, Juncheng and Che, Tianshi and Huo, Chao and Ren, "
        "Jiaxiang and Zhou, Yang and Dai, Huaiyu and Dou, Dejing}, booktitle={AAAI}, year={2024}}"
    )
    grid: ClassVar[dict[str, tuple[float, ...]]] = {"mu_alpha": (0.5, 1.0, 3.0, 10.0)}
    mu_alpha: Annotated[float, Gt(0)] = 1.0
    lam: Annotated[float, Ge(0)] = 1.0
    sigma: Annotated[float, Ge(0)] = 0.5
    iota: Annotated[float, Ge(0)] = 0.1
    max_staleness: Annotated[int, Ge(0)] | None = None

    def alpha(self, t: int, tau: int) -> float:
        """α of an update of staleness τ in the round t, counted from 1."""
        xi = self.lam / (math.sqrt(t) * math.pow(tau + 1.0, self.sigma)) + self.iota
        return self.mu_alpha * xi / (1.0 + self.mu_alpha * xi)

    def init(self, weights: Tensor, clients: int) -> Mixed:
        return Mixed()

    def is_stale(self, staleness: int) -> bool:
        return self.max_staleness is not None and staleness > self.max_staleness

    def receive(self, state: Mixed, update: ClientUpdate) -> Mixed:
        return Mixed(update.weights, self.alpha(update.version + 1, update.staleness))

    def ready(self, state: Mixed, view: View) -> bool:
        return state.weights is not None

    def aggregate(self, state: Mixed, weights: Tensor, scale: float) -> tuple[Tensor, Mixed]:
        assert state.weights is not None
        return weights.lerp(state.weights, scale * state.alpha), Mixed()

    def mix_buffers(self, state: Mixed, current: Tensor, arrived: Tensor) -> Tensor:
        return current.lerp(arrived, state.alpha)
