"""Figures of learning curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from .style import POINTS, Figure, Line, MethodStyle, layout, plain, rounded, rounded_all, thinned

Array: TypeAlias = np.ndarray[Any, Any]

NAMED_LINES = 8
"""At most so many lines carry their name at their end; with more, the names would cover each other."""


@dataclass(frozen=True)
class MethodLines:
    """One method's lines, one per seed, and which of them are of finished runs."""

    label: str
    style: MethodStyle
    lines: Mapping[int, Line]
    finished: frozenset[int]

    @property
    def averaged(self) -> list[int]:
        """The seeds whose mean is drawn: the finished, or all where none is."""
        finished = [seed for seed, line in self.lines.items() if len(line) > 1 and seed in self.finished]
        return finished or [seed for seed, line in self.lines.items() if len(line) > 1]


@dataclass(frozen=True)
class Axis:
    """What a figure's vertical axis shows."""

    title: str
    percent: bool = False
    log: bool = False

    @property
    def hover(self) -> str:
        return ".1%" if self.percent else ".4~g"


def mean_line(method: MethodLines) -> tuple[Array, Array, Array] | None:
    """x, the mean over seeds and its standard deviation, as far as every seed's line goes."""
    lines = [np.array(method.lines[seed], float) for seed in method.averaged]
    if not lines:
        return None
    begin, end = max(line[0, 0] for line in lines), min(line[-1, 0] for line in lines)
    x = np.unique(np.concatenate([line[:, 0] for line in lines]))
    x = x[(x >= begin) & (x <= end)]
    if len(x) > POINTS:
        x = np.linspace(begin, end, POINTS)
    if len(x) == 0:
        return None
    values = np.array([np.interp(x, line[:, 0], line[:, 1]) for line in lines])
    std = values.std(axis=0, ddof=1) if len(lines) > 1 else np.zeros_like(x)
    return x, values.mean(axis=0), std


def curves(methods: Sequence[MethodLines], x: str, y: Axis, legend: str = "") -> Figure:
    """A mean line per method with a band of one standard deviation, and a thin line per seed.

    Args:
        methods: their lines.
        x: title of the horizontal axis.
        y: the vertical axis.
        legend: what a mean line's name has after the method's.
    """
    traces: list[dict[str, Any]] = []
    values: list[float] = []
    ends: list[tuple[float, MethodLines]] = []
    for method in methods:
        traces += _seed_traces(method)
        values += [value for seed in _thin_seeds(method) for _, value in thinned(method.lines[seed])]
        mean = mean_line(method)
        if mean is None:
            continue
        values += [*(mean[1] - mean[2]), *(mean[1] + mean[2])]
        ends.append((float(mean[1][-1]), method))
        if len(method.averaged) > 1:
            traces.append(_band(method, mean, y))
        traces.append(_mean_trace(method, mean, y, legend))
    traces.sort(key=lambda trace: (bool(trace["meta"].get("main")), "seed" in trace["meta"]))
    axis = _vertical_axis(values, y)
    drawn = layout(x, y.title, yaxis=axis, xaxis={"rangemode": "tozero", "hoverformat": ".4~g"})
    if len(ends) <= NAMED_LINES:
        drawn["annotations"] = _names_at_the_ends(ends, axis, y)
    columns = [[x, "x"], [y.title, "y"], ["standard deviation", "customdata"]]
    return {"data": traces, "layout": drawn, "columns": columns}


def _thin_seeds(method: MethodLines) -> list[int]:
    """The seeds that get a thin line: not one that is the mean itself."""
    return [seed for seed in method.lines if len(method.lines) > 1 or seed not in method.averaged]


def _seed_traces(method: MethodLines) -> list[dict[str, Any]]:
    traces = []
    for seed in _thin_seeds(method):
        line = thinned(method.lines[seed])
        traces.append(
            {
                "type": "scatter",
                "mode": "lines" if len(line) > 1 else "markers",
                "x": rounded_all([x for x, _ in line]),
                "y": rounded_all([y for _, y in line]),
                "line": {"color": f"{method.style.colour}/45", "width": 1},
                "marker": {"color": method.style.colour, "size": 5},
                "hoverinfo": "skip",
                "name": plain(f"{method.label}, seed {seed}"),
                "meta": {"method": method.style.place, "seed": seed},
            }
        )
    return traces


