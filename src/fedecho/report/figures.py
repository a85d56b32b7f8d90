"""The figures, as plotly's own plain dictionaries: data in, `{"data": [...], "layout": {...}}` out.

Colours are names ("@m0" the first method's, "@m0/20" the same at 20 % opacity, "@ink", "@soft", "@grid", "@card",
"@k0" …): the page's script puts in those of the light or the dark theme. A trace has the number of its method in
`meta`, so that a method can be hidden in every figure at once. "columns" are the headings and arrays of the figure's
data file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..objectives.base import Metric
from . import metrics
from .clients import ClientTotals
from .curves import Axis, MethodLines, curves
from .data import Method
from .events import RunEvents
from .style import Figure, layout, one_row_each, plain, rounded, rounded_all
from .text import number, with_unit

SECONDS = {
    "train_s": "clients' training",
    "infer_s": "predictions on U",
    "distill_s": "distillation",
    "aggregate_s": "aggregation and the rest",
    "evaluate_s": "evaluation",
}
"""The kinds of work whose seconds a run counts."""

MOST_CLIENTS = 400
"""Clients of one method that are drawn."""


def change_norms(methods: Sequence[Method]) -> Figure:
    """Median and largest norm of the changes, over updates, mean over seeds."""
    axis = Axis("norm of a change", log=True)
    median = curves([_norm_lines(method, 1) for method in methods], "accepted updates", axis, ", median")
    largest = curves([_norm_lines(method, 2) for method in methods], "accepted updates", axis, ", largest")
    traces = [trace for trace in median["data"] if "seed" not in trace["meta"]]
    for trace in largest["data"]:
        if trace["meta"].get("main"):
            dotted = {**trace["line"], "width": 1.2, "dash": "dot"}
            traces.append({**trace, "mode": "lines", "line": dotted})
    return {**median, "data": traces}


def _norm_lines(method: Method, column: int) -> MethodLines:
    lines = {
        run.seed: [(row[0], row[column]) for row in one.norms]
        for run, one in zip(method.runs, method.events, strict=True)
        if len(one.norms) > 1
    }
    return MethodLines(method.label, method.style, lines, frozenset(lines))


def bins_of(largest: int) -> list[tuple[int, int]]:
    """0, 1, 2, then twice as wide each time: 3–4, 5–8, 9–16, …, until `largest` is in."""
    bins, low, wide = [(0, 0)], 1, 1
    while low <= largest:
        bins.append((low, low + wide - 1))
        low, wide = low + wide, wide if low == 1 else 2 * wide
    return bins


def staleness(methods: Sequence[Method], log: bool) -> Figure:
    """Share of the accepted updates by staleness, mean over seeds."""
    largest = max((max(one.staleness, default=0) for method in methods for one in method.events), default=0)
    bins = bins_of(largest)
    names = [str(low) if low == high else f"{low}–{high}" for low, high in bins]
    traces = []
    for method in methods:
        style = method.style
        shares = np.array([_binned(one, bins) for one in method.events if one.staleness])
        traces.append(
            {
                "type": "bar",
                "x": names,
                "y": rounded_all(shares.mean(axis=0)),
                "name": plain(method.label),
                "marker": {
                    "color": style.colour,
                    "pattern": {
                        "shape": style.pattern, "size": 6, "fgcolor": "@card", "fgopacity": 0.6,
                        "fillmode": "overlay", "solidity": 0.25,
                    },
                },
                "hovertemplate": "%{y:.2%}",
                "meta": {"method": style.place, "main": True},
            }
        )  # fmt: skip
    axis = {"type": "log", "tickformat": "~%", "dtick": 1} if log else {"tickformat": ".0%", "rangemode": "tozero"}
    drawn = layout("staleness, in versions", "share of the updates", yaxis=axis, xaxis={"type": "category"})
    return {
        "data": traces,
        "layout": {**drawn, "bargap": 0.22, "bargroupgap": 0.06},
        "columns": [["staleness, in versions", "x"], ["share of the updates", "y"]],
    }


def _binned(events: RunEvents, bins: Sequence[tuple[int, int]]) -> list[float]:
    total = sum(events.staleness.values())
    return [sum(n for tau, n in events.staleness.items() if low <= tau <= high) / total for low, high in bins]


SYMBOLS = {"slow clients": "diamond", "all": "circle", "fast clients": "triangle-up"}

Means = Mapping[str, tuple[float, float | None]]
"""By kind of clients, the mean of a metric and the half-width of its interval."""


def by_speed(means: Sequence[tuple[Method, Means]], metric: Metric) -> Figure:
    """The judged metric on the data of slow, all and fast clients, a row per method."""
    traces: list[dict[str, Any]] = []
    for symbol_place, (clients, symbol) in enumerate(SYMBOLS.items()):
        mark = {"symbol": symbol, "color": "@soft", "size": 10}
        traces.append(
            {"type": "scatter", "mode": "markers", "x": [None], "y": [None], "name": clients, "marker": mark,
             "showlegend": True, "meta": {"mark": True}}
        )  # fmt: skip
        for place, (method, by_clients) in enumerate(means):
            if clients in by_clients:
                row = place + 0.22 * (symbol_place - 1)
                traces.append(_speed_trace(method, clients, symbol, by_clients[clients], row, metric))
    drawn = layout(f"final {metrics.axis_title(metric)}", "")
    drawn["xaxis"] |= {"showgrid": True} | ({"tickformat": ".0%"} if metric.share else {})
    if metric.axis == "log":
        drawn["xaxis"] |= {"type": "log"}
    drawn["yaxis"] |= one_row_each([method.label for method, _ in means])
    return {
        "data": traces,
        "layout": {**drawn, "hovermode": "closest", "showlegend": True, "height": max(220, 110 + 62 * len(means))},
        "columns": [[f"final {metrics.axis_title(metric)}", "x"], ["half-width of the interval", "error_x.array"]],
    }


def _speed_trace(
    method: Method, clients: str, symbol: str, interval: tuple[float, float | None], row: float, metric: Metric
) -> dict[str, Any]:
    mean, half_width = interval
    places, factor = metrics.decimals(metric, [half_width]), metrics.scale(metric)
    text = number(mean, places, scale=factor)
    if half_width is not None:
        text += f" ± {number(half_width, places, scale=factor)}"
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [rounded(mean)],
        "y": [row],
        "error_x": {
            "array": [rounded(half_width or 0.0)], "color": f"{method.style.colour}/70", "thickness": 1.6, "width": 4,
        },
        "marker": {
            "symbol": symbol, "color": method.style.colour, "size": 11, "line": {"color": "@card", "width": 1},
        },
        "name": plain(f"{method.label}, {clients}"),
        "hovertext": f"<b>{plain(method.label)}</b><br>{clients}: {plain(with_unit(text, metrics.unit(metric)))}",
        "hoverinfo": "text",
        "showlegend": False,
        "meta": {"method": method.style.place},
    }  # fmt: skip


def seconds(means: Mapping[str, Mapping[str, float]]) -> Figure:
    """Real seconds of a run by kind of work, mean over seeds, by method."""
    labels = list(means)
    kinds = dict.fromkeys([*SECONDS, *(kind for by_kind in means.values() for kind in by_kind)])
    traces = []
    for place, kind in enumerate(kinds):
        values = [means[label].get(kind, 0.0) for label in labels]
        if any(values):
            traces.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "y": list(range(len(labels))),
                    "x": rounded_all(values),
                    "customdata": [plain(label) for label in labels],
                    "name": plain(SECONDS.get(kind, kind.removesuffix("_s"))),
                    "marker": {
                        "color": f"@k{place % 6}",
                        "pattern": {
                            "shape": ("", "/", "x", ".", "\\", "-")[place % 6], "size": 7, "fgcolor": "@card",
                            "fgopacity": 0.6, "fillmode": "overlay", "solidity": 0.2,
                        },
                    },
                    "hovertemplate": "%{x:.3~g} s",
                    "showlegend": True,
                    "meta": {},
                }
            )  # fmt: skip
    drawn = layout("seconds per run, mean over seeds", "")
    drawn["xaxis"] |= {"showgrid": True, "rangemode": "tozero"}
    drawn["yaxis"] |= one_row_each(labels)
    style = {"barmode": "stack", "bargap": 0.45, "hovermode": "y unified", "showlegend": True}
    return {
        "data": traces,
        "layout": {**drawn, **style, "height": max(220, 130 + 48 * len(labels))},
        "columns": [["method", "customdata"], ["seconds per run", "x"]],
    }


def contributions(
    method: Method, totals: Mapping[int, ClientTotals], classes: Sequence[str], shown: Sequence[int]
) -> dict[str, Any]:
    """A trace with a point per client: its accepted updates and their mean staleness."""
    rows: list[list[Any]] = []
    for client in shown[:MOST_CLIENTS]:
        one = totals.get(client, ClientTotals())
        group = classes[client] if client < len(classes) else ""
        rows.append([client, group, sum(one.refused.values()), one.lost, one.accepted, one.staleness])
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [row[4] for row in rows],
        "y": [rounded(row[5]) if row[5] is not None else None for row in rows],
        "customdata": [row[:4] for row in rows],
        "marker": {
            "color": f"{method.style.colour}/70", "symbol": method.style.marker, "size": 8,
            "line": {"color": "@card", "width": 0.8},
        },
        "name": plain(method.label),
        "hovertemplate": "client %{customdata[0]} %{customdata[1]}<br>%{x} accepted, mean staleness %{y:.3~g}<br>"
        "%{customdata[2]} refused, %{customdata[3]} lost",
        "meta": {"method": method.style.place, "main": True},
    }  # fmt: skip


def by_client(traces: Sequence[dict[str, Any]]) -> Figure:
    """Who contributed how much, and how late."""
    drawn = layout("accepted updates of a client", "their mean staleness, in versions")
    drawn["xaxis"] |= {"showgrid": True, "rangemode": "tozero"}
    drawn["yaxis"] |= {"rangemode": "tozero"}
    has_classes = any(row[1] for trace in traces for row in trace["customdata"])
    speed = [["speed class", "customdata.1"]] if has_classes else []
    return {
        "data": list(traces),
        "layout": {**drawn, "hovermode": "closest"},
        "columns": [
            ["client", "customdata.0"], *speed, ["accepted", "x"], ["mean staleness", "y"],
            ["refused", "customdata.2"], ["lost", "customdata.3"],
        ],
    }  # fmt: skip
