"""Colours, dashes and layout that all figures share, and text as plotly may show it."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from .text import visible

Figure: TypeAlias = dict[str, Any]
"""What plotly draws ("data" and "layout"), and "columns": the headings and arrays of its data file."""

Line: TypeAlias = Sequence[tuple[float, float]]
"""Points (x, y) with x rising."""

POINTS = 120
"""At most so many points of a run's line are drawn."""

COLOURS = 8
DASHES = ("solid", "8px,3px", "14px,3px,3px,3px", "3px,2px", "18px,5px", "8px,3px,2px,3px,2px,3px")
MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "triangle-down", "star", "cross")
PATTERNS = ("", "/", ".", "x", "\\", "-", "|", "+")


@dataclass(frozen=True)
class MethodStyle:
    """How a method is drawn, the same in every figure; `place` is its number on the page."""

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

    @property
    def pattern(self) -> str:
        return PATTERNS[self.place % len(PATTERNS)]


def plain(text: str) -> str:
    """A name as plotly shows it letter by letter: plotly reads tags, entities and %{…} in its texts."""
    return html.escape(visible(text), quote=False).replace("%{", "%&#123;")


def rounded(value: float | None) -> float | None:
    """Five digits: more cannot be seen, and would only make the page larger."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def rounded_all(values: Sequence[float | None] | np.ndarray[Any, Any]) -> list[float | None]:
    return [rounded(value) for value in values]


def thinned(line: Line) -> Line:
    """At most POINTS of a line's points, the first and the last among them."""
    if len(line) <= POINTS:
        return line
    return [line[round(place)] for place in np.linspace(0, len(line) - 1, POINTS)]


def time_unit(seconds: float) -> tuple[float, str]:
    """A unit of time in which `seconds` is easily read: its length in seconds, and its name."""
    for length, name in ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes")):
        if seconds >= 5 * length:
            return length, name
    return 1.0, "seconds"


def layout(x: str = "", y: str = "", **more: Any) -> Figure:
    """What all figures share; `more` is added to it, axes key by key."""
    font = {"color": "@soft", "size": 13}
    axis = {"gridcolor": "@grid", "linecolor": "@grid", "zeroline": False, "automargin": True, "ticks": "",
            "tickfont": {"size": 12.5}}  # fmt: skip
    base: Figure = {
        "xaxis": {
            **axis,
            "title": {"text": plain(x), "standoff": 10, "font": font},
            "showgrid": False,
            "ticks": "outside",
        },
        "yaxis": {**axis, "title": {"text": plain(y), "standoff": 8, "font": font}},
        "margin": {"l": 8, "r": 14, "t": 10, "b": 8},
        "hovermode": "x unified",
        "showlegend": False,
        "height": 340,
    }
    base["xaxis"]["tickcolor"] = "@grid"
    for name in ("xaxis", "yaxis"):
        base[name].update(more.pop(name, {}))
    return {**base, **more}


def one_row_each(labels: Sequence[str]) -> Figure:
    """A vertical axis with a row for each label, the first on top."""
    return {
        "tickvals": list(range(len(labels))),
        "ticktext": [plain(label) for label in labels],
        "range": [len(labels) - 0.5, -0.5],
        "showgrid": False,
    }
