"""Finding algorithms and stages: by name among those that ship, or anybody's by `module:Class`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from types import ModuleType
from typing import Any

from .. import algorithms
from .. import stages as refine
from ..algorithms.base import Algorithm
from ..core.errors import ConfigError
from ..core.imports import import_object
from ..stages.base import Stage

ALIASES = {
    "fedecho": "fedbuff+echo",
    "fedecho_balanced": "fedbuff+balanced_echo",
    "fedecho_calibrated": "fedbuff+calibrated_echo",
    "fedrevive": "async_sgd+fedrevive",
}
"""Names for a rule with a stage."""


def _leaves(package: ModuleType, base: type) -> dict[str, type]:
    found: dict[str, type] = {}
    for module_info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{module_info.name}")
        for _, cls in inspect.getmembers(module, inspect.isclass):
            if issubclass(cls, base) and cls.__module__ == module.__name__ and not inspect.isabstract(cls):
                found[cls.name] = cls  # type: ignore[attr-defined]
    return dict(sorted(found.items()))


@cache
def algorithm_classes() -> dict[str, type[Algorithm]]:
    """Every algorithm that ships, by name."""
    return _leaves(algorithms, Algorithm)


@cache
def stage_classes() -> dict[str, type[Stage]]:
    """Every refine stage that ships, by name."""
    return _leaves(refine, Stage)


def find_class(name: str, known: dict[str, Any], what: str) -> Any:
    """A class by its name in `known`, or by `module:Class`.

    Raises:
        ConfigError: listing what there is.
    """
    if ":" in name:
        return import_object(name, what)
    if name not in known:
        raise ConfigError(f"{what} {name!r} is unknown; there are {', '.join(known)}, or give `module:Class`")
    return known[name]
