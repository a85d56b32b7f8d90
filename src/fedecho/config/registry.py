"""Finding algorithms and stages: by name among those that ship, or anybody's by `module:Class`."""

from __future__ import annotations

from typing import Any

from ..algorithms.base import Algorithm
from ..core.errors import ConfigError
from ..core.imports import import_object
from ..core.plugins import shipped_classes
from ..stages.base import Stage
from .names import suggestion

ALIASES = {
    "fedecho": "fedbuff+echo",
    "fedecho_balanced": "fedbuff+balanced_echo",
    "fedecho_calibrated": "fedbuff+calibrated_echo",
    "fedrevive": "async_sgd+fedrevive",
}
"""Names for a rule with a stage."""


def algorithm_classes() -> dict[str, type[Algorithm]]:
    """Every algorithm that ships, by name."""
    return shipped_classes("fedecho.algorithms", Algorithm)


def stage_classes() -> dict[str, type[Stage]]:
    """Every stage that ships, by name."""
    return shipped_classes("fedecho.stages", Stage)


def find_class(name: str, known: dict[str, Any], what: str) -> Any:
    """A class by its name in `known`, or by `module:Class`.

    Raises:
        ConfigError: listing what there is.
    """
    if ":" in name:
        return import_object(name, what)
    if name not in known:
        raise ConfigError(
            f"{what} {name!r} is unknown{suggestion(name, known)}; there are {', '.join(known)}, or give `module:Class`"
        )
    return known[name]
