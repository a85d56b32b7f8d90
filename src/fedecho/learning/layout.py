"""How inputs and weights lie in memory: channels first, or last for convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

MemoryFormat = Literal["auto", "contiguous", "channels_last"]


@dataclass(frozen=True)
class Layout:
    """Where inputs are, of which type, and in which order their dimensions lie.

    Attributes:
        device: torch device.
        dtype: of the weights, and so of inputs and targets that are floats.
        channels_last: whether images lie with their channels last; the bits of a run depend on it.
    """

    device: torch.device
    dtype: torch.dtype
    channels_last: bool

    @staticmethod
    def uses_channels_last(module: nn.Module, inputs: Tensor, memory_format: MemoryFormat) -> bool:
        """Whether images [n, C, H, W] go through this module with their channels last."""
        if inputs.dim() != 4 or memory_format == "contiguous":
            return False
        convolutional = any(isinstance(part, nn.Conv2d) for part in module.modules())
        return memory_format == "channels_last" or convolutional

    def place(self, inputs: Tensor) -> Tensor:
        """Inputs [n, *shape] as they are stored: on the device, [n, H, W, C] where channels come last."""
        if self.channels_last:
            inputs = inputs.permute(0, 2, 3, 1).contiguous()
        return self.to_device(inputs)

    def to_device(self, values: Tensor) -> Tensor:
        """Values on the device; floats in the weights' type."""
        return values.to(self.device, self.dtype if values.is_floating_point() else None)

    def view(self, stored: Tensor) -> Tensor:
        """What `place` returned, as the module takes it: [B, *shape]."""
        return stored.permute(0, 3, 1, 2) if self.channels_last else stored

    def parameter_order(self, parameter: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The order in which a parameter's dimensions lie in the flat vector, and the way back."""
        if self.channels_last and parameter.dim() == 4:  # convolutions follow their weights' layout, too
            return (0, 2, 3, 1), (0, 3, 1, 2)
        return tuple(range(parameter.dim())), tuple(range(parameter.dim()))
