"""Reading the tables whose class is found by a name: the model, the rule and the stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..algorithms.base import Algorithm
from ..core.errors import ConfigError
from ..learning.models import MODELS
from ..objectives import shipped as shipped_objectives
from ..objectives.base import Objective
from ..stages.base import Stage
from .conversion import build
from .names import suggestion
from .registry import ALIASES, algorithm_classes, find_class, stage_classes
from .tables import ModelConfig


def with_stages(tables: Mapping[str, Any], faults: list[str]) -> dict[str, Any]:
    """The tables with a method in `algorithm.name`, such as "fedecho" or "fadas+echo", as its rule and its stages.

    What [[stages]] says of these stages is kept; other stages beside them are a fault.
    """
    algorithm = tables.get("algorithm", {})
    name = algorithm.get("name") if isinstance(algorithm, Mapping) else None
    if not isinstance(name, str) or "+" not in ALIASES.get(name, name):
        return dict(tables)
    rule, *stages = ALIASES.get(name, name).split("+")
    written = tables.get("stages", [])
    written = [written] if isinstance(written, Mapping) else written
    by_name = {table.get("name", stages[0] if len(stages) == 1 else None): table for table in written}
    if others := [str(stage) for stage in by_name if stage not in stages]:
        faults.append(
            f"algorithm.name {name!r} is {rule} with {', '.join(stages)}, and [[stages]] names {', '.join(others)}; "
            f"take algorithm.name {rule!r} with stages of your own, or leave these out"
        )
    return {
        **tables,
        "algorithm": {**algorithm, "name": rule},
        "stages": [{**by_name.get(stage, {}), "name": stage} for stage in stages],
    }


def read_model(table: Any, faults: list[str]) -> ModelConfig | None:
    """The [model] table; what is wrong is added to `faults`, and then the answer is None."""
    if not isinstance(table, Mapping):
        faults.append(f"model is {table!r}; it must be a table")
        return None
    own = {key: value for key, value in table.items() if key in ("name", "memory_format")}
    options = {key: value for key, value in table.items() if key not in own}
    config = build(ModelConfig, own, "model", faults)
    if config is not None and ":" not in config.name and config.name not in MODELS:
        faults.append(
            f"model.name is {config.name!r}{suggestion(config.name, MODELS)}; there are {', '.join(MODELS)}, or give "
            "`module:Class` or `hf:NAME`"
        )
    return dataclasses.replace(config, options=options) if config is not None else None


def read_objective(table: Any, faults: list[str]) -> Any:
    """The objective of an [objective] table; None for "auto", the one that fits the data's targets."""
    if isinstance(table, Mapping) and table.get("name", "auto") == "auto" and set(table) <= {"name"}:
        return None
    return _named(table, "objective", None, shipped_objectives(), Objective, faults)


def read_algorithm(table: Any, faults: list[str]) -> Any:
    """The rule of an [algorithm] table, or None with what is wrong in `faults`."""
    return _named(table, "algorithm", "fedbuff", algorithm_classes(), Algorithm, faults)


def read_stage(table: Any, faults: list[str]) -> Any:
    """The stage of one [[stages]] table, or None with what is wrong in `faults`."""
    return _named(table, "stages", None, stage_classes(), Stage, faults)


def _named(table: Any, path: str, default: str | None, known: Mapping[str, Any], base: type, faults: list[str]) -> Any:
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
    return build(cls, settings, path, faults)


def registered_name(thing: Algorithm | Stage | Objective) -> str:
    """The name by which a rule, stage or objective is found again."""
    known: dict[str, Any] = {**algorithm_classes(), **stage_classes(), **shipped_objectives()}
    cls = type(thing)
    return thing.name if known.get(thing.name) is cls else f"{cls.__module__}:{cls.__qualname__}"
