"""Figures of learning curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .events import POINTS
from .style import Figure, JobQueue, MethodStyle, layout, short, shorts


@dataclass(frozen=True)
class Bundle:
    """One method's lines, a seed each, and which of them are of finished runs."""

    label: str
    lines: Mapping[int, JobQueue]
    finished: frozenset[int]

    @property
    def averaged(self) -> list[int]:
        """The seeds whose mean is drawn: the finished, or all where none is."""
        kept = [seed for seed, line in self.lines.items() if len(line) > 1 and seed in self.finished]
        return kept or [seed for seed, line in self.lines.items() if len(line) > 1]


def mean_line(bundle: Bundle) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
    """x, the mean over seeds and its standard deviation, as far as every seed's line goes."""
    lines = [np.array(bundle.lines[seed], float) for seed in bundle.averaged]
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


def curves(
    bundles: Sequence[Bundle],
    looks: Mapping[str, MethodStyle],
    x: str,
    y: str,
    *,
    percent: bool = False,
    log: bool = False,
    legend: str = "",
) -> Figure:
    """A mean line a method with a band of one standard deviation, and a thin line a seed."""
    data: list[dict[str, Any]] = []
    shape = ".1%" if percent else ".4~g"
    seen: list[float] = []
    for bundle in bundles:
        look, found = looks[bundle.label], mean_line(bundle)
        about = {"method": bundle.label, "look": look.place}
        for seed, line in bundle.lines.items():
            xs, ys = zip(*line, strict=True) if line else ((), ())
            alone = len(bundle.lines) == 1
            if not alone or seed not in bundle.averaged:
                data.append(
                    {
                        "type": "scatter",
                        "mode": "lines" if len(xs) > 1 else "markers",
                        "x": shorts(xs),
                        "y": shorts(ys),
                        "line": {"color": f"{look.colour}/45", "width": 1},
                        "marker": {"color": look.colour, "size": 5},
                        "hoverinfo": "skip",
                        "name": f"{bundle.label}, seed {seed}",
                        "meta": {**about, "seed": seed},
                    }
                )
                seen += [value for value in ys if value is not None]
        if found is None:
            continue
        at, mean, std = found
        seen += [*(mean - std), *(mean + std)]
        if len(bundle.averaged) > 1:
            low, high = mean - std, mean + std
            if percent:
                low, high = low.clip(0, 1), high.clip(0, 1)
            if log:
                low = np.maximum(low, mean / 10)
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "x": shorts([*at, *at[::-1]]),
                    "y": shorts([*high, *low[::-1]]),
                    "fill": "toself",
                    "fillcolor": f"{look.colour}/16",
                    "line": {"width": 0},
                    "hoverinfo": "skip",
                    "name": f"{bundle.label} ± std",
                    "meta": {**about, "band": True},
                }
            )
        spread = " ± %{customdata:" + shape + "}" if len(bundle.averaged) > 1 else ""
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if len(at) <= 40 else "lines",
                "x": shorts(at),
                "y": shorts(mean),
                "customdata": shorts(std),
                "line": {"color": look.colour, "width": 2.4, "dash": look.dash},
                "marker": {"color": look.colour, "size": 6, "symbol": look.marker, "maxdisplayed": 12},
                "name": bundle.label + legend,
                "hovertemplate": "%{y:" + shape + "}" + spread,
                "meta": {**about, "main": True},
            }
        )
    data.sort(key=lambda trace: (bool(trace["meta"].get("main")), "seed" in trace["meta"]))
    axis: dict[str, Any] = {"tickformat": ".0%"} if percent else {}
    if percent and seen:
        low, high = max(0.0, min(seen)), min(1.0, max(seen))
        pad = max(0.01, 0.04 * (high - low))
        axis["range"] = [short(max(0.0, low - pad)), short(min(1.0, high + pad) if high < 1 else 1.005)]
        if high - low < 0.08:
            axis["tickformat"] = ".1%"
    if log:
        axis |= {"type": "log", "minor": {"showgrid": False}, **_log_ticks([value for value in seen if value > 0])}
    return {"data": data, "layout": layout(x, y, yaxis=axis, xaxis={"rangemode": "tozero", "hoverformat": ".4~g"})}


def _log_ticks(values: Sequence[float]) -> Figure:
    """1, 2, 5 in every decade where there are few, else the decades alone: written out, as "5" alone misleads."""
    if not values or max(values) > 200 * min(values):
        return {"dtick": 1, "tickformat": "~g"}
    decades = range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1)
    ticks = [float(f"{digit}e{decade}") for decade in decades for digit in (1, 2, 5)]
    return {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
