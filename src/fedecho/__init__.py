"""fedecho: asynchronous federated learning that learns from its stragglers."""

__version__ = "0.1.0"

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
