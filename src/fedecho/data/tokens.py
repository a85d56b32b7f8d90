"""Tokenizers: text to token ids, and back."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ..core.errors import ConfigError, DataError, MissingExtra
from .fetch import fetch

CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))
"""What the tokenizer "characters" knows."""


class Tokenizer(Protocol):
    """Text to token ids, and back.

    Attributes:
        size: V, how many tokens there are.
        pad: the token that fills short texts.
    """

    size: int
    pad: int

    def encode(self, text: str, length: int | None = None) -> list[int]:
        """The text's token ids, with what the model wants around a text; no more than `length`."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids."""
        ...


class Characters:
    """One token a character: 0 fills, 1 is any character that is not known, then a line's end and printable ASCII."""

    size = len(CHARACTERS) + 2
    pad = 0

    def __init__(self) -> None:
        self._ids = {character: place + 2 for place, character in enumerate(CHARACTERS)}

    def encode(self, text: str, length: int | None = None) -> list[int]:
        return [self._ids.get(character, 1) for character in text[:length]]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join("" if i == 0 else "\N{REPLACEMENT CHARACTER}" if i == 1 else CHARACTERS[i - 2] for i in ids)


class Fast:
    """A tokenizer of the library `tokenizers`."""

    def __init__(self, inner: Any, pad: int) -> None:
        self._inner, self.pad = inner, pad
        self._inner.no_truncation()
        self._inner.no_padding()
        self.size: int = inner.get_vocab_size()
        around = list(inner.encode("").ids)
        self._last = around[-1:] if len(around) > 1 else []  # what a text ends with stays when it is cut

    def encode(self, text: str, length: int | None = None) -> list[int]:
        if length is None:
            return list(self._inner.encode(text).ids)
        ids = list(self._inner.encode(text[: 40 * length]).ids)  # no token is longer: the rest cannot be in it
        return ids if len(ids) <= length else ids[: length - len(self._last)] + self._last

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._inner.decode([i for i in ids if i != self.pad], skip_special_tokens=True))


def names() -> tuple[str, ...]:
    """The built-in tokenizers, sorted."""
    return ("characters", "minilm", "smollm2", "tinystories")


def check(name: str) -> str | None:
    """Why this is no name of a tokenizer, if it is none."""
    if name in names() or (name.startswith("hf:") and len(name) > 3):
        return None
    return f"{name!r} is unknown; choose from {', '.join(names())}, or give hf:NAME or hf:FOLDER"


@cache
def tokenizer(name: str, root: Path | None = None) -> Tokenizer:
    """A tokenizer by its name.

    Args:
        name: one of
            - "characters": 98 tokens, printable ASCII;
            - "minilm": the encoder's, 30,522 word pieces, lower case;
            - "tinystories": 32,000 pieces, with a fallback to bytes;
            - "smollm2": 49,152 pieces;
            - "hf:NAME" or "hf:./folder": whatever `transformers.AutoTokenizer` loads.
        root: the cache folder; None is `fetch.cache_dir()`.

    Raises:
        ConfigError: an unknown name.
        DataError: it cannot be had.
        MissingExtra: all but "characters" need the extra `text`.
    """
    if fault := check(name):
        raise ConfigError(f"`tokenizer` {fault}")
    if name == "characters":
        return Characters()
    try:
        import tokenizers
    except ImportError:
        raise MissingExtra(f"`tokenizer` ({name!r})", "text") from None
    if name == "minilm":
        return Fast(tokenizers.Tokenizer.from_file(str(fetch("minilm", root) / "tokenizer.json")), pad=0)
    if name == "tinystories":
        return _llama2c(fetch("tinystories", root) / "llama2.data")
    from transformers import AutoTokenizer

    options: dict[str, Any] = {}
    where = name[3:]
    if name == "smollm2":
        folder = fetch("smollm2", root)
        where, options = str(folder), {"gguf_file": next(folder.glob("*.gguf")).name}
    try:
        pretrained = AutoTokenizer.from_pretrained(where, **options)
        inner = pretrained.backend_tokenizer
    except Exception as error:  # each of the hub client's layers raises its own
        reason = str(error).splitlines()[0] if str(error) else ""
        raise DataError(
            f"`tokenizer` ({name!r}) cannot be loaded: {type(error).__name__}: {reason}; check the name and the "
            "network, or give a local folder as hf:./folder"
        ) from error
    pads = (pretrained.pad_token_id, pretrained.eos_token_id, pretrained.unk_token_id)
    return Fast(inner, pad=next((int(pad) for pad in pads if pad is not None), 0))


