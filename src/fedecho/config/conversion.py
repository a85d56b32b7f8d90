"""Tables to dataclasses and back."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ..algorithms.base import Algorithm
from ..core.errors import ConfigError
from ..learning.models import MODELS
from ..objectives import shipped as shipped_objectives
from ..objectives.base import Objective
from ..server.settings import ServerConfig
from ..simulation.settings import PopulationConfig
from ..stages.base import Stage
from ..stages.central_dp import CentralDP
from .checks import table_faults
from .registry import algorithm_classes, find_class, stage_classes
from .tables import ModelConfig

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
            faults.append(f"{path}.{key} is not a setting{suggestion(key, fields)}; there are {', '.join(fields)}")
            continue
        ok, read = _read(hints[key], value, f"{path}.{key}", faults)
        if ok:
            values[key] = read
    if cls is not PopulationConfig:  # which knows its ranges itself
        faults += table_faults(path, {name: values.get(name, f.default) for name, f in fields.items()})
    if len(faults) > before:
        return None
    try:
        return cls(**values)
    except ConfigError as fault:  # settings that do not go together
        faults += fault.faults
        return None


def _read(hint: Any, value: Any, path: str, faults: list[str]) -> tuple[bool, Any]:
    """`value` as the type `hint`, if it can be."""
    before = len(faults)
    if dataclasses.is_dataclass(hint):
        return True, build(hint, value, path, faults)  # type: ignore[arg-type]
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
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
    if get_origin(hint) in (Union, types.UnionType):
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


def suggestion(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def read_model(table: Any, faults: list[str]) -> ModelConfig | None:
    if not isinstance(table, Mapping):
        faults.append(f"model is {table!r}; it must be a table")
        return None
    own = {key: value for key, value in table.items() if key in ("name", "memory_format")}
    options = {key: value for key, value in table.items() if key not in own}
    config = build(ModelConfig, own, "model", faults)
    if config is not None and ":" not in config.name and config.name not in MODELS:
        faults.append(
            f"model.name is {config.name!r}; there are {', '.join(MODELS)}, or give `module:Class` or `hf:NAME`"
        )
    return dataclasses.replace(config, options=options) if config is not None else None


def read_objective(table: Any, faults: list[str]) -> Any:
    """The objective that a table names; None for "auto", the one that fits the data's targets."""
    if isinstance(table, Mapping) and table.get("name", "auto") == "auto" and set(table) <= {"name"}:
        return None
    return _named(table, "objective", None, shipped_objectives(), Objective, faults, None)


def read_algorithm(table: Any, server: ServerConfig, faults: list[str]) -> Any:
    made = _named(table, "algorithm", "fedbuff", algorithm_classes(), Algorithm, faults, server)
    return made


def read_stage(table: Any, algorithm: Any, faults: list[str]) -> Any:
    if isinstance(table, Mapping) and table.get("name") == CentralDP.name:
        table = {"buffer_size": getattr(algorithm, "buffer_size", 1), **table}
    return _named(table, "stages", None, stage_classes(), Stage, faults, None)


def _named(
    table: Any,
    path: str,
    default: str | None,
    known: Mapping[str, Any],
    base: type,
    faults: list[str],
    server: ServerConfig | None,
) -> Any:
    if not isinstance(table, Mapping) or not isinstance(table.get("name", default), str):
        faults.append(f"{path}.name is missing or not a string; there are {', '.join(known)}")
        return None
    settings = dict(table)
    try:
        cls = find_class(settings.pop("name", default), dict(known), path)
    except ConfigError as fault:
        faults.extend(fault.faults)
        return None
    if not (isinstance(cls, type) and issubclass(cls, base) and dataclasses.is_dataclass(cls)):
        faults.append(f"{path}.name {table['name']!r} is not a dataclass derived from {base.__name__}")
        return None
    if server is not None:
        given = {"buffer_size": server.buffer_size, "cohort": server.concurrency, "concurrency": server.concurrency}
        own = {f.name for f in dataclasses.fields(cls)}
        settings = {name: value for name, value in given.items() if name in own} | settings
    return build(cls, settings, path, faults)


def plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value) if f.init)
        return {name: plain(item) for name, item in pairs if item is not None}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items() if item is not None}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def registered_name(thing: Algorithm | Stage | Objective) -> str:
    """The name by which a rule, stage or objective is found again."""
    known: dict[str, Any] = {**algorithm_classes(), **stage_classes(), **shipped_objectives()}
    cls = type(thing)
    return thing.name if known.get(thing.name) is cls else f"{cls.__module__}:{cls.__qualname__}"
