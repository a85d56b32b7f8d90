"""The sections about stragglers: staleness, results by speed, contributions by speed class, the timeline."""

from __future__ import annotations

from collections.abc import Sequence

from ...objectives.base import Metric
from .. import metrics, timelines
from ..comparison import LEVEL, interval
from ..components import Block, Choice, FigureCard, Grid, Section, Switch, TableCard
from ..data import Group, Method
from ..events import CLASSES, Share
from ..figures import Means, by_speed, staleness
from ..jobs import Job, read_jobs
from ..tables import Cell, Table
from ..text import NBSP, number


def stragglers(group: Group, prefix: str) -> Section | None:
    """Late updates, and how the model serves slow and fast clients."""
    figures = []
    methods = [method for method in group.methods if any(one.staleness for one in method.events)]
    if methods:
        name = f"{prefix}staleness"
        scales = [Choice("linear", "Linear"), Choice("log", "Logarithmic")]
        figures.append(
            FigureCard(
                name,
                "Staleness of the updates",
                "How many versions the server had made since the client got its model. Bins double in width; shares "
                "are means over seeds. On the logarithmic scale the few very late updates show.",
                {"linear": staleness(methods, log=False), "log": staleness(methods, log=True)},
                switch=Switch(f"{prefix}scale", "Scale", [name], scales),
            )
        )
    if (metric := group.judged) is not None and (means := _by_speed(group, metric)):
        figures.append(
            FigureCard(
                f"{prefix}speed",
                f"{metrics.title(metric)} by client speed",
                f"Final {metric.label} on all test data, and of the slow and of the fast clients: {group.client_data}; "
                f"bars: the {LEVEL}{NBSP}% interval over seeds. Close together is fair.",
                {"": by_speed(means, metric)},
            )
        )
    if not figures:
        return None
    blocks: list[Block] = [Grid(figures)]
    table = _contributions(group, f"{prefix}t-shares")
    if table is not None:
        blocks.append(TableCard(table))
    about = "A server that does not wait gets updates made from an old model, and few of them from whoever is slow."
    return Section(f"{prefix}late", "Late updates and slow clients", about, blocks)


def _by_speed(group: Group, metric: Metric) -> list[tuple[Method, Means]]:
    means: list[tuple[Method, Means]] = []
    for method in group.methods:
        by_clients: dict[str, tuple[float, float | None]] = {}
        for clients, name in {
            "slow clients": "slow_clients",
            "all": "last_5_mean",
            "fast clients": "fast_clients",
        }.items():
            if one := interval(list(method.values(metric, name).values())):
                by_clients[clients] = (one.mean, one.half_width)
        if len(by_clients) > 1:
            means.append((method, by_clients))
    return means


def _contributions(group: Group, table_id: str) -> Table | None:
    classes = [name for name in CLASSES if any(name in one.shares for m in group.methods for one in m.events)]
    if len(classes) < 2:
        return None
    per_method = {method.label: [_contribution(method, name) for name in classes] for method in group.methods}
    bodies = list(per_method.values())
    if len(bodies) > 1 and all(body == bodies[0] for body in bodies):  # the same jobs, drawn from the same seeds
        per_method = {"all methods": bodies[0]}
    rows = [[Cell(label), *row] for label, body in per_method.items() for row in body]
    header = ["method", "clients", "how many", "updates", f"share of all,{NBSP}%", "seconds per job", "mean staleness"]
    note = (
        "Accepted updates by the speed class of the client that sent them. Shares and counts are means over seeds; "
        f"{group.seconds}, from dispatch to arrival. {class_note(group)}"
    ).strip()
    styles = {method.label: method.style.place for method in group.methods}
    return Table(table_id, "Who contributed, by speed", header, rows, frozenset({1}), note, styles)


def _contribution(method: Method, name: str) -> list[Cell]:
    shares = [one.shares[name] for one in method.events if name in one.shares]
    total = sum(sum(one.staleness.values()) for one in method.events)
    updates = sum(share.updates for share in shares)
    return [
        Cell(name),
        Cell(f"{shares[0].clients:,}" if shares else "–"),
        Cell(number(updates / len(shares), 0) if shares else "–"),
        Cell(number(100 * updates / total, 1) if total else "–"),
        Cell(number(_mean(shares, "waited_s"), 1)),
        Cell(number(_mean(shares, "staleness"), 1)),
    ]


def _mean(shares: Sequence[Share], name: str) -> float | None:
    values = [value for share in shares if (value := getattr(share, name)) is not None]
    return sum(values) / len(values) if values else None


def class_note(group: Group) -> str:
    """How a live run's clients came to speed classes, where they did."""
    classes = [one.groups for method in group.methods for one in method.events if one.groups]
    if not group.live or not classes:
        return ""
    unheard = " Unknown: too little was heard of them." if any("unknown" in one for one in classes) else ""
    return f"Clients of a live federation are fast, medium or slow by the rank of their mean job time there.{unheard}"


# -- the timeline


def timeline(group: Group, prefix: str) -> Section | None:
    """Who worked when: the first seed of each method."""
    drawn: list[tuple[Method, list[Job], list[int], float]] = []
    for method in group.methods:
        jobs, last_s = read_jobs(method.runs[0].path)
        if jobs:
            rows = timelines.rows_of(method.events[0].groups, method.events[0].clients)
            drawn.append((method, jobs, rows, timelines.window_of(jobs, rows, last_s)))
    if not drawn:
        return None
    until_s = min(window for *_, window in drawn)
    variants = {
        str(method.style.place): timelines.timeline(
            jobs, method.events[0].groups, rows, until_s, method.style, group.clock
        )
        for method, jobs, rows, _ in drawn
    }
    name = f"{prefix}timeline"
    choices = [Choice(str(method.style.place), method.label) for method, *_ in drawn]
    switch = Switch(f"{prefix}run", "Method", [name], choices) if len(choices) > 1 else None
    caption = _timeline_caption(group, drawn, until_s)
    about = "Free slots are given to idle clients; a slow one keeps its slot for as long as its job takes."
    figure = FigureCard(name, "Timeline of the clients", caption, variants, switch=switch)
    return Section(f"{prefix}when", "Who worked when", about, [figure])


def _timeline_caption(group: Group, drawn: Sequence[tuple[Method, list[Job], list[int], float]], until_s: float) -> str:
    method, jobs, rows, _ = drawn[0]
    clients = method.events[0].clients
    part = "the whole run"
    if any(until_s < job.ends_s for job in jobs):
        part = f"the first {until_s:,.0f}{NBSP}{group.seconds}"
    sample = f" {len(rows)} of the {clients:,} clients, an even sample of each class." if len(rows) < clients else ""
    classes = any(one.events[0].groups for one, *_ in drawn)
    by_class = ", sorted by speed class (the numbers: clients in it)" if classes else ""
    ended = any(job.how in ("lost", "refuse", "cancel") for _, each, *_ in drawn for job in each)
    marks = " × marks a lost job, ◇ a refused update, | a cancelled one." if ended else ""
    note = class_note(group)
    return (
        f"One row per client{by_class}; one bar per job, from dispatch to arrival; pale: still at work at the end."
        f"{marks} Seed {method.runs[0].seed}, {part}.{sample}{' ' if note else ''}{note}"
    )
