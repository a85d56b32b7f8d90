"""SmolLM2-135M-Instruct, a language model."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ...data.fetch import fetch
from .entry import ShippedModel
from .pretrained import Causal, Train, adapted, check_inputs, llama
from .weights import gguf


def smollm2(
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
    """SmolLM2-135M-Instruct, a language model (Ben Allal et al. 2025, arXiv 2502.02737), from weights of 4 bits.

    For its arguments see `minilm`; there is no head. It is computed in float32: 540 MB in every process.
    """
    check_inputs("smollm2", causal, True, shape)
    path = next(fetch("smollm2").glob("*.gguf"))
    module = Causal(llama("smollm2", *gguf(path)), classes, pad)
    return adapted(module, (), train, rank, alpha, targets, freeze_a)


SHIPPED = ShippedModel("smollm2", smollm2, text=True, tokenizer="smollm2")
