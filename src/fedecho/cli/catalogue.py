"""The commands `list` and `data fetch`: what there is to choose from, and fetching data."""

from __future__ import annotations

import argparse
from typing import Any

from ..config.registry import ALIASES, algorithm_classes, stage_classes
from ..core.errors import ConfigError
from ..core.plugins import shipped_classes
from ..data import fetch, natural, partition, tokens, unlabeled
from ..data.sources import is_text, names
from ..executors import EXECUTORS
from ..learning.models import MODELS
from ..objectives.base import Objective
from ..simulation.settings import names as population_names


def list_command(options: argparse.Namespace) -> int:
    kinds: dict[str, dict[str, str]] = {
        "algorithms": {name: _first_line(cls) for name, cls in algorithm_classes().items()}
        | {alias: f"= {method}" for alias, method in ALIASES.items()},
        "stages": {name: _first_line(cls) for name, cls in stage_classes().items()},
        "objectives": {name: _objective(cls) for name, cls in shipped_classes("fedecho.objectives", Objective).items()},
        "datasets": {name: "text" if is_text(name) else "" for name in names()},
        "tokenizers": dict.fromkeys((*tokens.names(), "hf:NAME"), ""),
        "partitions": dict.fromkeys((*partition.schemes(), *natural.schemes()), ""),
        "unlabeled": dict.fromkeys(unlabeled.kinds(), ""),
        "models": {name: _first_line(cls) for name, cls in MODELS.items()},
        "populations": dict.fromkeys(population_names(), ""),
        "executors": {name: _first_line(cls) for name, cls in EXECUTORS.items()},
    }
    if options.what is not None and options.what not in kinds:
        raise ConfigError(f"there is no list of {options.what!r}; there are {', '.join(kinds)}")
    for kind, entries in kinds.items():
        if options.what in (None, kind):
            print(kind)
            for name, about in entries.items():
                print(f"  {name:18} {about}".rstrip())
    return 0


def _first_line(cls: Any) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0].replace("\\", "") if cls.__doc__ else ""


def _objective(cls: type[Objective]) -> str:
    """Its metrics, the judged one first."""
    judged, *others = (metric.name for metric in cls.metrics)
    return f"judged by {judged}" + (f"; also {', '.join(others)}" if others else "")


def fetch_command(options: argparse.Namespace) -> int:
    unknown = [name for name in options.names if name not in fetch.names()]
    if unknown:
        raise ConfigError([f"{name!r} cannot be fetched; there are {', '.join(fetch.names())}" for name in unknown])
    for name in options.names:
        print(f"{name}: {fetch.fetch(name)}", flush=True)
    return 0
