"""Colours, dashes and layout that all figures share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Figure: TypeAlias = dict[str, Any]


JobQueue: TypeAlias = Sequence[tuple[float, float]]
"""(x, y) with x rising."""


COLOURS = 8


DASHES = ("solid", "8px,3px", "14px,3px,3px,3px", "3px,2px", "18px,5px", "8px,3px,2px,3px,2px,3px")


MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "triangle-down", "star", "cross")


@dataclass(frozen=True)
class MethodStyle:
    """How a method is drawn, the same in every figure."""

    place: int

    @property
    def colour(self) -> str:
        return f"@m{self.place % COLOURS}"

    @property
    def dash(self) -> str:
        return DASHES[self.place % len(DASHES)]

    @property
    def marker(self) -> str:
        return MARKERS[self.place % len(MARKERS)]


def short(value: float | None) -> float | None:
    """Five digits: more cannot be seen, and would only make the page larger."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def shorts(values: Sequence[float | None] | np.ndarray[Any, Any]) -> list[float | None]:
    return [short(value) for value in values]


def unit_of(seconds: float) -> tuple[float, str]:
    """A unit of time in which `seconds` is easily read, and its length in seconds."""
    for length, name in ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes")):
        if seconds >= 5 * length:
            return length, name
    return 1.0, "seconds"


def layout(x: str = "", y: str = "", **more: Any) -> Figure:
    """What all figures share."""
    font = {"color": "@soft", "size": 13}
    axis = {"gridcolor": "@grid", "linecolor": "@grid", "zeroline": False, "automargin": True, "ticks": "",
            "tickfont": {"size": 12.5}}  # fmt: skip
    made: Figure = {
        "xaxis": {**axis, "title": {"text": x, "standoff": 10, "font": font}, "showgrid": False, "ticks": "outside"},
        "yaxis": {**axis, "title": {"text": y, "standoff": 8, "font": font}},
        "margin": {"l": 8, "r": 14, "t": 10, "b": 8},
        "hovermode": "x unified",
        "showlegend": False,
        "height": 340,
    }
    made["xaxis"]["tickcolor"] = "@grid"
    for name in ("xaxis", "yaxis"):
        made[name].update(more.pop(name, {}))
    return {**made, **more}


def one_row_each(labels: Sequence[str]) -> Figure:
    """A vertical axis with a row for each label, the first on top."""
    return {
        "tickvals": list(range(len(labels))),
        "ticktext": labels,
        "range": [len(labels) - 0.5, -0.5],
        "showgrid": False,
    }
