"""Files that are written whole or not at all, and TOML that is read without a class."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from ..core.errors import RecordError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_tables(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        RecordError: when it cannot be read.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise RecordError(f"{path} cannot be read ({fault}); leave this run out") from fault


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    _settle(part, path)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: dict[str, str], private: bool = False) -> None:
    """Write a safetensors file whole or not at all: with mode 0600 where it is private, else as the umask says."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    part.touch(0o600 if private else 0o666)
    mode = part.stat().st_mode & 0o777
    save_file({name: _own(tensor) for name, tensor in tensors.items()}, part, header)
    part.chmod(mode)  # safetensors sets one of its own
    _settle(part, path)


def _settle(part: Path, path: Path) -> None:
    """Give a written file its name, so that a power cut leaves the old one or the new one, whole."""
    _sync(part)
    os.replace(part, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _own(tensor: Tensor) -> Tensor:
    """The tensor in memory of its own, as the file format asks."""
    tensor = tensor.detach().to("cpu").contiguous()
    return tensor.clone() if tensor.untyped_storage().nbytes() != tensor.numel() * tensor.element_size() else tensor