WEIGHTS_BYTES = 60_816_028
"""Of llama2.data: the weights come first, then the tokenizer."""


def _llama2c(path: Path) -> Tokenizer:
    """The tokenizer of llama2.c: byte-pair encoding whose merges are ordered by the score of what they make.

    Its file holds the length of the longest piece (int32) and for every piece its score (float32), its length (int32)
    and its bytes. The first three pieces are special, the next 256 stand for bytes.
    """
    from tokenizers import AddedToken, decoders, models, normalizers, processors
    from tokenizers import Tokenizer as Inner

    raw = path.read_bytes()[WEIGHTS_BYTES:]
    pieces: list[tuple[str, float]] = []
    at = 4
    try:
        while at < len(raw):
            score, size = struct.unpack_from("<fi", raw, at)
            pieces.append((raw[at + 8 : at + 8 + size].decode(), score))
            at += 8 + size
    except (struct.error, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: its tokenizer cannot be read ({error}); delete the folder and load it again"
        ) from None
    special = ["<unk>", "<s>", "</s>"]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    texts = special + bytes_ + [text.replace(" ", "▁") for text, _ in pieces[259:]]
    vocabulary = {text: place for place, text in enumerate(texts)}
    scores = {texts[place]: score for place, (_, score) in enumerate(pieces) if place >= 259}
    merges = []
    for text, score in scores.items():
        halves = [(text[:cut], text[cut:]) for cut in range(1, len(text))]
        merges += [(score, vocabulary[a], a, b) for a, b in halves if a in scores and b in scores]
    merges.sort(key=lambda merge: (-merge[0], merge[1]))
    inner = Inner(
        models.BPE(
            vocab=vocabulary, merges=[(a, b) for _, _, a, b in merges], unk_token="<unk>", fuse_unk=True,
            byte_fallback=True,
        )
    )  # fmt: skip
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    inner.add_special_tokens([AddedToken(token, special=True) for token in special])
    return Fast(inner, pad=2)


def rows(texts: Sequence[str], tokenizer: Tokenizer, length: int) -> Tensor:
    """The beginnings of texts as token ids, [n, length] int64; short ones are filled."""
    batch = torch.full((len(texts), length), tokenizer.pad, dtype=torch.int64)
    for row, text in zip(batch, texts, strict=True):
        ids = tokenizer.encode(text, length)
        row[: len(ids)] = torch.tensor(ids, dtype=torch.int64)
    return batch


def windows(text: str, tokenizer: Tokenizer, length: int) -> tuple[Tensor, Tensor]:
    """A text cut into windows: token ids [n, length] and, at each place, the next token [n, length] (−100: none).

    The windows follow each other without an overlap; every token but the first is the next of another once.
    """
    ids = tokenizer.encode(text)
    count = -(-(len(ids) - 1) // length)
    if count < 1:
        return torch.zeros(0, length, dtype=torch.int64), torch.zeros(0, length, dtype=torch.int64)
    inputs = torch.full((count * length,), tokenizer.pad, dtype=torch.int64)
    labels = torch.full((count * length,), -100, dtype=torch.int64)
    inputs[: len(ids) - 1] = torch.tensor(ids[:-1])
    labels[: len(ids) - 1] = torch.tensor(ids[1:])
    return inputs.view(count, length), labels.view(count, length)
