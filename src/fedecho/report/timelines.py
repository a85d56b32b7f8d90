"""The figure of who worked when, and the clients that stand for all where there are many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .events import CLASSES
from .jobs import Job
from .style import Figure, MethodStyle, layout, plain, rounded, rounded_all, time_unit

MOST_ROWS = 50
"""Clients in the timeline."""


MOST_JOBS = 1200
"""Jobs in the timeline of one method."""


def rows_of(classes: Sequence[str], clients: int) -> list[int]:
    """The clients in the timeline, fast ones first; where there are too many, an even sample of each class."""
    everyone = list(range(clients))
    if classes:
        everyone.sort(key=lambda client: (CLASSES.index(classes[client]), client))
    if len(everyone) <= MOST_ROWS:
        return everyone
    if not classes:
        return [everyone[int(place)] for place in np.linspace(0, clients - 1, MOST_ROWS)]
    sample: list[int] = []
    for group in CLASSES:
        members = [client for client in everyone if classes[client] == group]
        quota = min(len(members), max(4, round(MOST_ROWS * len(members) / clients)))
        sample += [members[int(place)] for place in np.linspace(0, len(members) - 1, quota)] if members else []
    return sample


def window_of(jobs: Sequence[Job], rows: Sequence[int], last_s: float) -> float:
    """The time until which the timeline can be drawn with at most MOST_JOBS bars."""
    shown = set(rows)
    begins = sorted(job.begins_s for job in jobs if job.client in shown)
    return last_s if len(begins) <= MOST_JOBS else begins[MOST_JOBS]


def timeline(
    jobs: Sequence[Job], classes: Sequence[str], rows: Sequence[int], until_s: float, style: MethodStyle, clock: str
) -> Figure:
    """A row per client, a bar per job from dispatch to arrival.

    Args:
        jobs: of the run.
        classes: every client's speed class, or nothing.
        rows: the clients that are shown, from the top.
        until_s: where the figure ends.
        style: of the method.
        clock: what time is called.
    """
    length, unit = time_unit(until_s)
    place = {client: number for number, client in enumerate(rows)}
    shown = [job for job in jobs if job.client in place and job.begins_s < until_s]
    kinds = {
        "accept": ("accepted", style.colour, None),
        "refuse": ("refused", "@soft/45", ("diamond-open", "@bad")),
        "lost": ("lost", "@soft/45", ("x", "@bad")),
        "cancel": ("cancelled", "@soft/45", ("line-ns-open", "@ink")),
        "at work": ("still at work at the end", f"{style.colour}/28", None),
    }
    traces: list[dict[str, Any]] = []
    for how, (name, colour, mark) in kinds.items():
        alike = [job for job in shown if job.how == how]
        if alike:
            hover = [_hover(job, classes, name, length, unit) for job in alike]
            traces.append(_bars(alike, place, until_s, length, hover, name, colour))
        ended = [job for job in alike if job.ends_s <= until_s]
        if mark and ended:
            traces.append(_marks(ended, place, length, name, *mark))
    drawn = layout(f"{clock}, {unit}", "")
    drawn["xaxis"] |= {"range": [0, rounded(until_s / length)], "showgrid": True}
    ticks, shapes = _class_ticks(classes, rows, place)
    drawn["yaxis"] |= {
        **ticks,
        "range": [len(rows) - 0.5, -0.5],
        "showgrid": False,
        "title": {"text": "" if classes else "clients"},
    }
    height = max(240, min(620, 110 + 9 * len(rows)))
    bars = {"barmode": "overlay", "bargap": 0.18, "hovermode": "closest", "showlegend": True}
    return {
        "data": traces,
        "layout": {**drawn, **bars, "shapes": shapes, "height": height},
        "columns": [["client", "customdata"], [f"begins, {unit}", "base"], [f"lasts, {unit}", "x"]],
    }


def _hover(job: Job, classes: Sequence[str], name: str, length: float, unit: str) -> str:
    staleness = f", staleness {job.staleness}" if job.staleness is not None else ""
    reason = f" ({plain(job.reason[:200])})" if job.reason else ""
    return (
        f"client {job.client}{', ' + classes[job.client] if classes else ''}<br>{name}{staleness}{reason}"
        f"<br>{job.begins_s / length:.4g} to {job.ends_s / length:.4g} {unit}"
    )


def _bars(
    jobs: Sequence[Job],
    place: Mapping[int, int],
    until_s: float,
    length: float,
    hover: Sequence[str],
    name: str,
    colour: str,
) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "base": rounded_all([job.begins_s / length for job in jobs]),
        "x": rounded_all([(min(job.ends_s, until_s) - job.begins_s) / length for job in jobs]),
        "y": [place[job.client] for job in jobs],
        "customdata": [job.client for job in jobs],
        "marker": {"color": colour, "line": {"color": "@card", "width": 0.8}},
        "name": name,
        "hovertext": hover,
        "hoverinfo": "text",
        "textposition": "none",
        "showlegend": True,
        "meta": {},
    }


def _marks(
    jobs: Sequence[Job], place: Mapping[int, int], length: float, name: str, symbol: str, colour: str
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": rounded_all([job.ends_s / length for job in jobs]),
        "y": [place[job.client] for job in jobs],
        "marker": {"symbol": symbol, "color": colour, "size": 6, "line": {"width": 1.6, "color": colour}},
        "hoverinfo": "skip",
        "name": name,
        "showlegend": False,
        "meta": {"mark": True},
    }


def _class_ticks(
    classes: Sequence[str], rows: Sequence[int], place: Mapping[int, int]
) -> tuple[Figure, list[dict[str, Any]]]:
    """A tick in the middle of each speed class, with its number of clients, and lines between the classes."""
    values: list[float] = []
    names: list[str] = []
    shapes: list[dict[str, Any]] = []
    for group in CLASSES if classes else ():
        places = [place[client] for client in rows if classes[client] == group]
        if not places:
            continue
        values.append(sum(places) / len(places))
        names.append(f"{group}<br>{sum(name == group for name in classes)}")
        if max(places) + 1 < len(rows):
            at = max(places) + 0.5
            line = {"color": "@soft", "width": 1, "dash": "dot"}
            shapes.append({"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": at, "y1": at, "line": line})
    return {"tickvals": values, "ticktext": names}, shapes
