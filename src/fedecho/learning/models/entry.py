"""How a file of this package declares the model that it ships."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class ShippedModel:
    """A model that ships. A module of this package declares one as a global variable, and it is found by its name.

    Attributes:
        name: what `model.name` calls it.
        build: makes the module from (shape, classes, **options); that of a text model also takes `causal` and `pad`.
        text: whether its inputs are token ids.
        tokenizer: of a text model: the tokenizer that it brings.
        any_tokenizer: whether another one may be set by `data.tokenizer`.
    """

    name: str
    build: Callable[..., nn.Module]
    text: bool = False
    tokenizer: str | None = None
    any_tokenizer: bool = False


def image_remedy(shape: Sequence[int]) -> str:
    """What to do where a model of images cannot take inputs of this shape."""
    if len(shape) == 3 and shape[2] in (1, 3, 4) and 8 <= shape[0] <= 2 * shape[1] <= 4 * shape[0]:
        return (
            f"the images seem to have their channels last, [height, width, channels]: give [channels, height, width], "
            f"[{shape[2]}, {shape[0]}, {shape[1]}], by x.permute(0, 3, 1, 2), or x.transpose(0, 3, 1, 2) of NumPy"
        )
    if len(shape) == 2 and min(shape) >= 8:
        return f"images need a dimension of channels: give [1, {shape[0]}, {shape[1]}] by x[:, None]"
    return "use mlp"
