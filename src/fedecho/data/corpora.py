"""The text data sets as token ids."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..core.errors import ConfigError
from . import text, tokens
from .datasets import TextDataset
from .derived import DerivedCache
from .features import embed
from .fetch import ARCHIVES, fetch
from .source import Scale, Source


def load_text(
    dataset: TextDataset, tokenizer_name: str, length: int, features: str | None, cache: DerivedCache
) -> Source:
    """A data set of text as token ids, or as an encoder's features of them. Its tokens are made once.

    Args:
        dataset: which.
        tokenizer_name: what cuts the texts.
        length: tokens an example.
        features: the encoder, or None.
        cache: keeps what is made.
    """
    name = dataset.name
    folder = fetch(dataset.archive, cache.root)
    tokenizer = tokens.tokenizer(tokenizer_name, cache.root)
    about = f"{name} {ARCHIVES[dataset.archive].sha256} {tokenizer_name} {tokenizer.size} {length}"
    tensors = cache.read("tokens", about)
    texts = None if tensors is not None and dataset.anonymous else dataset.read(folder)
    if features is not None and isinstance(texts, text.Spoken):
        raise ConfigError(f"`features` ({features!r}) need texts with classes, and {name!r} has none; leave it out")
    if tensors is None:
        assert texts is not None
        tensors = (
            _rows(texts, tokenizer, length) if isinstance(texts, text.Labelled) else _windows(texts, tokenizer, length)
        )
        cache.write("tokens", about, tensors)
    classes = tokenizer.size if isinstance(texts, text.Spoken) else int(tensors["labels"].max()) + 1
    source = Source(
        name,
        tensors["inputs"],
        tensors["labels"],
        tensors["test_inputs"],
        tensors["test_labels"],
        classes,
        owners=tensors.get("owners"),
        test_owners=tensors.get("test_owners"),
        tokenizer=tokenizer_name,
        pad=tokenizer.pad,
        length=length,
    )
    if features is not None:
        inputs, test_inputs = (
            embed(features, part, tokenizer.pad, cache) for part in (source.inputs, source.test_inputs)
        )
        scale = Scale.of(inputs)
        source = replace(
            source, inputs=scale(inputs), test_inputs=scale(test_inputs), pad=None, features=features, scale=scale
        )
    return source if texts is None else _with_owners(source, texts)


def _with_owners(source: Source, texts: text.Labelled | text.Spoken) -> Source:
    """The data set with the names of its owners and their domains, where these are known."""
    if isinstance(texts, text.Spoken):
        owners, hours = tuple(texts.texts), texts.hours
    else:
        owners, hours = texts.who, None
    if not owners:
        return source
    domains = list(dict.fromkeys(domain for domain, _ in owners))
    grouped = len(domains) > 1
    return replace(
        source,
        owner_names=tuple(f"{owner}, {domain}" if grouped else owner for domain, owner in owners),
        domains=torch.tensor([domains.index(domain) for domain, _ in owners]) if grouped else None,
        domain_names=tuple(domains) if grouped else (),
        hours=None if hours is None else tuple(hours[owner] for owner in owners),
    )


def _rows(texts: text.Labelled, tokenizer: tokens.Tokenizer, length: int) -> dict[str, Tensor]:
    """Labelled texts as tokens."""
    tensors = {
        "inputs": tokens.rows(texts.texts, tokenizer, length),
        "labels": torch.tensor(texts.labels),
        "test_inputs": tokens.rows(texts.test_texts, tokenizer, length),
        "test_labels": torch.tensor(texts.test_labels),
    }
    if texts.who:
        tensors |= {"owners": torch.tensor(texts.owners), "test_owners": torch.tensor(texts.test_owners)}
    return tensors


def _windows(texts: text.Spoken, tokenizer: tokens.Tokenizer, length: int) -> dict[str, Tensor]:
    """Running text as windows of tokens, owner after owner."""
    tensors = {}
    for part, by_owner in (("", texts.texts), ("test_", texts.test_texts)):
        cut = [tokens.windows(by_owner[owner], tokenizer, length) for owner in texts.texts]
        tensors[f"{part}inputs"] = torch.cat([inputs for inputs, _ in cut])
        tensors[f"{part}labels"] = torch.cat([labels for _, labels in cut])
        counts = torch.tensor([len(inputs) for inputs, _ in cut])
        tensors[f"{part}owners"] = torch.arange(len(cut)).repeat_interleave(counts)
    return tensors
