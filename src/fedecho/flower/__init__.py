"""fedecho on a live Flower federation: strategies for a ServerApp, and a mod for its ClientApps.

from fedecho.flower import FedEcho

strategy = FedEcho(model=Net, unlabeled=public_images, buffer_size=4, run_dir="state")
result = strategy.start(grid=grid, initial_arrays=ArrayRecord(Net().state_dict()), num_rounds=100)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.errors import MissingExtra

try:
    import flwr.serverapp.strategy  # noqa: F401
except ImportError as fault:  # too old a Flower has no such module, too old a Python no such Flower
    raise MissingExtra("fedecho.flower (Flower 1.41 or later, Python 3.11 or later)", "flower") from fault

from .mod import client_mod
from .strategies import STRATEGIES
from .strategy import Asynchronous

if TYPE_CHECKING:  # for editors and type checkers; at run time `__getattr__` finds the same classes, and newer ones
    ACE = Asynchronous
    ACED = Asynchronous
    CA2FL = Asynchronous
    FADAS = Asynchronous
    AsyncFedED = Asynchronous
    AsyncSGD = Asynchronous
    DelayAdaptiveASGD = Asynchronous
    DelayAdaptiveFADAS = Asynchronous
    FedAC = Asynchronous
    FedASMU = Asynchronous
    FedAsync = Asynchronous
    FedAvg = Asynchronous
    FedBuff = Asynchronous
    FedEcho = Asynchronous
    FedEchoBalanced = Asynchronous
    FedEchoCalibrated = Asynchronous
    FedFa = Asynchronous
    FedRevive = Asynchronous
    Port = Asynchronous

__all__ = ["Asynchronous", "client_mod", *STRATEGIES]


def __getattr__(name: str) -> Any:
    if name in STRATEGIES:
        return STRATEGIES[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *STRATEGIES])
