"""Texts that a language model writes during a run."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..config.config import Config
from ..core.errors import ConfigError
from ..core.keys import Key
from ..core.messages import Model
from ..data import tokens
from ..data.federation import Federation
from ..learning.learner import Learner

CONTINUED = 64
"""Tokens that a prompt and its continuation have together, at most."""


def _words(data: Federation) -> tokens.Tokenizer:
    """The tokenizer of a run on text."""
    if data.tokenizer is None:
        raise ConfigError("the data set does not say what made its tokens; name a tokenizer in its Source")
    return tokens.tokenizer(data.tokenizer)


def generated_inputs(config: Config, data: Federation, learner: Learner, key: Key) -> Tensor:
    """U that the initial model writes, [|U|, L], from the token that begins a text, or a new line."""
    by, size = _words(data), config.data.unlabeled_size
    first = next((ids[0] for ids in map(by.encode, ("", "\n", "a")) if ids), 0)
    length = data.inputs.shape[1]
    parts = []
    for i in range(0, size, 64):
        prompts = torch.full((min(64, size - i), 1), first)
        parts.append(learner.generate(learner.initial(), prompts, length, key.fold(i)).cpu())
    return torch.cat(parts)


def continuation_writer(
    config: Config, data: Federation, learner: Learner
) -> Callable[[Model], list[tuple[str, str]]] | None:
    """Continues the first quarter of some test texts, evenly spread, by the most probable tokens."""
    count = config.experiment.continuations
    if not count:
        return None
    if not data.causal:
        raise ConfigError(
            f"experiment.continuations is {count}, and a model of {config.data.dataset} says classes; set it to 0"
        )
    by, inputs = _words(data), data.test[0]
    length = min(CONTINUED, inputs.shape[1])
    begun = max(1, length // 4)
    whole = inputs if data.pad is None else inputs[(inputs[:, :begun] != data.pad).all(1)]
    count = min(count, len(whole))
    prompts = whole[torch.arange(count) * len(whole) // max(count, 1), :begun]

    def continue_prompts(model: Model) -> list[tuple[str, str]]:
        made = learner.generate(model, prompts, length).cpu()
        pairs = []
        for row in made.tolist():
            prompt, whole = by.decode(row[:begun]), by.decode(row)
            pairs.append((prompt, whole.removeprefix(prompt)))
        return pairs

    return continue_prompts
