"""Tables to dataclasses and back, by the types of their fields."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from ..core.bounds import UNIONS
from ..core.errors import ConfigError
from .checks import table_faults
from .names import suggestion
from .unused import is_default, unused_settings

T = TypeVar("T")


def build(cls: type[T], table: Any, path: str, faults: list[str]) -> T | None:
    """An instance of the dataclass from a table; what is wrong is added to `faults`, and then the answer is None."""
    if not isinstance(table, Mapping):
        faults.append(f"{path} is {table!r}; it must be a table")
        return None
    hints = get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    before = len(faults)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in fields:
            faults.append(
                f"{path}.{key} is not a setting{suggestion(key, fields, path)}; there are {', '.join(fields)}"
            )
            continue
        ok, read = _read(hints[key], value, f"{path}.{key}", faults)
        if ok:
            values[key] = read
    try:
        instance = cls(**values)
        faults += table_faults(path, instance)
    except ConfigError as fault:  # of a class that checks itself when it is made
        faults += fault.faults
    return instance if len(faults) == before else None


def _read(hint: Any, value: Any, path: str, faults: list[str]) -> tuple[bool, Any]:
    """`value` as the type `hint`, if it can be."""
    before = len(faults)
    if dataclasses.is_dataclass(hint):
        return True, build(hint, value, path, faults)  # type: ignore[arg-type]
    options = get_args(hint) if get_origin(hint) in UNIONS else (hint,)
    for option in options:
        if option is type(None):
            continue
        if get_origin(option) is Literal:
            if value in get_args(option) and isinstance(value, str):
                return True, value
        elif get_origin(option) is tuple and isinstance(value, list | tuple):
            inner, *rest = get_args(option)
            if rest == [Ellipsis]:
                read = [_read(inner, item, f"{path}[{i}]", faults) for i, item in enumerate(value)]
                return len(faults) == before, tuple(item for _, item in read)
            if len(value) == 1 + len(rest):
                pairs = zip(get_args(option), value, strict=True)
                read = [_read(kind, item, f"{path}[{i}]", faults) for i, (kind, item) in enumerate(pairs)]
                return len(faults) == before, tuple(item for _, item in read)
        elif option is float and isinstance(value, int | float) and not isinstance(value, bool):
            if math.isnan(value):
                break
            return True, float(value)
        elif isinstance(option, type) and type(value) is option:
            return True, value
    faults.append(f"{path} is {value!r}; it must be {_wanted(hint)}")
    return False, None


def _wanted(hint: Any) -> str:
    if get_origin(hint) in UNIONS:
        return " or ".join(_wanted(option) for option in get_args(hint) if option is not type(None))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(option) for option in get_args(hint))
    if get_origin(hint) is tuple:
        inner = [option for option in get_args(hint) if option is not Ellipsis]
        return (
            f"a list of {_wanted(inner[0])}" if len(inner) != len(get_args(hint)) else f"a list of {len(inner)} numbers"
        )
    names = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def plain(value: Any) -> Any:
    """A dataclass as a table that `build` reads back to an equal one.

    Left out are None, and settings without effect at their default, so that reading it again does not tell of them.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        unused = unused_settings(value)
        return {
            field.name: plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.init
            and getattr(value, field.name) is not None
            and not (field.name in unused and is_default(value, field))
        }
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items() if item is not None}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
