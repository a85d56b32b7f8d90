"""fedecho: asynchronous federated learning that learns from its stragglers."""

__version__ = "0.1.0"

from .algorithms.base import Algorithm, Change
from .config import Config
from .errors import ConfigError, DataError, FedechoError, MissingExtra, RecordError, Stalled
from .experiment import Replayed, replay, resume, run
from .messages import Model, View
from .recorder import Result
from .refine.base import Stage
from .rng import Key

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
