"""The sections of learning curves and continuations."""

from __future__ import annotations

from collections.abc import Sequence

from ...objectives.base import Metric
from ...studies.runs import Run
from .. import metrics
from ..components import Choice, FigureCard, Grid, Section, Switch, TableCard
from ..curves import Axis, MethodLines, curves
from ..data import Group
from ..metrics import CLIENT_GROUPS, TRAIN_LOSS
from ..style import Figure, time_unit
from ..tables import Cell, Table
from ..text import number

LARGEST = 1e6
"""Values above are not drawn: a model that diverges would flatten every other curve."""

MOST_TEXTS = 4
"""Evaluations of a run from which continuations are shown."""


def _lines(group: Group, x: str, y: str, scale: float = 1.0) -> list[MethodLines]:
    def line(run: Run) -> list[tuple[float, float]]:
        return [
            (row[x] / scale, row[y]) for row in run.metrics if row.get(y) is not None and abs(row[y]) < LARGEST
        ]  # also without NaN

    return [
        MethodLines(
            method.label,
            method.style,
            {run.seed: points for run in method.runs if (points := line(run))},
            frozenset(run.seed for run in method.finished),
        )
        for method in group.methods
    ]


def measures(group: Group) -> dict[str, tuple[Metric, str]]:
    """By column of the evaluations, its metric and whose data it is on; only columns that hold a value."""
    columns = {
        f"{prefix}{metric.name}": (metric, clients)
        for metric in group.metrics
        for prefix, clients in CLIENT_GROUPS.items()
    }
    columns[TRAIN_LOSS.name] = (TRAIN_LOSS, "")
    recorded = {name for run in group.runs for row in run.metrics for name, value in row.items() if value is not None}
    return {name: about for name, about in columns.items() if name in recorded}


def learning(group: Group, prefix: str) -> Section | None:
    """Every metric over time and over updates."""
    ends = [run.metrics[-1]["virtual_time_s"] for run in group.runs if run.metrics]
    length, unit = time_unit(max(ends, default=0.0))
    shown = measures(group)
    if not shown:
        return None

    def variants(x: str, scale: float, axis: str) -> dict[str, Figure]:
        drawn = {}
        for name, (metric, clients) in shown.items():
            title = ", ".join(filter(None, [metrics.axis_title(metric), clients]))
            y = Axis(title, percent=metric.share, log=metric.axis == "log")
            drawn[name] = curves(_lines(group, x, name, scale), axis, y)
        return drawn

    choices = [
        Choice(name, metrics.title(metric, clients), metrics.title(metric, clients))
        for name, (metric, clients) in shown.items()
    ]
    first = next(iter(shown.values()))[0]
    better = "Higher" if first.higher_is_better else "Lower"
    seeds = "Line: mean over seeds; band: one standard deviation; thin lines: single seeds. " * group.many_seeds
    time, updates = f"{prefix}time", f"{prefix}updates"
    over_time, over_updates = f" over {group.clock}", " over updates"
    figures = [
        FigureCard(
            time,
            f"{choices[0].title}{over_time}",
            f"{seeds}{better} at the same time is faster for whoever waits.",
            variants("virtual_time_s", length, f"{group.clock}, {unit}"),
            over_time,
        ),
        FigureCard(
            updates,
            f"{choices[0].title}{over_updates}",
            f"{seeds}{better} at the same number of updates makes more of each.",
            variants("updates", 1.0, "accepted updates"),
            over_updates,
        ),
    ]
    kind = "live" if group.live else "simulated"
    about = f"The same runs twice: by the clock of the {kind} federation, and by the work that clients delivered."
    switch = Switch(f"{prefix}measure", "What the figures show", [time, updates], choices)
    return Section(f"{prefix}learning", "Learning", about, [Grid(figures, switch)])


def continuations(group: Group, prefix: str) -> Section | None:
    """What a language model makes of a few beginnings, as it learns."""
    placed: list[tuple[int, list[Cell]]] = []
    seeds = set()
    for method in group.methods:
        pairs = zip(method.runs, method.events, strict=True)
        written = next(((run, one.continuations) for run, one in pairs if one.continuations), None)
        if written is None:
            continue
        run, texts = written
        seeds.add(run.seed)
        times = _evenly([at_s for at_s, _, _ in texts])
        for place, prompt in enumerate(dict.fromkeys(prompt for _, prompt, _ in texts)):
            placed += [
                (place, [Cell(method.label), Cell(number(at_s, 0)), Cell(_one_line(prompt)), Cell(_one_line(text))])
                for at_s, beginning, text in texts
                if beginning == prompt and at_s in times
            ]
    if not placed:
        return None
    rows = [row for _, row in sorted(placed, key=lambda pair: pair[0])]  # a beginning's of all methods together
    header = ["method", "s" if group.live else "virtual s", "beginning", "continued by the model"]
    note = f"Beginnings of test texts, continued by the server's model. Seed {', '.join(map(str, sorted(seeds)))}."
    styles = {method.label: method.style.place for method in group.methods}
    columns = frozenset({2, 3})
    table = Table(f"{prefix}t-continuations", "What the model writes", header, rows, columns, note, styles)
    about = f"The same beginnings at several times: how the text gets better over {group.clock}."
    return Section(f"{prefix}texts", "Continuations", about, [TableCard(table, css="texts")])


def _evenly(times_s: Sequence[float]) -> set[float]:
    """At most MOST_TEXTS of the times, the first and the last among them."""
    ends = list(dict.fromkeys(times_s))
    last = len(ends) - 1
    return {ends[round(place * last / max(1, MOST_TEXTS - 1))] for place in range(MOST_TEXTS)}


def _one_line(text: str) -> str:
    """A text on one line, its line ends visible."""
    return " ⏎ ".join(" ".join(line.split()) for line in text.strip().splitlines() if line.strip())
