"""The figures, as plotly's own plain dictionaries: data in, `{"data": [...], "layout": {...}}` out.

Colours are names ("@m0" the first method's, "@m0/20" the same at 20 % opacity, "@ink", "@soft", "@grid", "@card",
"@k0" …): the page's script puts in those of the light or the dark theme. A trace says in `meta` whose it is, so that a
method can be hidden in every figure at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .curves import Bundle, curves
from .events import RunEvents
from .style import Figure, MethodStyle, layout, one_row_each, short, shorts
from .timelines import KINDS


def change_norms(events: Mapping[str, Sequence[RunEvents]], looks: Mapping[str, MethodStyle]) -> Figure:
    """Median and largest norm of the changes, over updates, mean over seeds."""
    medians = [_norm_bundle(label, runs, 1) for label, runs in events.items()]
    largest = [_norm_bundle(label, runs, 2) for label, runs in events.items()]
    figure = curves(medians, looks, "accepted updates", "norm of a change", log=True, legend=", median")
    above = curves(largest, looks, "", "", log=True, legend=", largest")
    kept = [trace for trace in figure["data"] if "seed" not in trace["meta"]]
    for trace in above["data"]:
        if trace["meta"].get("main"):
            trace["line"] = {**trace["line"], "width": 1.2, "dash": "dot"}
            kept.append({**trace, "mode": "lines"})
    return {"data": kept, "layout": figure["layout"]}


def _norm_bundle(label: str, runs: Sequence[RunEvents], column: int) -> Bundle:
    lines = {seed: [(row[0], row[column]) for row in events.norms] for seed, events in enumerate(runs) if events.norms}
    return Bundle(label, lines, frozenset(lines))


def bins_of(largest: int) -> list[tuple[int, int]]:
    """0, 1, 2, then twice as wide each time: 3–4, 5–8, 9–16, …, until `largest` is in."""
    bins, low, wide = [(0, 0)], 1, 1
    while low <= largest:
        bins.append((low, low + wide - 1))
        low, wide = low + wide, wide if low == 1 else 2 * wide
    return bins


def staleness(events: Mapping[str, Sequence[RunEvents]], looks: Mapping[str, MethodStyle], log: bool) -> Figure:
    """Share of the accepted updates by staleness, mean over seeds."""
    largest = max((max(run.staleness, default=0) for runs in events.values() for run in runs), default=0)
    bins = bins_of(largest)
    names = [str(a) if a == b else f"{a}–{b}" for a, b in bins]
    data = []
    for label, runs in events.items():
        shares = np.array(
            [
                [sum(n for tau, n in run.staleness.items() if a <= tau <= b) / max(1, sum(run.staleness.values()))
                 for a, b in bins]
                for run in runs
            ]
        )  # fmt: skip
        look = looks[label]
        data.append(
            {
                "type": "bar",
                "x": names,
                "y": shorts(shares.mean(axis=0)),
                "name": label,
                "marker": {
                    "color": look.colour,
                    "pattern": {"shape": ("", "/", ".", "x", "\\", "-", "|", "+")[look.place % 8], "size": 6,
                                "fgcolor": "@card", "fgopacity": 0.6, "fillmode": "overlay", "solidity": 0.25},
                },
                "hovertemplate": "%{y:.2%}",
                "meta": {"method": label, "look": look.place, "main": True},
            }
        )  # fmt: skip
    axis = {"type": "log", "tickformat": "~%", "dtick": 1} if log else {"tickformat": ".0%", "rangemode": "tozero"}
    made = layout("staleness, in versions", "share of the updates", yaxis=axis, xaxis={"type": "category"})
    return {"data": data, "layout": {**made, "bargap": 0.22, "bargroupgap": 0.06}}


def by_speed(spreads: Mapping[str, Mapping[str, tuple[float, float]]], looks: Mapping[str, MethodStyle]) -> Figure:
    """Accuracy on the label distribution of slow, all and fast clients: (mean, std) by method and group."""
    labels = list(spreads)
    symbols = {"slow clients": "diamond", "all": "circle", "fast clients": "triangle-up"}
    data: list[dict[str, Any]] = []
    for symbol_place, (group, symbol) in enumerate(symbols.items()):
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [None],
                "y": [None],
                "name": group,
                "marker": {"symbol": symbol, "color": "@soft", "size": 10},
                "showlegend": True,
                "meta": {},
            }
        )
        for place, label in enumerate(labels):
            found = spreads[label].get(group)
            if found is None:
                continue
            mean, std = found
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "x": [short(mean)],
                    "y": [place + 0.22 * (symbol_place - 1)],
                    "error_x": {
                        "array": [short(std)],
                        "color": f"{looks[label].colour}/70",
                        "thickness": 1.6,
                        "width": 4,
                    },
                    "marker": {
                        "symbol": symbol,
                        "color": looks[label].colour,
                        "size": 11,
                        "line": {"color": "@card", "width": 1},
                    },
                    "name": f"{label}, {group}",
                    "hovertemplate": f"<b>{label}</b><br>{group}: {100 * mean:.1f} ± {100 * std:.1f} %<extra></extra>",
                    "showlegend": False,
                    "meta": {"method": label},
                }
            )
    made = layout("final accuracy", "")
    made["xaxis"] |= {"tickformat": ".0%", "showgrid": True}
    made["yaxis"] |= one_row_each(labels)
    return {
        "data": data,
        "layout": {**made, "hovermode": "closest", "showlegend": True, "height": max(220, 110 + 62 * len(labels))},
    }


def seconds(means: Mapping[str, Mapping[str, float]]) -> Figure:
    """Real seconds of a run by kind of work, mean over seeds, by method."""
    labels = list(means)
    kinds = list(dict.fromkeys([*KINDS, *(kind for by_kind in means.values() for kind in by_kind)]))
    data = []
    for place, kind in enumerate(kinds):
        values = [means[label].get(kind, 0.0) for label in labels]
        if any(values):
            data.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "y": list(range(len(labels))),
                    "x": shorts(values),
                    "name": KINDS.get(kind, kind.removesuffix("_s")),
                    "marker": {
                        "color": f"@k{place % 6}",
                        "pattern": {"shape": ("", "/", "x", ".", "\\", "-")[place % 6], "size": 7,
                                    "fgcolor": "@card", "fgopacity": 0.6, "fillmode": "overlay", "solidity": 0.2},
                    },
                    "hovertemplate": "%{x:.3~g} s",
                    "showlegend": True,
                    "meta": {},
                }
            )  # fmt: skip
    made = layout("seconds a run, mean over seeds", "")
    made["xaxis"] |= {"showgrid": True, "rangemode": "tozero"}
    made["yaxis"] |= one_row_each(labels)
    return {
        "data": data,
        "layout": {
            **made,
            "barmode": "stack",
            "bargap": 0.45,
            "hovermode": "y unified",
            "showlegend": True,
            "height": max(220, 130 + 48 * len(labels)),
        },
    }
