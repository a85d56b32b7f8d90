"""The settings and environments of a group's runs: what differs, and what all have."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from ..studies.runs import Run
from .data import EVERYONE, Group

METHOD_TABLES = ("algorithm", "stages", "server", "client", "variants", "records", "executor")
"""Tables of a configuration in which the methods of a comparison may differ."""

ABSENT = "–"


def by_method(group: Group) -> dict[str, dict[str, str]]:
    """By setting and label, its value: "–" where a method has it not, several values joined by "/"."""
    flat = {method.label: [_flat(run_settings(run)) for run in method.runs] for method in group.methods}
    names = dict.fromkeys(name for each in flat.values() for one in each for name in one)
    return {
        name: {label: " / ".join(dict.fromkeys(one.get(name, ABSENT) for one in each)) for label, each in flat.items()}
        for name in names
    }


def differing(group: Group) -> dict[str, dict[str, str]]:
    """The settings in which the methods differ."""
    return {name: values for name, values in by_method(group).items() if len(set(values.values())) > 1}


def common(group: Group) -> dict[str, str]:
    """The settings that all methods have, with their value."""
    return {
        name: next(iter(values.values())) for name, values in by_method(group).items() if len(set(values.values())) == 1
    }


def run_settings(run: Run) -> dict[str, Any]:
    """A run's tables, without those that say nothing of a live federation."""
    tables: dict[str, Any] = copy.deepcopy(dict(run.tables))
    if run.live:
        experiment = tables.get("experiment", {})
        tables["experiment"] = {k: v for k, v in experiment.items() if k not in ("eval_every", "evaluate")}
        tables.pop("data", None)
        tables.get("executor", {}).pop("name", None)
        if everyone_works(run):
            tables["server"]["concurrency"] = "all that are there"
    return tables


def everyone_works(run: Run) -> bool:
    """Whether every idle client of a live run gets work."""
    concurrency = run.setting("server", "concurrency", 0)
    return isinstance(concurrency, int) and concurrency >= EVERYONE


def environment_of(run: Run) -> dict[str, str]:
    """What decides the bits of a run besides its settings; empty where it is not known."""
    try:
        environment = json.loads((run.path / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(environment, dict):
        return {}
    return {str(name): str(value) for name, value in environment.items()}


def environments(group: Group) -> dict[str, list[str]]:
    """By name, the different values that the runs had."""
    values: dict[str, list[str]] = {}
    for run in group.runs:
        for name, value in environment_of(run).items():
            if value not in values.setdefault(name, []):
                values[name].append(value)
    return values


def environment_differences(group: Group) -> list[str]:
    """Names of what differs although the settings do not ask for it.

    The memory format follows from the model, so that runs of different models may differ in it.
    """
    names = [name for name, values in environments(group).items() if len(values) > 1]
    if "memory_format" in names:
        by_model: dict[str, set[str]] = {}
        for run in group.runs:
            model = json.dumps(run_settings(run).get("model", {}), sort_keys=True, default=str)
            by_model.setdefault(model, set()).add(environment_of(run).get("memory_format", ""))
        if all(len(formats) == 1 for formats in by_model.values()):
            names.remove("memory_format")
    return names


def _flat(tables: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted names to values; a list of tables counts from its names; without seeds and other methods' variants."""
    settings: dict[str, str] = {}
    for name, value in tables.items():
        path = f"{prefix}{name}"
        if path in ("variants", "records", "experiment.seed"):
            continue
        if isinstance(value, Mapping):
            settings |= _flat(value, f"{path}.")
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            for item in value:
                settings |= _flat(item, f"{path}.{item.get('name', '?')}.")
        else:
            settings[path] = json.dumps(value) if isinstance(value, list | bool) else str(value)
    return settings
