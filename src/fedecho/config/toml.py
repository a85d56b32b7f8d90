"""Reading TOML files, choosing a method, applying overrides."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError
from .names import RENAMED, suggestion
from .parts import with_stages
from .registry import ALIASES, algorithm_classes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a file.

    Raises:
        ConfigError: when it cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as fault:
        raise ConfigError(f"{path} cannot be read ({fault.strerror}); give the path of a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise ConfigError(f"{path} is not TOML: {fault}") from None


def resolve(tables: Mapping[str, Any], method: str | None = None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The tables of one run: `overrides` of [variants] put in, `method` chosen, the others put on top.

    A method is an algorithm's name, `base+stage`, an alias ("fedecho" is fedbuff+echo), or a name in [variants]. A
    variant has `method` (by default its own name) and tables that are laid over the configuration's. The
    configuration's own [algorithm] and [stages] count only for the rule and stage they name: a step size tuned for one
    rule is never handed to another.
    """
    result: dict[str, Any] = delays_as_name({name: _copy(table) for name, table in tables.items()})
    faults: list[str] = []
    of_variants = [override for override in overrides if override.lstrip().startswith("variants.")]
    _override(result, of_variants, faults)
    if method is not None:
        if shapeless := faults + shape_faults(result):
            raise ConfigError(shapeless)
        result = _with_method(with_stages(result, faults), method)
    _override(result, [override for override in overrides if override not in of_variants], faults)
    if faults:
        raise ConfigError(faults)
    return result


def _with_method(tables: dict[str, Any], method: str) -> dict[str, Any]:
    """The tables with the rule and the stages of the method, and with its variant's tables on top."""
    variants = tables.get("variants", {})
    variant = dict(variants.get(method, {}))
    base = str(variant.pop("method", method))
    rule, *stages = ALIASES.get(base, base).split("+")
    if ":" not in rule and rule not in algorithm_classes():
        known = [*algorithm_classes(), *ALIASES, *variants]
        raise ConfigError(
            f"method {method!r} is unknown{suggestion(rule, known)}; there are {', '.join(known)}, and base+stage"
        )
    own = tables.get("algorithm", {})
    tables["algorithm"] = {**(own if own.get("name", "fedbuff") == rule else {}), "name": rule}
    given = tables.get("stages", [])
    by_name = {table.get("name"): table for table in ([given] if isinstance(given, Mapping) else given)}
    tables["stages"] = [{**by_name.get(stage, {}), "name": stage} for stage in stages]
    for name, table in delays_as_name(variant).items():
        if name == "stages" and isinstance(table, Mapping):
            if len(stages) != 1:
                raise ConfigError(f"[variants.{method}.stages] needs a method with one stage, got {base!r}")
            tables["stages"] = [{**tables["stages"][0], **table}]
        elif isinstance(table, Mapping):
            tables[name] = _merge(tables.get(name, {}), table)
        else:
            raise ConfigError(f"variants.{method}.{name} is {table!r}; a variant holds `method` and tables")
    return tables


def _override(tables: dict[str, Any], overrides: Sequence[str], faults: list[str]) -> None:
    """Put each `table.key=value` into the tables, and what is wrong with it into the faults."""
    for override in overrides:
        key, equals, text = override.partition("=")
        path = key.strip().split(".")
        if path == ["algorithm", "name"]:
            before = tables.get("algorithm", {}).get("name", "fedbuff")
            if _rule_of(before) != _rule_of(value_of(text.strip())):
                tables["algorithm"] = {}  # another rule does not inherit this one's settings
        if not equals or len(path) < 2:
            faults.append(f"--set {override!r} is not `table.key=value`, for example client.lr=0.05")
            continue
        value = value_of(text.strip())
        if path == ["population", "from"]:
            path, value = ["population", "name"], f"run:{value if isinstance(value, str) else text.strip()}"
        _put(tables, path, value, override, faults)


def _rule_of(method: Any) -> str:
    """The rule of a method: "fedbuff" of "fedecho"."""
    return ALIASES.get(str(method), str(method)).split("+")[0]


def delays_as_name(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The tables with `from = "DIR"` in [population] as the name that it stands for, unless there is another."""
    population = tables.get("population")
    if isinstance(population, Mapping) and isinstance(population.get("from"), str):
        name = f"run:{population['from']}"
        if population.get("name", name) == name:
            others = {key: value for key, value in population.items() if key != "from"}
            return {**tables, "population": {**others, "name": name}}
    return dict(tables)


def is_table(name: str, table: Any) -> bool:
    if name == "stages" and isinstance(table, list):
        return all(isinstance(stage, Mapping) for stage in table)
    if name == "variants" and isinstance(table, Mapping):
        return all(isinstance(variant, Mapping) for variant in table.values())
    return isinstance(table, Mapping)


def shape_faults(tables: Mapping[str, Any]) -> list[str]:
    """What is no table at the top of a file, where only tables can be."""
    wanted = {"stages": "a table, or a list of tables", "variants": "a table of tables"}
    return [
        f"{name} is {table!r}; it must be {wanted.get(name, 'a table')}"
        for name, table in tables.items()
        if not is_table(name, table) and name not in RENAMED
    ]


def _put(tables: dict[str, Any], path: list[str], value: Any, override: str, faults: list[str]) -> None:
    node: Any = tables
    for name in path[:-1]:
        node = node.setdefault(name, {})
        if isinstance(node, list) and len(node) == 1:  # [[stages]] with one stage reads like [stages]
            node = node[0]
        if not isinstance(node, dict):
            faults.append(f"--set {override!r}: {name} is not one table")
            return
    node[path[-1]] = value


def value_of(text: str) -> Any:
    """A TOML value, or the text itself where it is none (so that strings need no quotes)."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if nested else value
    return merged
