"""A small recurrent network for texts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...core.errors import ConfigError
from .entry import ShippedModel


class LSTM(nn.Module):
    """A recurrent network for token ids, small enough to be trained from scratch: 118,242 parameters for 98 characters.

    On one core it learns Shakespeare's characters faster than a GRU or a small transformer of equal time
    (`docs/language.md`). Hochreiter & Schmidhuber, *Long Short-Term Memory*, 1997.

    Args:
        shape: (length,) of the token ids.
        classes: C, or the vocabulary's size V of a language model.
        causal: a language model, which says what comes next at each place; else a classifier of whole texts.
        pad: the token that fills short texts, or None.
        vocabulary: how many tokens a classifier may see; a language model sees V.
        embedding: width of the tokens' embedding.
        hidden: width of the state.
        layers: of recurrence.
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        causal: bool = True,
        pad: int | None = None,
        vocabulary: int | None = None,
        embedding: int = 64,
        hidden: int = 128,
        layers: int = 1,
    ) -> None:
        super().__init__()
        if len(shape) != 1:
            raise ConfigError(
                f"lstm takes token ids [length], got inputs of shape {tuple(shape)}; take a text data set"
            )
        if vocabulary is None and not causal:
            raise ConfigError("lstm as a classifier needs model.vocabulary, how many tokens there are (98 characters)")
        self.causal, self.pad = causal, pad
        self.embedding = nn.Embedding(classes if vocabulary is None else vocabulary, embedding)
        self.recurrence = nn.LSTM(embedding, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [B, L, V] for tokens [B, L]; of a classifier [B, C], from the mean state where there is no padding."""
        states = self.recurrence(self.embedding(tokens))[0]
        if not self.causal:
            mask = torch.ones_like(tokens) if self.pad is None else (tokens != self.pad).long()
            mask = mask.unsqueeze(-1).to(states.dtype)
            states = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
        logits: Tensor = self.head(states)
        return logits

    def step(self, tokens: Tensor, past: object = None) -> tuple[Tensor, object]:
        """Logits [B, V] of the token after tokens [B, l], which follow the state `past`; and the new state."""
        states, past = self.recurrence(self.embedding(tokens), past)
        return self.head(states[:, -1]), past


SHIPPED = ShippedModel("lstm", LSTM, text=True, tokenizer="characters", any_tokenizer=True)
