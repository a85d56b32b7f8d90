"""The settings of local training."""

from __future__ import annotations

from dataclasses import dataclass


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

    epochs: int = 2
    steps: int | None = None
    batch_size: int = 50
    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip: float = 0.0
