"""Stages: steps of the server beside the aggregation rule, one file each.

Every class that ships here can be imported from this package by its name; a new one needs no entry in this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.plugins import exported_class as _exported_class
from ..core.plugins import shipped_classes as _shipped_classes
from .base import Stage as Stage
from .compute import Compute as Compute
from .compute import Distillation as Distillation
from .compute import PredictionFormat as PredictionFormat

if TYPE_CHECKING:  # for editors and type checkers; at run time `__getattr__` finds the same classes, and newer ones
    from .balanced_echo import BalancedEcho as BalancedEcho
    from .calibrated_echo import CalibratedEcho as CalibratedEcho
    from .central_dp import CentralDP as CentralDP
    from .certainty import CertaintyWeighted as CertaintyWeighted
    from .dsfl import DSFL as DSFL
    from .echo import Echo as Echo
    from .feddf import FedDF as FedDF
    from .fedrevive import FedRevive as FedRevive


def __getattr__(name: str) -> Any:
    if name == "__path__" or name.startswith("_"):
        raise AttributeError(name)
    return _exported_class(__name__, Stage, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *(cls.__name__ for cls in _shipped_classes(__name__, Stage).values())])
