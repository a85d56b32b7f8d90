"""The figures, as plotly's own plain dictionaries: data in, `{"data": [...], "layout": {...}}` out.

Colours are names ("@m0" the first method's, "@m0/20" the same at 20 % opacity, "@ink", "@soft", "@grid", "@card",
"@k0" …): the page's script puts in those of the light or the dark theme. A trace says in `meta` whose it is, so that a
method can be hidden in every figure at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from .facts import CLASSES, POINTS, Facts, Job

Figure: TypeAlias = dict[str, Any]
Line: TypeAlias = Sequence[tuple[float, float]]
"""(x, y) with x rising."""

COLOURS = 8
DASHES = ("solid", "8px,3px", "14px,3px,3px,3px", "3px,2px", "18px,5px", "8px,3px,2px,3px,2px,3px")
MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "triangle-down", "star", "cross")

MOST_ROWS = 50
"""Clients in the timeline."""
MOST_JOBS = 1200
"""Jobs in the timeline of one method."""


@dataclass(frozen=True)
class Look:
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


# -- lines over seeds --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bundle:
    """One method's lines, a seed each, and which of them are of finished runs."""

    label: str
    lines: Mapping[int, Line]
    finished: frozenset[int]

    @property
    def averaged(self) -> list[int]:
        """The seeds whose mean is drawn: the finished, or all where none is."""
        kept = [seed for seed, line in self.lines.items() if len(line) > 1 and seed in self.finished]
        return kept or [seed for seed, line in self.lines.items() if len(line) > 1]


def _a_row_each(labels: Sequence[str]) -> Figure:
    """A vertical axis with a row for each label, the first on top."""
    return {
        "tickvals": list(range(len(labels))),
        "ticktext": labels,
        "range": [len(labels) - 0.5, -0.5],
        "showgrid": False,
    }


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
    looks: Mapping[str, Look],
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


def change_norms(facts: Mapping[str, Sequence[Facts]], looks: Mapping[str, Look]) -> Figure:
    """Median and largest norm of the changes, over updates, mean over seeds."""
    medians = [_norm_bundle(label, runs, 1) for label, runs in facts.items()]
    largest = [_norm_bundle(label, runs, 2) for label, runs in facts.items()]
    figure = curves(medians, looks, "accepted updates", "norm of a change", log=True, legend=", median")
    above = curves(largest, looks, "", "", log=True, legend=", largest")
    kept = [trace for trace in figure["data"] if "seed" not in trace["meta"]]
    for trace in above["data"]:
        if trace["meta"].get("main"):
            trace["line"] = {**trace["line"], "width": 1.2, "dash": "dot"}
            kept.append({**trace, "mode": "lines"})
    return {"data": kept, "layout": figure["layout"]}


def _norm_bundle(label: str, runs: Sequence[Facts], column: int) -> Bundle:
    lines = {seed: [(row[0], row[column]) for row in facts.norms] for seed, facts in enumerate(runs) if facts.norms}
    return Bundle(label, lines, frozenset(lines))


# -- bars and points ---------------------------------------------------------------------------------------------------


def bins_of(largest: int) -> list[tuple[int, int]]:
    """0, 1, 2, then twice as wide each time: 3–4, 5–8, 9–16, …, until `largest` is in."""
    bins, low, wide = [(0, 0)], 1, 1
    while low <= largest:
        bins.append((low, low + wide - 1))
        low, wide = low + wide, wide if low == 1 else 2 * wide
    return bins


def staleness(facts: Mapping[str, Sequence[Facts]], looks: Mapping[str, Look], log: bool) -> Figure:
    """Share of the accepted updates by staleness, mean over seeds."""
    largest = max((max(run.staleness, default=0) for runs in facts.values() for run in runs), default=0)
    bins = bins_of(largest)
    names = [str(a) if a == b else f"{a}–{b}" for a, b in bins]
    data = []
    for label, runs in facts.items():
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


def by_speed(spreads: Mapping[str, Mapping[str, tuple[float, float]]], looks: Mapping[str, Look]) -> Figure:
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
    made["yaxis"] |= _a_row_each(labels)
    return {
        "data": data,
        "layout": {**made, "hovermode": "closest", "showlegend": True, "height": max(220, 110 + 62 * len(labels))},
    }


