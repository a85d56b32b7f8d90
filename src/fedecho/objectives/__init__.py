"""Objectives: what a model learns, and by which metrics it is judged.

One objective is one file in this package. `find` finds it by its name.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache

from ..core.errors import ConfigError
from .base import Metric, Objective
from .predictions import Predictions

__all__ = ["Metric", "Objective", "Predictions", "find", "shipped"]


@cache
def shipped() -> dict[str, type[Objective]]:
    """Every objective that ships, by name, in alphabetical order."""
    objectives: dict[str, type[Objective]] = {}
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        for _, cls in inspect.getmembers(module, inspect.isclass):
            if issubclass(cls, Objective) and cls.__module__ == module.__name__ and not inspect.isabstract(cls):
                objectives[cls.name] = cls
    return dict(sorted(objectives.items()))


def find(name: str) -> type[Objective]:
    """The objective with this name.

    Raises:
        ConfigError: listing the objectives that ship.
    """
    objectives = shipped()
    if name not in objectives:
        raise ConfigError(f"objective {name!r} is unknown; choose one of {', '.join(objectives)}")
    return objectives[name]
