"""Configurations: the tables of an experiment as frozen dataclasses, to and from TOML."""

from ..data.federation import DataConfig
from ..learning.settings import ClientConfig
from ..server.settings import ServerConfig, Stop
from ..simulation.settings import PopulationConfig
from .config import Config
from .tables import ExecutorConfig, ExperimentConfig, ModelConfig, RecordsConfig, TransportConfig
from .toml import read_toml, resolve

__all__ = [
    "ClientConfig",
    "Config",
    "DataConfig",
    "ExecutorConfig",
    "ExperimentConfig",
    "ModelConfig",
    "PopulationConfig",
    "RecordsConfig",
    "ServerConfig",
    "Stop",
    "TransportConfig",
    "read_toml",
    "resolve",
]
