"""fedecho: asynchronous federated learning that learns from its stragglers.

Names are imported when they are first used, so that `import fedecho` is fast: PyTorch alone takes seconds.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .algorithms.base import Algorithm, ClientUpdate
    from .config.config import Config
    from .core.errors import (
        ConfigError,
        DataError,
        Diverged,
        FedechoError,
        Interrupted,
        MissingExtra,
        RecordError,
        Stalled,
        WorkerLost,
    )
    from .core.keys import Key
    from .core.messages import Model, View
    from .experiment.replay import Replayed, replay
    from .experiment.result import Result
    from .experiment.run import resume, run
    from .stages.base import Stage

__version__ = "0.1.0"

__all__ = [
    "Algorithm",
    "ClientUpdate",
    "Config",
    "ConfigError",
    "DataError",
    "Diverged",
    "FedechoError",
    "Interrupted",
    "Key",
    "MissingExtra",
    "Model",
    "RecordError",
    "Replayed",
    "Result",
    "Stage",
    "Stalled",
    "View",
    "WorkerLost",
    "replay",
    "resume",
    "run",
]

_HOMES = {
    "algorithms.base": ("Algorithm", "ClientUpdate"),
    "config.config": ("Config",),
    "core.errors": (
        "ConfigError",
        "DataError",
        "Diverged",
        "FedechoError",
        "Interrupted",
        "MissingExtra",
        "RecordError",
        "Stalled",
        "WorkerLost",
    ),
    "core.keys": ("Key",),
    "core.messages": ("Model", "View"),
    "experiment.replay": ("Replayed", "replay"),
    "experiment.result": ("Result",),
    "experiment.run": ("resume", "run"),
    "stages.base": ("Stage",),
}
"""The module of every public name; the same as the imports above, which only type checkers read."""


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            value = getattr(importlib.import_module(f".{module}", __name__), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
