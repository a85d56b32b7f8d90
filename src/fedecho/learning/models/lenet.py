"""LeNet-5."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import ConfigError
from .entry import ShippedModel, image_remedy
from .pooling import max_pool


class LeNet5(nn.Module):
    """LeNet-5 with ReLU and max pooling: 61,706 parameters for 1×28×28 inputs and 10 classes.

    LeCun et al., *Gradient-Based Learning Applied to Document Recognition*, 1998, in the form used today.

    Args:
        shape: (channels, 28, 28) or (channels, 32, 32).
        classes: C.
    """

    def __init__(self, shape: Sequence[int], classes: int) -> None:
        super().__init__()
        if len(shape) != 3 or shape[1] != shape[2] or shape[1] not in (28, 32):
            raise ConfigError(
                f"lenet5 takes 28×28 or 32×32 images, got inputs of shape {tuple(shape)}; {image_remedy(shape)}"
            )
        self.conv1 = nn.Conv2d(shape[0], 6, 5, padding=2 if shape[1] == 28 else 0)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, C] for x [B, *shape]."""
        # ReLU after pooling is the same function as before it (both are monotone), on a quarter of the values.
        x = F.relu(max_pool(self.conv1(x)))
        x = F.relu(max_pool(self.conv2(x)))
        x = F.relu(self.fc1(x.flatten(1)))
        logits: Tensor = self.fc3(F.relu(self.fc2(x)))
        return logits


SHIPPED = ShippedModel("lenet5", LeNet5)
