"""The figure of who worked when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .events import CLASSES, Job
from .style import Figure, MethodStyle, layout, short, shorts, unit_of

MOST_ROWS = 50
"""Clients in the timeline."""


MOST_JOBS = 1200
"""Jobs in the timeline of one method."""


KINDS = {
    "train_s": "clients' training",
    "infer_s": "predictions on U",
    "distill_s": "distillation",
    "aggregate_s": "aggregation and the rest",
    "evaluate_s": "evaluation",
}


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
    jobs: Sequence[Job], classes: Sequence[str], rows: Sequence[int], until_s: float, look: MethodStyle, clock: str
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
