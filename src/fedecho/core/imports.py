"""A user's own object and its `module:name`: importing the one, naming the other."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

from .errors import ConfigError, Fault


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
        value: Any = importlib.import_module(module_name)
        for part in name.split("."):
            value = getattr(value, part)
    except Exception as fault:  # whatever the module itself raises
        why = f"{type(fault).__name__}: {fault}"
        text = f"{what} {path!r} cannot be imported ({why}); give an importable `module:name`"
        raise ConfigError(Fault(text, fault)) from fault
    finally:
        if added:
            sys.path.remove(here)
    return value


def object_name(thing: Any, what: str) -> str:
    """The `module:name` of a function or a class, by which `import_object` finds it again in another process.

    Args:
        thing: a function or a class at the top of a module.
        what: the setting that it is for, e.g. "data.dataset".

    Raises:
        ConfigError: it has no such name: a lambda, something defined in a function, or in a notebook.
    """
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if module == "__main__":
        module = _script_module()
    if not module or not name or "<" in name:
        where = getattr(thing, "__qualname__", None) or repr(thing)
        raise ConfigError(
            f"{what} is {where}, which cannot be imported by a name; define it at the top of a module (a file of its "
            "own, no notebook) and pass it from there, or give `module:name`"
        )
    return f"{module}:{name}"


def _script_module() -> str | None:
    """The name under which the script that runs can be imported; None in a notebook or an interactive session."""
    script = sys.modules["__main__"]
    if getattr(script, "__spec__", None) is not None:  # python -m package.module
        return str(script.__spec__.name)  # type: ignore[union-attr]
    file = getattr(script, "__file__", None)
    stem = Path(file).stem if file else ""
    return stem if stem.isidentifier() else None
