"""What is slow to make of data is made once and kept in the cache."""

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
"""Changes when what is kept is made in another way."""


class DerivedCache:
    """Tensors in the cache, each found by what it was made of."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root

    def _path(self, about: str, of: Tensor | str) -> Path:
        made_of = of.encode() if isinstance(of, str) else of.contiguous().numpy().tobytes()
        digest = hashlib.sha256(f"{FORMAT} {about} ".encode() + made_of).hexdigest()
        return (cache_dir() if self.root is None else Path(self.root)) / "made" / f"{digest[:32]}.safetensors"

    def read(self, about: str, of: Tensor | str) -> dict[str, Tensor] | None:
        """What was kept under these words, made of that; None if it is not there or damaged."""
        try:
            return load_file(self._path(about, of))
        except Exception:  # whatever is wrong with the file, it can be made again
            return None

    def write(self, about: str, of: Tensor | str, tensors: Mapping[str, Tensor]) -> None:
        """Keep it, if the cache can be written: whoever cannot keep it makes it again."""
        path = self._path(about, of)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
                part = Path(file.name)
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part)
            os.replace(part, path)
        except OSError:
            return
