"""Finding the classes that a package ships: one file each, found by scanning, so that a new one needs no list."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from typing import Any


@cache
def shipped_classes(package: str, base: type) -> dict[str, type]:
    """Every concrete class derived from `base` that is defined in a module of `package`, by its `name`, sorted.

    Args:
        package: dotted name of a package, e.g. "fedecho.algorithms".
        base: the interface; each leaf has a class attribute `name`.
    """
    classes: dict[str, type] = {}
    for module_info in pkgutil.iter_modules(importlib.import_module(package).__path__):
        module = importlib.import_module(f"{package}.{module_info.name}")
        for _, cls in inspect.getmembers(module, inspect.isclass):
            if issubclass(cls, base) and cls.__module__ == module.__name__ and not inspect.isabstract(cls):
                classes[cls.name] = cls  # type: ignore[attr-defined]
    return dict(sorted(classes.items()))


def exported_class(package: str, base: type, name: str) -> type:
    """The shipped class whose Python name is `name`: what a package's `__getattr__` answers.

    Raises:
        AttributeError: when the package ships no such class.
    """
    for cls in shipped_classes(package, base).values():
        if cls.__name__ == name:
            return cls
    raise AttributeError(f"module {package!r} has no attribute {name!r}")


@cache
def shipped_instances(package: str, base: type) -> dict[str, Any]:
    """Every object of class `base` that a module of `package` declares as a global variable, by its `name`, sorted.

    Args:
        package: dotted name of a package, e.g. "fedecho.learning.models".
        base: the class of the objects; each has an attribute `name`.
    """
    instances: dict[str, Any] = {}
    for module_info in pkgutil.iter_modules(importlib.import_module(package).__path__):
        module = importlib.import_module(f"{package}.{module_info.name}")
        for value in vars(module).values():
            if isinstance(value, base):
                instances[value.name] = value  # type: ignore[attr-defined]
    return dict(sorted(instances.items()))
