"""The sections about stragglers: staleness, contributions, the timeline."""

from __future__ import annotations

from collections.abc import Mapping

from . import events as events
from .background import class_list
from .components import Parts, card, figure, grid, section, switch
from .data import Method, ReportData
from .figures import by_speed, staleness
from .style import MethodStyle
from .tables import Cell, Table
from .timelines import rows_of, window_of
from .timelines import timeline as timeline_figure


def stragglers(study: ReportData, looks: Mapping[str, MethodStyle], parts: Parts) -> str:
    told = {method.label: [f for f in method.events if f.staleness] for method in study.methods}
    told = {label: found for label, found in told.items() if found}
    made = []
    if told:
        parts.figures["staleness"] = {
            "linear": staleness(told, looks, log=False),
            "log": staleness(told, looks, log=True),
        }
        made.append(
            figure(
                "staleness",
                "Staleness of the updates",
                "How many versions the server had made since the client got its model. Bins double in width; shares "
                "are means over seeds. On the logarithmic scale the few very late updates show.",
                switch("scale", {"linear": "Linear", "log": "Logarithmic"}, "staleness"),
            )
        )
    spreads = {}
    for method in study.methods:
        row = method.row
        by_group = {"slow clients": row.slow, "all": row.final, "fast clients": row.fast}
        found = {group: (s.mean, s.std) for group, s in by_group.items() if s is not None}
        if len(found) > 1:
            spreads[method.label] = found
    if spreads:
        parts.figures["speed"] = {"": by_speed(spreads, looks)}
        made.append(
            figure(
                "speed",
                "Accuracy by client speed",
                f"Final accuracy on all test data, and of the slow and of the fast clients: {study.theirs}; bars: one "
                "standard deviation over seeds. Close together is fair.",
            )
        )
    if not made:
        return ""
    table = _contributions(study, looks)
    text = grid(made)
    if table is not None:
        text += card(
            table,
            parts,
            "Accepted updates by the speed class of the client that sent them. Shares and counts are means over seeds; "
            f"{study.seconds}, from dispatch to arrival.{class_list(study)}",
        )
    about = "A server that does not wait gets updates made from an old model, and few of them from whoever is slow."
    return section("late", "Late updates and slow clients", about, text)


def _contributions(study: ReportData, looks: Mapping[str, MethodStyle]) -> Table | None:
    groups = [g for g in events.CLASSES if any(g in f.shares for m in study.methods for f in m.events)]
    if len(groups) < 2:
        return None
    header = ["method", "clients", "how many", "updates", "share of all", "seconds a job", "mean staleness"]
    rows = []
    for method in study.methods:
        total = sum(sum(f.staleness.values()) for f in method.events)
        for group in groups:
            shares = [f.shares[group] for f in method.events if group in f.shares]
            updates = sum(share.updates for share in shares)
            waited = [share.waited_s for share in shares if share.waited_s is not None]
            stale = [share.staleness for share in shares if share.staleness is not None]
            rows.append(
                [
                    Cell(method.label),
                    Cell(group),
                    Cell(f"{shares[0].clients:,}" if shares else "–"),
                    Cell(f"{updates / len(shares):,.0f}" if shares else "–"),
                    Cell(f"{100 * updates / total:.1f} %" if total else "–"),
                    Cell(f"{sum(waited) / len(waited):,.1f}" if waited else "–"),
                    Cell(f"{sum(stale) / len(stale):,.1f}" if stale else "–"),
                ]
            )
    kinds = len(groups)
    per_method = [[row[1:] for row in rows[place : place + kinds]] for place in range(0, len(rows), kinds)]
    if len(per_method) > 1 and all(
        found == per_method[0] for found in per_method
    ):  # the same jobs, drawn from the same seeds
        rows = [[Cell("all methods"), *row] for row in per_method[0]]
    places = {label: look.place for label, look in looks.items()}
    return Table("t-shares", "Who contributed", header, rows, frozenset({1}), places)


def timeline(study: ReportData, looks: Mapping[str, MethodStyle], parts: Parts) -> str:
    drawn: list[tuple[Method, list[events.Job], tuple[str, ...], list[int], float]] = []
    for method in study.methods:
        run, told = method.runs[0], method.events[0]
        jobs, last_s = events.jobs(run.path)
        if jobs:
            rows = rows_of(told.groups, told.clients)
            drawn.append((method, jobs, told.groups, rows, window_of(jobs, rows, last_s)))
    if not drawn:
        return ""
    until_s = min(window for *_, window in drawn)
    parts.figures["timeline"] = {
        method.label: timeline_figure(jobs, classes, rows, until_s, looks[method.label], study.clock)
        for method, jobs, classes, rows, _ in drawn
    }
    method, jobs, _, rows, _ = drawn[0]
    clients = method.events[0].clients
    said = f"the first {until_s:,.0f} {study.seconds}" if any(until_s < job.ends_s for job in jobs) else "the whole run"
    sample = f" {len(rows)} of the {clients:,} clients, an even sample of each class." if len(rows) < clients else ""
    classes = any(theirs for _, _, theirs, *_ in drawn)
    by_class = ", sorted by speed class (the numbers: clients in it)" if classes else ""
    marks = ""
    if any(job.how in ("lost", "refuse", "cancel") for _, theirs, *_ in drawn for job in theirs):
        marks = " × marks a lost job, ◇ a refused update, | a cancelled one."
    text = (
        f"One row a client{by_class}; one bar a job, from dispatch to arrival; pale: still at work at the end.{marks} "
        f"Seed {method.runs[0].seed}, {said}.{sample}{class_list(study)}"
    )
    picks = {name: name for name in parts.figures["timeline"]}
    control = switch("run", picks, "timeline") if len(picks) > 1 else ""
    about = "Free slots are given to idle clients; a slow one keeps its slot for as long as its job takes."
    return section("when", "Who worked when", about, figure("timeline", "Timeline of the clients", text, control))
