"""Texts that a language model continues."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.keys import Key
from .flat import FlatModule


def generate(flat: FlatModule, prompts: Tensor, length: int, pad: int | None, key: Key | None = None) -> Tensor:
    """How the loaded language model continues prompts [n, l]: token ids [n, length] that begin with them, 1 ≤ l ≤
    length.

    Each next token is the most probable one, or with a key drawn from the model's probabilities. After the token `pad`
    a text holds nothing else. A module that has `step` (see `models.lstm.LSTM`) is not given again what it has read.
    """
    module, device = flat.module, flat.layout.device
    module.eval()
    step = getattr(module, "step", None)
    texts, past, new = prompts.to(device), None, prompts.to(device)
    ended = torch.zeros(len(texts), dtype=torch.bool, device=device)
    draws = None if key is None else key.numpy()
    with torch.no_grad():
        while texts.shape[1] < length:
            if step is not None:
                logits, past = step(new, past)
            else:
                logits = flat.outputs(texts)[:, -1]
            if draws is None:
                new = logits.argmax(-1, keepdim=True)
            else:
                cumulative = logits.double().softmax(-1).cumsum(-1)
                u = torch.from_numpy(draws.random((len(texts), 1))).to(device) * cumulative[:, -1:]
                new = torch.searchsorted(cumulative, u, right=True).clamp(max=logits.shape[-1] - 1)
            if pad is not None:
                new = new.masked_fill(ended.unsqueeze(1), pad)
                ended = ended | (new.squeeze(1) == pad)
            texts = torch.cat([texts, new], 1)
    return texts
