"""The models that ship, one file each. Each is a plain `nn.Module`; anybody's own is named by `module:Class`.

A builder takes the shape of one input and the number of classes, and its own options by keyword. Those of text also
take `causal` and `pad`, which the data say: a language model's logits are [B, L, V], a classifier's [B, C].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from ...core.errors import ConfigError
from ...core.imports import import_object
from ...core.plugins import shipped_instances
from .entry import ShippedModel

SHIPPED: dict[str, ShippedModel] = shipped_instances(__name__, ShippedModel)
"""Every model that ships, by name."""

MODELS: dict[str, Callable[..., nn.Module]] = {name: model.build for name, model in SHIPPED.items()}
"""What builds it."""

TEXT = {name: model.build for name, model in SHIPPED.items() if model.text}
"""Those whose inputs are token ids."""

TOKENIZERS = {name: model.tokenizer for name, model in SHIPPED.items() if model.tokenizer is not None}
"""The tokenizer that a model brings."""

HUB = "hf:"
"""What the name of a model of Hugging Face begins with."""


def tokenizer_of(name: str, requested: str | None = None) -> str | None:
    """The tokenizer that the model of this name brings, or `requested` where it takes any; None if it brings none."""
    if requested is not None and name in SHIPPED and SHIPPED[name].any_tokenizer:
        return requested
    return name if name.startswith(HUB) else TOKENIZERS.get(name)


def build(
    name: str, shape: Sequence[int], classes: int, causal: bool, pad: int | None, options: dict[str, Any]
) -> nn.Module:
    """The module of this name for inputs of this shape, drawing from torch's global generator.

    Raises:
        ConfigError, DataError, MissingExtra: for what cannot be built.
        TypeError: for options that the builder does not know.
    """
    text_builder = TEXT.get(name)
    if name.startswith(HUB):
        from .pretrained import hugging_face

        text_builder = hugging_face(name.removeprefix(HUB))
    if text_builder is not None:
        return text_builder(shape, classes, causal=causal, pad=pad, **options)
    if name in MODELS and pad is not None:
        features = "" if causal else " or set data.features"
        raise ConfigError(
            f"[model] {name} takes numbers, and the data are token ids; take {', '.join(TEXT)} or hf:NAME{features}"
        )
    builder = MODELS[name] if name in MODELS else import_object(name, "model")
    module: nn.Module = builder(shape, classes, **options)
    return module
