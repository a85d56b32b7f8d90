"""Finding algorithms and stages: by name among those that ship, or anybody's by `module:Class`."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import sys
from functools import cache
from types import ModuleType
from typing import Any

from . import algorithms, refine
from .algorithms.base import Algorithm
from .errors import ConfigError
from .refine.base import Stage

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


def import_object(path: str, what: str) -> Any:
    """The object at `module:name`; the module is looked for in the current directory too.

    Raises:
        ConfigError: naming what is missing.
    """
    module_name, _, name = path.partition(":")
    here = os.getcwd()
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as fault:  # whatever the module itself raises
        why = f"{type(fault).__name__}: {fault}"
        raise ConfigError(f"{what} {path!r} cannot be imported ({why}); give an importable `module:name`") from fault
    finally:
        if added:
            sys.path.remove(here)
    return found


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
