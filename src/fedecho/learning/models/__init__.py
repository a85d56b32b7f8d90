"""The models that ship. Each is a plain `nn.Module`; anybody's own is named by `module:Class`.

A builder takes the shape of one input and the number of classes, and its own options by keyword. Those of text also
take `causal` and `pad`, which the data say: a language model's logits are [B, L, V], a classifier's [B, C].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from ...core.errors import ConfigError
from ...core.imports import import_object
from .cnn import CNN
from .lenet import LeNet5
from .lstm import LSTM
from .mlp import MLP
from .pretrained import hugging_face, minilm, smollm2, tinystories
from .resnet import ResNet18

TEXT: dict[str, Callable[..., nn.Module]] = {
    "lstm": LSTM,
    "minilm": minilm,
    "smollm2": smollm2,
    "tinystories": tinystories,
}


MODELS: dict[str, Callable[..., nn.Module]] = {"cnn": CNN, "lenet5": LeNet5, "mlp": MLP, "resnet18": ResNet18, **TEXT}


TOKENIZERS = {"lstm": "characters", "minilm": "minilm", "smollm2": "smollm2", "tinystories": "tinystories"}
"""Which tokenizer a model brings."""


def tokenizer_of(name: str, asked: str | None = None) -> str | None:
    """The tokenizer that the model of this name brings, if it brings one; `lstm` takes any that is asked for."""
    if name == "lstm" and asked is not None:
        return asked
    return name if name.startswith("hf:") else TOKENIZERS.get(name)


def build(
    name: str, shape: Sequence[int], classes: int, causal: bool, pad: int | None, options: dict[str, Any]
) -> nn.Module:
    """The module of this name for inputs of this shape, drawing from torch's global generator.

    Raises:
        ConfigError, DataError, MissingExtra: for what cannot be built.
        TypeError: for options that the builder does not know.
    """
    text = TEXT.get(name) or (hugging_face(name[3:]) if name.startswith("hf:") else None)
    if text is not None:
        return text(shape, classes, causal=causal, pad=pad, **options)
    if name in MODELS and pad is not None:
        frozen = "" if causal else " or set data.features"
        raise ConfigError(
            f"[model] {name} takes numbers, and the data are token ids; take {', '.join(TEXT)} or hf:NAME{frozen}"
        )
    builder = MODELS[name] if name in MODELS else import_object(name, "model")
    module: nn.Module = builder(shape, classes, **options)
    return module


__all__ = ["CNN", "LSTM", "MLP", "MODELS", "TEXT", "TOKENIZERS", "LeNet5", "ResNet18", "build", "tokenizer_of"]
