"""Delay models: how long clients' jobs take. One model is one file in this package, found by its name.

Anybody's own is a class derived from `DelayModel`, named by `module:Class`.
"""

from __future__ import annotations

from ...core.plugins import shipped_classes
from .base import ClientDelays as ClientDelays
from .base import DelayModel as DelayModel


def delay_model_classes() -> dict[str, type[DelayModel]]:
    """Every delay model that ships, by name."""
    return shipped_classes(__name__, DelayModel)


def split_name(name: str) -> tuple[type[DelayModel] | None, str]:
    """The shipped model of this name and its argument: "trace:times.csv" is the model "trace" and "times.csv".

    The model is None where none that ships has this name.
    """
    kind, _, argument = name.partition(":")
    model = delay_model_classes().get(kind)
    if model is None or bool(model.argument) != (":" in name):
        return None, ""
    return model, argument


def settings_used(name: str) -> frozenset[str] | None:
    """The settings of `[population]` that the model of this name uses; None for a user's own or an unknown one."""
    model, _ = split_name(name)
    return None if model is None else model.settings_used()


def delay_settings() -> frozenset[str]:
    """The settings of `[population]` that belong to delay models: each is used by some and has no effect on others."""
    return frozenset().union(*(model.settings_used() for model in delay_model_classes().values()))
