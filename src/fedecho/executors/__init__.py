"""Executors compute clients' jobs for the transports that simulate clients. One executor is one file in this package.

A job's inputs are fixed when it is submitted, so the executor chooses when it is computed, and in which process.
Anybody's own is a class derived from `Executor`, named by `module:Class`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.errors import ConfigError
from ..core.imports import import_object
from ..core.plugins import exported_class as _exported_class
from ..core.plugins import shipped_classes as _shipped_classes
from .base import Executor as Executor
from .base import ExecutorContext as ExecutorContext
from .base import Resources as Resources

if TYPE_CHECKING:  # for editors and type checkers; at run time `__getattr__` finds the same classes, and newer ones
    from .auto import Auto as Auto
    from .inline import Inline as Inline
    from .processes import Processes as Processes
    from .ray import Ray as Ray
    from .vectorized import Vectorized as Vectorized

    EXECUTORS: dict[str, type[Executor]]
    """Every executor that ships, by name."""


def executor_class(name: str) -> type[Executor]:
    """The executor of this name: one that ships, or a user's own `module:Class`.

    Raises:
        ConfigError: an unknown name, or a class that is no executor.
    """
    shipped = _shipped_classes(__name__, Executor)
    if ":" in name:
        cls = import_object(name, "executor.name")
        if not (isinstance(cls, type) and issubclass(cls, Executor)):
            raise ConfigError(
                f"executor.name {name!r} is not a class derived from fedecho.executors.Executor: derive it"
            )
        return cls
    if name not in shipped:
        raise ConfigError(f"executor.name is {name!r}; there are {', '.join(shipped)}, or give `module:Class`")
    return shipped[name]


def __getattr__(name: str) -> Any:
    if name == "EXECUTORS":
        return _shipped_classes(__name__, Executor)
    if name == "__path__" or name.startswith("_"):
        raise AttributeError(name)
    return _exported_class(__name__, Executor, name)