def _band(method: MethodLines, mean_and_std: tuple[Array, Array, Array], y: Axis) -> dict[str, Any]:
    x, mean, std = mean_and_std
    low, high = mean - std, mean + std
    if y.percent:
        low, high = low.clip(0, 1), high.clip(0, 1)
    if y.log:
        low = np.maximum(low, mean / 10)
    return {
        "type": "scatter",
        "mode": "lines",
        "x": rounded_all([*x, *x[::-1]]),
        "y": rounded_all([*high, *low[::-1]]),
        "fill": "toself",
        "fillcolor": f"{method.style.colour}/16",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "name": plain(f"{method.label} ± standard deviation"),
        "meta": {"method": method.style.place, "band": True},
    }


def _mean_trace(method: MethodLines, mean_and_std: tuple[Array, Array, Array], y: Axis, legend: str) -> dict[str, Any]:
    x, mean, std = mean_and_std
    spread = " ± %{customdata:" + y.hover + "}" if len(method.averaged) > 1 else ""
    style = method.style
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(x) <= 40 else "lines",
        "x": rounded_all(x),
        "y": rounded_all(mean),
        "customdata": rounded_all(std),
        "line": {"color": style.colour, "width": 2.4, "dash": style.dash},
        "marker": {"color": style.colour, "size": 6, "symbol": style.marker, "maxdisplayed": 12},
        "name": plain(method.label + legend),
        "hovertemplate": "%{y:" + y.hover + "}" + spread,
        "meta": {"method": style.place, "main": True},
    }


# -- the vertical axis


def _vertical_axis(values: Sequence[float], y: Axis) -> Figure:
    axis: Figure = {"tickformat": ".0%"} if y.percent else {}
    if y.percent and values:
        low, high = max(0.0, min(values)), min(1.0, max(values))
        pad = max(0.01, 0.04 * (high - low))
        axis["range"] = [rounded(max(0.0, low - pad)), rounded(min(1.0, high + pad) if high < 1 else 1.005)]
        if high - low < 0.08:
            axis["tickformat"] = ".1%"
    if y.log:
        axis |= {"type": "log", "minor": {"showgrid": False}, **_log_ticks([value for value in values if value > 0])}
    return axis


def _log_ticks(values: Sequence[float]) -> Figure:
    """1, 2, 5 in every decade where there are few, else the decades alone: written out, as "5" alone misleads."""
    if not values or max(values) > 200 * min(values):
        return {"dtick": 1, "tickformat": "~g"}
    decades = range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1)
    ticks = [float(f"{digit}e{decade}") for decade in decades for digit in (1, 2, 5)]
    return {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def _names_at_the_ends(ends: Sequence[tuple[float, MethodLines]], axis: Figure, y: Axis) -> list[Figure]:
    """Each method's name beside the end of its line, at least 16 pixels from the next one."""
    height, apart = 270.0, 16.0
    ends = [end for end in ends if math.isfinite(end[0]) and (end[0] > 0 or not y.log)]
    if not ends:
        return []
    heights = [math.log10(value) if y.log else value for value, _ in ends]
    low, high = axis.get("range") or (min(heights), max(heights))
    pixels = [height * (one - low) / (high - low) if high > low else 0.0 for one in heights]
    shifted: dict[int, float] = {}
    from_below = sorted(range(len(ends)), key=lambda place: pixels[place])
    position = -math.inf
    for place in from_below:
        position = max(pixels[place], position + apart)
        shifted[place] = position - pixels[place]
    position = height + apart / 2  # the topmost name stays inside, and pushes the others down
    for place in reversed(from_below):
        position = min(pixels[place] + shifted[place], position - apart)
        shifted[place] = position - pixels[place]
    return [
        {
            "xref": "paper",
            "x": 1,
            "xanchor": "left",
            "xshift": 6,
            "y": rounded(heights[place]),
            "yanchor": "middle",
            "yshift": round(shifted[place], 1),
            "text": plain(_shortened(method.label)),
            "font": {"color": method.style.colour, "size": 12},
            "showarrow": False,
            "name": str(method.style.place),
        }
        for place, (_, method) in enumerate(ends)
    ]


def _shortened(label: str) -> str:
    return label if len(label) <= 18 else label[:17] + "…"
