"""The cache of tensors that are slow to derive from data: tokens and features."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from .fetch import cache_dir

FORMAT = 1
"""Raise it when what is cached is made in another way."""


class DerivedCache:
    """Tensors in the cache, each addressed by what it was made of."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root

    def _path(self, about: str, of: Tensor | str) -> Path:
        made_of = of.encode() if isinstance(of, str) else of.contiguous().numpy().tobytes()
        digest = hashlib.sha256(f"{FORMAT} {about} ".encode() + made_of).hexdigest()
        return (cache_dir() if self.root is None else Path(self.root)) / "made" / f"{digest[:32]}.safetensors"

    def read(self, about: str, of: Tensor | str) -> dict[str, Tensor] | None:
        """The tensors cached under `about`, made of `of`; None if there are none, or their file is damaged."""
        try:
            return load_file(self._path(about, of))
        except Exception:  # whatever is wrong with the file, it can be made again
            return None

    def write(self, about: str, of: Tensor | str, tensors: Mapping[str, Tensor]) -> None:
        """Cache the tensors, if the cache can be written; else they are made again the next time."""
        path = self._path(about, of)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
                part = Path(file.name)
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part)
            os.replace(part, path)
        except OSError:
            return
