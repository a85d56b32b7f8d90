"""What decides the bits of a run, and its wall clock."""

from __future__ import annotations

import platform
import time
from importlib.metadata import version
from typing import Any

import numpy as np
import torch


class Clock:
    """Wall seconds over all sittings of a run."""

    def __init__(self, before_s: float = 0.0) -> None:
        self._before_s, self._began = before_s, time.perf_counter()

    @property
    def seconds(self) -> float:
        return self._before_s + time.perf_counter() - self._began


def environment(device: str, threads: int, memory_format: str) -> dict[str, Any]:
    """What decides the bits of a run."""
    return {
        "fedecho": version("fedecho"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": device,
        "threads": threads,
        "memory_format": memory_format,
    }
