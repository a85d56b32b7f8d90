"""Updates of a live run as files."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from ..core.errors import RecordError
from ..core.messages import TrainResult
from .files import save_tensors


def save_update(path: Path, update: TrainResult) -> None:
    """An update as a file: its tensors, and the rest in the header."""
    tensors = {"weights": update.weights, "buffers": update.buffers}
    if update.predictions is not None:
        tensors["predictions"] = update.predictions
    tensors |= {f"extra/{name}": value for name, value in update.extra.items() if isinstance(value, Tensor)}
    numbers = {name: value for name, value in update.extra.items() if not isinstance(value, Tensor)}
    fields = {
        "task": update.task,
        "num_examples": update.num_examples,
        "metrics": dict(update.metrics),
        "extra": numbers,
    }
    if not path.parent.is_dir():  # what clients send tells things about their data: nobody else may read it
        path.parent.mkdir(mode=0o700)
    save_tensors(path, tensors, {"update": json.dumps(fields)}, private=True)


def load_update(path: Path) -> TrainResult:
    """The update that `save_update` wrote.

    Raises:
        RecordError: when it cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            fields = json.loads(file.metadata()["update"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as fault:
        raise RecordError(f"{path} cannot be read ({fault}): what was heard since the checkpoint is needed") from fault
    extra = {name.removeprefix("extra/"): value for name, value in tensors.items() if name.startswith("extra/")}
    return TrainResult(
        fields["task"],
        tensors["weights"],
        tensors["buffers"],
        fields["num_examples"],
        fields["metrics"],
        tensors.get("predictions"),
        {**fields["extra"], **extra},
    )
