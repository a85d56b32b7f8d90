"""The settings of local training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Interval


@dataclass(frozen=True)
class ClientConfig:
    """Local training.

    Attributes:
        epochs: passes over the client's data.
        steps: K, local steps instead of epochs, where given; batches go on over as many passes as that takes.
        batch_size: examples a step; the last batch of a pass may be smaller.
        lr: η_l, the SGD step.
        momentum: SGD momentum, starting from zero at each task.
        weight_decay: L2 penalty's coefficient, added to the gradient.
        clip: largest gradient norm; 0 does not clip.
    """

    epochs: Annotated[int, Ge(1)] = 2
    steps: Annotated[int, Ge(1)] | None = None
    batch_size: Annotated[int, Ge(1)] = 50
    lr: Annotated[float, Gt(0)] = 0.1
    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Ge(0)] = 0.0
    clip: Annotated[float, Ge(0)] = 0.0
