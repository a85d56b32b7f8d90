"""TinyStories-15M, a small language model."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ...data.fetch import fetch
from .entry import ShippedModel
from .pretrained import Causal, Train, adapted, check_inputs, llama
from .weights import llama2c


def tinystories(
    shape: Sequence[int],
    classes: int,
    causal: bool = True,
    pad: int | None = None,
    train: Train = "lora",
    rank: int = 8,
    alpha: int = 16,
    targets: str | Sequence[str] = ("q_proj", "v_proj"),
    freeze_a: bool = False,
) -> nn.Module:
    """TinyStories-15M, a language model that learned from children's stories (Eldan & Li 2023, arXiv 2305.07759).

    For its arguments see `minilm`; there is no head.
    """
    check_inputs("tinystories", causal, True, shape)
    module = Causal(llama("tinystories", *llama2c(fetch("tinystories") / "llama2.data")), classes, pad)
    return adapted(module, (), train, rank, alpha, targets, freeze_a)


SHIPPED = ShippedModel("tinystories", tinystories, text=True, tokenizer="tinystories")
