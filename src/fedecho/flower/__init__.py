"""fedecho on a live Flower federation: strategies for a ServerApp, and a mod for its ClientApps.

from fedecho.flower import FedEcho

strategy = FedEcho(model=Net, unlabeled=public_images, buffer_size=4, run_dir="state")
result = strategy.start(grid=grid, initial_arrays=ArrayRecord(Net().state_dict()), num_rounds=100)
"""

from ..core.errors import MissingExtra

try:
    import flwr.serverapp.strategy  # noqa: F401
except ImportError as fault:  # too old a Flower has no such module, too old a Python no such Flower
    raise MissingExtra("fedecho.flower (Flower 1.41 or later, Python 3.11 or later)", "flower") from fault

from .mod import client_mod
from .strategies import (
    ACE,
    ACED,
    CA2FL,
    FADAS,
    AsyncFedED,
    AsyncSGD,
    DelayAdaptiveASGD,
    DelayAdaptiveFADAS,
    FedAC,
    FedASMU,
    FedAsync,
    FedAvg,
    FedBuff,
    FedEcho,
    FedEchoBalanced,
    FedEchoCalibrated,
    FedFa,
    FedRevive,
    Port,
)
from .strategy import Asynchronous

__all__ = [
    "ACE",
    "ACED",
    "CA2FL",
    "FADAS",
    "AsyncFedED",
    "AsyncSGD",
    "Asynchronous",
    "DelayAdaptiveASGD",
    "DelayAdaptiveFADAS",
    "FedAC",
    "FedASMU",
    "FedAsync",
    "FedAvg",
    "FedBuff",
    "FedEcho",
    "FedEchoBalanced",
    "FedEchoCalibrated",
    "FedFa",
    "FedRevive",
    "Port",
    "client_mod",
]
