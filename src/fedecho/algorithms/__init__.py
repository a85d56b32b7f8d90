"""Aggregation rules: one paper, one file.

Every class that ships here can be imported from this package by its name; a new one needs no entry in this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.plugins import exported_class as _exported_class
from ..core.plugins import shipped_classes as _shipped_classes
from .base import Algorithm as Algorithm
from .base import Buffer as Buffer
from .base import ClientRule as ClientRule
from .base import ClientUpdate as ClientUpdate
from .base import State as State
from .base import Step as Step

if TYPE_CHECKING:  # for editors and type checkers; at run time `__getattr__` finds the same classes, and newer ones
    from .ace import ACE as ACE
    from .ace import ACED as ACED
    from .async_sgd import AsyncSGD as AsyncSGD
    from .async_sgd import DelayAdaptiveASGD as DelayAdaptiveASGD
    from .asyncfeded import AsyncFedED as AsyncFedED
    from .ca2fl import CA2FL as CA2FL
    from .fadas import FADAS as FADAS
    from .fadas import DelayAdaptiveFADAS as DelayAdaptiveFADAS
    from .fedac import FedAC as FedAC
    from .fedasmu import FedASMU as FedASMU
    from .fedasync import FedAsync as FedAsync
    from .fedavg import FedAvg as FedAvg
    from .fedbuff import FedBuff as FedBuff
    from .fedfa import FedFa as FedFa
    from .port import Port as Port


def __getattr__(name: str) -> Any:
    if name == "__path__" or name.startswith("_"):
        raise AttributeError(name)
    return _exported_class(__name__, Algorithm, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *(cls.__name__ for cls in _shipped_classes(__name__, Algorithm).values())])
