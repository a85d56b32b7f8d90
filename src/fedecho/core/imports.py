"""Importing a user's own object by `module:name`."""

from __future__ import annotations

import importlib
import os
import sys
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
