"""all-MiniLM-L6-v2, an encoder of texts."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ...data.fetch import fetch
from .entry import ShippedModel
from .pretrained import Encoder, Train, adapted, check_inputs, load_transformer


def minilm(
    shape: Sequence[int],
    classes: int,
    causal: bool = False,
    pad: int | None = 0,
    train: Train = "lora",
    rank: int = 8,
    alpha: int = 16,
    targets: str | Sequence[str] = ("query", "value"),
    freeze_a: bool = False,
) -> nn.Module:
    """The encoder all-MiniLM-L6-v2, 22.7 M weights, with a linear head on the mean of its states; for classes of texts.

    Args:
        shape: (length,) of the token ids, at most 512.
        classes: C.
        causal: must be False.
        pad: the token that fills short texts.
        train: "lora" (adapters and head), "head" or "all".
        rank: of the adapters.
        alpha: the adapters' change is alpha/rank·B·A.
        targets: linear layers that get adapters.
        freeze_a: only B is trained.
    """
    check_inputs("minilm", causal, False, shape)
    inner, _ = load_transformer("AutoModel", str(fetch("minilm")), "minilm", add_pooling_layer=False)
    module = Encoder(inner, int(inner.config.hidden_size), classes, pad)
    return adapted(module, ["head."], train, rank, alpha, targets, freeze_a)


SHIPPED = ShippedModel("minilm", minilm, text=True, tokenizer="minilm")
