"""fedecho: asynchronous federated learning that learns from its stragglers."""

from .algorithms.base import Algorithm, Change
from .config.config import Config
from .core.errors import ConfigError, DataError, FedechoError, MissingExtra, RecordError, Stalled
from .core.keys import Key
from .core.messages import Model, View
from .experiment.replay import Replayed, replay
from .experiment.result import Result
from .experiment.run import resume, run
from .stages.base import Stage

__version__ = "0.1.0"


__all__ = [
    "Algorithm",
    "Change",
    "Config",
    "ConfigError",
    "DataError",
    "FedechoError",
    "Key",
    "MissingExtra",
    "Model",
    "RecordError",
    "Replayed",
    "Result",
    "Stage",
    "Stalled",
    "View",
    "replay",
    "resume",
    "run",
]
