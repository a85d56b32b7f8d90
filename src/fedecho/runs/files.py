"""Files that are written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from safetensors.torch import save_file
from torch import Tensor
import os

def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    _settle(part, path)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: dict[str, str]) -> None:
    part = path.with_name(path.name + ".part")
    save_file({name: _own(tensor) for name, tensor in tensors.items()}, part, header)
    part.chmod(0o644)  # safetensors makes it private
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
