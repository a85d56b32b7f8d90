"""The settings of local training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Interval


@dataclass(frozen=True)
class ClientConfig:
    """Local training.

    Attributes:
        epochs: ≥ 1, passes over the client's data.
        steps: K ≥ 1, local steps instead of epochs, over as many passes as they take; None: `epochs` decides.
        batch_size: ≥ 1, examples of a step; the last batch of a pass may be smaller.
        lr: η_l > 0, the SGD step.
        momentum: in [0, 1), of SGD, starting from zero at each task.
        weight_decay: ≥ 0, the L2 penalty's coefficient, added to the gradient.
        clip: ≥ 0, the largest gradient norm; 0 does not clip.
    """

    epochs: Annotated[int, Ge(1)] = 2
    steps: Annotated[int, Ge(1)] | None = None
    batch_size: Annotated[int, Ge(1)] = 50
    lr: Annotated[float, Gt(0)] = 0.1
    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Ge(0)] = 0.0
    clip: Annotated[float, Ge(0)] = 0.0

    def unused_settings(self) -> dict[str, str]:
        """Settings without effect, each with the reason."""
        return {} if self.steps is None else {"epochs": f"client.steps is {self.steps}"}
