"""A strategy for every rule that ships and for every alias; a new rule needs no entry here.

`fedecho.algorithms` and `fedecho.stages` say what each does, with its paper and its settings.
"""

from __future__ import annotations

from ..config.registry import ALIASES, algorithm_classes, stage_classes
from .strategy import Asynchronous


def class_name(alias: str) -> str:
    """The class name of an alias: "fedecho_balanced" gives "FedEchoBalanced"."""
    first, *others = alias.removeprefix("fed").split("_")
    prefix = "Fed" if alias.startswith("fed") else ""
    return prefix + "".join(word.capitalize() for word in (first, *others))


def _strategy(name: str, method: str, documentation: str) -> type[Asynchronous]:
    return type(name, (Asynchronous,), {"method": method, "__doc__": documentation, "__module__": __name__})


def _strategies() -> dict[str, type[Asynchronous]]:
    """Every strategy by its class name: a rule's is called as the rule's class."""
    strategies = {}
    for method, rule in algorithm_classes().items():
        strategies[rule.__name__] = _strategy(rule.__name__, method, rule.__doc__ or "")
    for method, long_name in ALIASES.items():
        rule_name, *stages = long_name.split("+")
        parts = [f"{long_name}: the rule `{rule_name}` with settings by their names."]
        for stage in stages:
            parts += [
                f"The settings of the stage `{stage}` begin with `{stage}_`.",
                stage_classes()[stage].__doc__ or "",
            ]
        strategies[class_name(method)] = _strategy(class_name(method), method, "\n\n    ".join(parts))
    return dict(sorted(strategies.items()))


STRATEGIES = _strategies()
"""Every strategy by its class name."""

globals().update(STRATEGIES)
