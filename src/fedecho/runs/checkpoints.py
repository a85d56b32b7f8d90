"""Checkpoints as files: `checkpoint-NNNNNNNNN.safetensors`, by the number of the event after which each was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from ..core import trees
from .files import save_tensors
from .schema import SCHEMA_VERSION


def save_checkpoint(folder: Path, seq: int, state: Any) -> None:
    """Write `state` (a tree) as the checkpoint after event `seq`; only the one before it is kept besides."""
    skeleton, tensors = trees.flatten(state)
    header = {"state": json.dumps(skeleton), "schema_version": str(SCHEMA_VERSION)}
    save_tensors(folder / f"checkpoint-{seq:09d}.safetensors", tensors, header)
    for old in checkpoint_files(folder)[:-2]:
        old.unlink()


def checkpoint_files(folder: Path) -> list[Path]:
    """Checkpoint files, oldest first."""
    return sorted(folder.glob("checkpoint-*.safetensors"))


def load_checkpoint(folder: Path, device: str = "cpu") -> tuple[int, Any] | None:
    """The newest checkpoint that can be read, as (seq, state) with its tensors on `device`, or None."""
    for path in reversed(checkpoint_files(folder)):
        try:
            with safe_open(path, framework="pt", device=device) as file:
                header = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except Exception:  # a torn file: the one before it is whole
            continue
        return int(path.stem.split("-")[1]), trees.unflatten(json.loads(header["state"]), tensors)
    return None


def drop_checkpoints(folder: Path) -> None:
    """Remove them all, and what is left of one whose writing was cut short."""
    for path in folder.glob("checkpoint-*"):
        path.unlink()