KINDS = {
    "train_s": "clients' training",
    "infer_s": "predictions on U",
    "distill_s": "distillation",
    "aggregate_s": "aggregation and the rest",
    "evaluate_s": "evaluation",
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
    made["yaxis"] |= _a_row_each(labels)
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


# -- who worked when ---------------------------------------------------------------------------------------------------


def rows_of(classes: Sequence[str], clients: int) -> list[int]:
    """The clients in the timeline, fast ones first; where there are too many, an even sample of each class."""
    everyone = list(range(clients))
    if classes:
        everyone.sort(key=lambda client: (CLASSES.index(classes[client]), client))
    if len(everyone) <= MOST_ROWS:
        return everyone
    if not classes:
        return [everyone[int(place)] for place in np.linspace(0, clients - 1, MOST_ROWS)]
    kept: list[int] = []
    for group in CLASSES:
        members = [client for client in everyone if classes[client] == group]
        quota = min(len(members), max(4, round(MOST_ROWS * len(members) / clients)))
        kept += [members[int(place)] for place in np.linspace(0, len(members) - 1, quota)] if members else []
    return kept


def window_of(jobs: Sequence[Job], rows: Sequence[int], last_s: float) -> float:
    """The time until which the timeline can be drawn with at most MOST_JOBS bars."""
    shown = set(rows)
    begins = sorted(job.begins_s for job in jobs if job.client in shown)
    return last_s if len(begins) <= MOST_JOBS else begins[MOST_JOBS]


def timeline(
    jobs: Sequence[Job], classes: Sequence[str], rows: Sequence[int], until_s: float, look: Look, clock: str
) -> Figure:
    """A row a client, a bar a job from dispatch to arrival."""
    length, unit = unit_of(until_s)
    place = {client: number for number, client in enumerate(rows)}
    shown = [job for job in jobs if job.client in place and job.begins_s < until_s]
    styles = {
        "accept": ("accepted", look.colour, None),
        "refuse": ("refused", "@soft/45", ("diamond-open", "@bad")),
        "lost": ("lost", "@soft/45", ("x", "@bad")),
        "cancel": ("cancelled", "@soft/45", ("line-ns-open", "@ink")),
        "at work": ("still at work at the end", f"{look.colour}/28", None),
    }
    data: list[dict[str, Any]] = []
    for how, (name, colour, mark) in styles.items():
        theirs = [job for job in shown if job.how == how]
        if not theirs:
            continue
        said = [
            f"client {job.client}{', ' + classes[job.client] if classes else ''}<br>{name}"
            + (f", staleness {job.staleness}" if job.staleness is not None else "")
            + (f" ({job.reason})" if job.reason else "")
            + f"<br>{job.begins_s / length:.4g} to {job.ends_s / length:.4g} {unit}"
            for job in theirs
        ]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "base": shorts([job.begins_s / length for job in theirs]),
                "x": shorts([(min(job.ends_s, until_s) - job.begins_s) / length for job in theirs]),
                "y": [place[job.client] for job in theirs],
                "marker": {"color": colour, "line": {"color": "@card", "width": 0.8}},
                "name": name,
                "hovertext": said,
                "hoverinfo": "text",
                "textposition": "none",
                "showlegend": True,
                "meta": {},
            }
        )
        ended = [job for job in theirs if job.ends_s <= until_s]
        if mark and ended:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "x": shorts([job.ends_s / length for job in ended]),
                    "y": [place[job.client] for job in ended],
                    "marker": {
                        "symbol": mark[0],
                        "color": mark[1],
                        "size": 6,
                        "line": {"width": 1.6, "color": mark[1]},
                    },
                    "hoverinfo": "skip",
                    "name": name,
                    "showlegend": False,
                    "meta": {},
                }
            )
    made = layout(f"{clock}, {unit}", "")
    made["xaxis"] |= {"range": [0, short(until_s / length)], "showgrid": True}
    tick_places, tick_names, shapes = [], [], []
    for group in CLASSES if classes else ():
        theirs_places = [place[client] for client in rows if classes[client] == group]
        if theirs_places:
            tick_places.append(sum(theirs_places) / len(theirs_places))
            tick_names.append(f"{group}<br>{sum(name == group for name in classes)}")
            if max(theirs_places) + 1 < len(rows):
                at = max(theirs_places) + 0.5
                line = {"color": "@soft", "width": 1, "dash": "dot"}
                shapes.append({"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": at, "y1": at, "line": line})
    made["yaxis"] |= {
        "tickvals": tick_places,
        "ticktext": tick_names,
        "range": [len(rows) - 0.5, -0.5],
        "showgrid": False,
        "title": {"text": "" if classes else "clients"},
    }
    return {
        "data": data,
        "layout": {
            **made,
            "barmode": "overlay",
            "bargap": 0.18,
            "hovermode": "closest",
            "showlegend": True,
            "shapes": shapes,
            "height": max(240, min(620, 110 + 9 * len(rows))),
        },
    }
