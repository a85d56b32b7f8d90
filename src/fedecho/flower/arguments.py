"""The arguments of a strategy: what belongs to the rule, what to its stages, and what takes the place of FedAvg's."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from ..config.registry import algorithm_classes
from ..core.errors import ConfigError

INSTEAD = {
    "fraction_train": "leave it out: every free node gets work, and `concurrency` is how many work at once",
    "fraction_fit": "leave it out: every free node gets work, and `concurrency` is how many work at once",
    "min_train_nodes": "leave it out: `buffer_size` is how many answers make a model version",
    "min_fit_clients": "leave it out: `buffer_size` is how many answers make a model version",
    "min_evaluate_nodes": "leave it out: `fraction_evaluate` is the share of nodes that evaluate, and nobody waits",
    "min_evaluate_clients": "leave it out: `fraction_evaluate` is the share of nodes that evaluate, and nobody waits",
    "min_available_clients": "it is called `min_available_nodes`",
    "accept_failures": "leave it out: a task that fails is lost, its node rests, and the run goes on",
    "train_metrics_aggr_fn": "leave it out: metrics are averaged with the clients' example counts as weights",
    "evaluate_metrics_aggr_fn": "leave it out: metrics are averaged with the clients' example counts as weights",
    "initial_parameters": "give `initial_arrays` to start()",
    "on_fit_config_fn": "give `train_config` to start()",
    "evaluate_fn": "give `evaluate_fn` to start()",
}
"""Arguments of Flower's FedAvg, and what takes their place."""


def argument_faults(settings: Mapping[str, Any]) -> list[str]:
    """A line for each argument of Flower's FedAvg that means nothing here."""
    return [f"{name} is an argument of Flower's FedAvg: {INSTEAD[name]}" for name in settings if name in INSTEAD]


def range_faults(
    predictions: str, fraction_evaluate: float, refresh_s: float, min_available_nodes: int, patience: float | None
) -> list[str]:
    """A line for each argument out of its range."""
    faults = []
    if predictions not in ("server", "client"):
        faults.append(f"predictions is {predictions!r}; it must be 'server' or 'client'")
    if not 0 <= fraction_evaluate <= 1:
        faults.append(f"fraction_evaluate is {fraction_evaluate}; it must be from 0 to 1")
    if not 0 < refresh_s < math.inf:
        faults.append(f"refresh_s is {refresh_s}; it must be above 0 and finite")
    if min_available_nodes < 1:
        faults.append(f"min_available_nodes is {min_available_nodes}; it must be at least 1")
    if patience is not None and not 1 < patience < math.inf:
        faults.append(f"patience is {patience}; it must be above 1 and finite, such as 3.0, or None")
    return faults


def concurrency_setting(rule: str, own: Mapping[str, Any]) -> str | None:
    """The setting of the rule that would be the concurrency, if there is one and it is not given."""
    cls = algorithm_classes().get(rule)
    fields = {f.name for f in dataclasses.fields(cls)} if cls is not None else set()  # type: ignore[arg-type]
    return next((name for name in ("cohort", "concurrency") if name in fields and name not in own), None)


def raise_faults(faults: Sequence[str]) -> None:
    """Raises ConfigError with all faults, if there is any."""
    if faults:
        raise ConfigError(faults)


def split_settings(
    settings: Mapping[str, Any], stages: Sequence[str]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """A strategy's settings: the rule's, and each stage's."""
    own: dict[str, Any] = {}
    of_stages: dict[str, dict[str, Any]] = {stage: {} for stage in stages}
    for name, value in settings.items():
        stage = next((stage for stage in stages if name.startswith(f"{stage}_")), None)
        if stage is None:
            own[name] = value
        else:
            of_stages[stage][name.removeprefix(f"{stage}_")] = value
    return own, of_stages


def import_name(build: Callable[[], nn.Module] | None) -> str:
    """`module:name`, by which a function or class can be imported again; empty where it cannot."""
    module, name = getattr(build, "__module__", ""), getattr(build, "__qualname__", "")
    return f"{module}:{name}" if module and name and "<" not in name and module != "__main__" else ""


def differences(before: Mapping[str, Any], now: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Every setting that differs, by its key, in a line each."""
    lines: dict[str, str] = {}
    for key in sorted({*before, *now}):
        path = f"{above}{key}"
        then, since = before.get(key), now.get(key)
        if isinstance(then, Mapping) and isinstance(since, Mapping):
            lines |= differences(then, since, f"{path}.")
        elif then != since:
            lines[path] = f"{path} was {json.dumps(then)} and is {json.dumps(since)}"
    return lines
