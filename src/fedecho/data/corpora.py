"""The text data sets as token ids."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..core.errors import ConfigError
from . import text, tokens
from .derived import DerivedCache
from .features import embed
from .fetch import ARCHIVES, fetch
from .source import Scale, Source


def load_text(name: str, tokenizer: str, length: int, features: str | None, kept: DerivedCache) -> Source:
    """A data set of text. Its tokens are made once."""
    archive, read = text.READERS[name]
    folder = fetch(archive, kept.root)
    by = tokens.tokenizer(tokenizer, kept.root)
    about = f"{name} {ARCHIVES[archive].sha256} {tokenizer} {by.size} {length}"
    found = kept.read("tokens", about)
    said = None if found is not None and name in PLAIN else read(folder)
    if features is not None and isinstance(said, text.Spoken):
        raise ConfigError(f"`features` ({features!r}) need texts with classes, and {name!r} has none; leave it out")
    if found is None:
        assert said is not None
        found = _rows(said, by, length) if isinstance(said, text.Labelled) else _windows(said, by, length)
        kept.write("tokens", about, found)
    classes = by.size if isinstance(said, text.Spoken) else int(found["labels"].max()) + 1
    source = Source(
        name,
        found["inputs"],
        found["labels"],
        found["test_inputs"],
        found["test_labels"],
        classes,
        owners=found.get("owners"),
        test_owners=found.get("test_owners"),
        tokenizer=tokenizer,
        pad=by.pad,
        length=length,
    )
    if features is not None:
        inputs, test_inputs = (embed(features, part, by.pad, kept) for part in (source.inputs, source.test_inputs))
        scale = Scale.of(inputs)
        source = replace(
            source, inputs=scale(inputs), test_inputs=scale(test_inputs), pad=None, features=features, scale=scale
        )
    if isinstance(said, text.Spoken):
        who, hours = tuple(said.texts), said.hours
    else:
        who, hours = said.who if said is not None else (), None
    if not who:
        return source
    domains = list(dict.fromkeys(domain for domain, _ in who))
    grouped = len(domains) > 1
    return replace(
        source,
        owner_names=tuple(f"{owner}, {domain}" if grouped else owner for domain, owner in who),
        domains=torch.tensor([domains.index(domain) for domain, _ in who]) if grouped else None,
        domain_names=tuple(domains) if grouped else (),
        hours=None if hours is None else tuple(hours[owner] for owner in who),
    )


PLAIN = ("bbc_news", "imdb", "newsgroups", "reuters_r52", "reuters_r8")
"""Of which nothing need be known but the tokens."""


def _rows(said: text.Labelled, by: tokens.Tokenizer, length: int) -> dict[str, Tensor]:
    """Labelled texts as tokens."""
    made = {
        "inputs": tokens.rows(said.texts, by, length),
        "labels": torch.tensor(said.labels),
        "test_inputs": tokens.rows(said.test_texts, by, length),
        "test_labels": torch.tensor(said.test_labels),
    }
    if said.who:
        made |= {"owners": torch.tensor(said.owners), "test_owners": torch.tensor(said.test_owners)}
    return made


def _windows(said: text.Spoken, by: tokens.Tokenizer, length: int) -> dict[str, Tensor]:
    """Running text as windows of tokens, owner after owner."""
    made = {}
    for part, texts in (("", said.texts), ("test_", said.test_texts)):
        cut = [tokens.windows(texts[owner], by, length) for owner in said.texts]
        made[f"{part}inputs"] = torch.cat([inputs for inputs, _ in cut])
        made[f"{part}labels"] = torch.cat([labels for _, labels in cut])
        counts = torch.tensor([len(inputs) for inputs, _ in cut])
        made[f"{part}owners"] = torch.arange(len(cut)).repeat_interleave(counts)
    return made
