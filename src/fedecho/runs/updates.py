"""Updates of a live run as files."""

from __future__ import annotations

from ..core.errors import RecordError
from ..core.messages import TrainResult
from .files import save_tensors
from pathlib import Path
from safetensors import safe_open
from torch import Tensor
import json

def save_update(path: Path, update: TrainResult) -> None:
    """An update as a file: its tensors, and the rest in the header."""
    tensors = {"weights": update.weights, "buffers": update.buffers}
    if update.predictions is not None:
        tensors["predictions"] = update.predictions
    tensors |= {f"extra/{name}": value for name, value in update.extra.items() if isinstance(value, Tensor)}
    numbers = {name: value for name, value in update.extra.items() if not isinstance(value, Tensor)}
    told = {"task": update.task, "num_examples": update.num_examples, "metrics": dict(update.metrics), "extra": numbers}
    path.parent.mkdir(exist_ok=True)
    save_tensors(path, tensors, {"update": json.dumps(told)})


def load_update(path: Path) -> TrainResult:
    try:
        with safe_open(path, framework="pt") as file:
            told = json.loads(file.metadata()["update"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as fault:
        raise RecordError(f"{path} cannot be read ({fault}): what was heard since the checkpoint is needed") from None
    extra = {name.removeprefix("extra/"): value for name, value in tensors.items() if name.startswith("extra/")}
    return TrainResult(
        told["task"],
        tensors["weights"],
        tensors["buffers"],
        told["num_examples"],
        told["metrics"],
        tensors.get("predictions"),
        {**told["extra"], **extra},
    )
