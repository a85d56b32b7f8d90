"""Frozen features: what a pretrained encoder makes of a text, computed once and cache."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.errors import MissingExtra
from .derived import DerivedCache
from .fetch import fetch

NAMES = ("minilm",)


BATCH = 64
"""Texts per forward pass."""


def embed(name: str, inputs: Tensor, pad: int, cache: DerivedCache) -> Tensor:
    """The encoder's features of token ids [n, L], [n, 384] float32: the mean of its last states over the tokens that
    are no padding, of length 1 (as the model's authors use it: Reimers & Gurevych 2019, arXiv 1908.10084).

    Texts are taken in order of length, so that little is computed on padding: with one thread of a laptop's core about
    20 texts a second of 128 tokens. What was computed once is read from the cache.

    Raises:
        MissingExtra: needs the extra `text`.
    """
    cached = cache.read(f"features {name} {tuple(inputs.shape)}", inputs)
    if cached is not None:
        return cached["features"]
    try:
        from transformers import AutoModel
    except ImportError:
        raise MissingExtra(f"`features` ({name!r})", "text") from None
    encoder = AutoModel.from_pretrained(fetch(name, cache.root)).eval()
    sizes = (inputs != pad).sum(1)
    features = torch.zeros(len(inputs), int(encoder.config.hidden_size))
    with torch.no_grad():
        for batch in torch.split(sizes.argsort(stable=True), BATCH):
            tokens = inputs[batch, : max(1, int(sizes[batch].max()))]
            mask = tokens != pad
            states = encoder(tokens, mask).last_hidden_state * mask.unsqueeze(-1)
            means = states.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
            features[batch] = means / means.norm(dim=1, keepdim=True).clamp(min=1e-12)
    cache.write(f"features {name} {tuple(inputs.shape)}", inputs, {"features": features})
    return features
