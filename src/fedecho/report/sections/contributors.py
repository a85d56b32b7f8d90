"""The section of single clients: who contributed how much and how late, and what was refused or lost."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from ...objectives.base import Metric
from .. import metrics, timelines
from ..clients import ClientTotals, Refusals
from ..components import Block, FigureCard, Section, TableCard
from ..data import Group, Method
from ..figures import MOST_CLIENTS, by_client, contributions
from ..tables import Cell, Table
from ..text import NBSP, number

MOST_REASONS = 12
"""Reasons of one method that have a row of their own."""


def contributors(group: Group, prefix: str) -> Section | None:
    """A point per client, refusals by kind, and a table of clients per method."""
    blocks: list[Block] = []
    traces = []
    for method in group.methods:
        first = method.events[0]
        if any(one.accepted for one in first.totals.values()):
            shown = _evenly(range(first.clients), MOST_CLIENTS)
            traces.append(contributions(method, first.totals, first.groups, shown))
    if traces:
        blocks.append(
            FigureCard(
                f"{prefix}clients",
                "Updates and staleness by client",
                "A point per client: to the right who contributes much, at the top whose updates come late. First seed "
                f"of each method; at most {MOST_CLIENTS} clients, an even sample.",
                {"": by_client(traces)},
            )
        )
    if (table := _refusals(group, f"{prefix}t-refused")) is not None:
        blocks.append(TableCard(table))
    for place, method in enumerate(group.methods):
        if method.events[0].totals:
            blocks.append(TableCard(_clients(group, method, f"{prefix}t-clients-{place}"), folded=True))
    if not blocks:
        return None
    about = "What each client gave, and what of it the server could not use."
    return Section(f"{prefix}clients-section", "Clients", about, blocks)


def _evenly(clients: Sequence[int], most: int) -> list[int]:
    if len(clients) <= most:
        return list(clients)
    return [clients[place * (len(clients) - 1) // (most - 1)] for place in range(most)]


def _refusals(group: Group, table_id: str) -> Table | None:
    """Refused answers and lost tasks by kind and reason, summed over the seeds of a method."""
    rows: list[list[Cell]] = []
    for method in group.methods:
        for what, each in (
            ("refused", [one.refused for one in method.events]),
            ("lost", [one.lost for one in method.events]),
        ):
            rows += [[Cell(method.label), Cell(what), *cells] for cells in _reasons(each)]
    if not rows:
        return None
    header = ["method", "what", "kind", "reason", "how many"]
    note = (
        "Sums over the seeds of a method. A refused answer came but was not used; the answer of a lost task never came."
    )
    styles = {method.label: method.style.place for method in group.methods}
    return Table(table_id, "Refused and lost", header, rows, frozenset({1, 2, 3}), note, styles)


def _reasons(each: Sequence[Refusals]) -> list[list[Cell]]:
    """Kind, reason and count of the most frequent ones; a live federation's can be long, and many."""
    counts: dict[tuple[str, str], int] = {}
    for one in each:
        for (kind, reason), count in one.items():
            key = (kind, textwrap.shorten(reason, 90, placeholder="…"))
            counts[key] = counts.get(key, 0) + count
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    rows = [
        [Cell(kind or "–"), Cell(reason or "–"), Cell(f"{count:,}")] for (kind, reason), count in ordered[:MOST_REASONS]
    ]
    others = sum(count for _, count in ordered[MOST_REASONS:])
    if others:
        rows.append([Cell("–"), Cell("other reasons"), Cell(f"{others:,}")])
    return rows


def _clients(group: Group, method: Method, table_id: str) -> Table:
    events, metric = method.events[0], group.judged
    shown = timelines.rows_of(events.groups, events.clients)
    judged = _own_metric(events.totals, metric)
    total = sum(one.accepted for one in events.totals.values())
    header = ["client"]
    if events.groups:
        header.append("speed class")
    header += ["accepted", f"share,{NBSP}%", "mean staleness", "mean training loss", "examples", "refused", "lost"]
    if judged is not None:
        header.append(metrics.column(judged, f"its own {judged.label}"))
    rows = []
    for client in shown:
        one = events.totals.get(client, ClientTotals())
        row = [Cell(str(client))]
        if events.groups:
            row.append(Cell(events.groups[client]))
        row += [
            Cell(f"{one.accepted:,}"),
            Cell(number(100 * one.accepted / total, 1) if total else "–"),
            Cell(number(one.staleness, 1)),
            Cell(number(one.loss, 4)),
            Cell("–" if one.examples is None else f"{one.examples:,}"),
            Cell(_refused(one.refused)),
            Cell(f"{one.lost:,}"),
        ]
        if judged is not None:
            places, factor = metrics.decimals(judged), metrics.scale(judged)
            row.append(Cell(number(one.judged.get(judged.name), places, scale=factor)))
        rows.append(row)
    sample = f"; {len(shown)} of {events.clients:,}, an even sample" if len(shown) < events.clients else ""
    title = f"Clients of {method.label}, seed {method.runs[0].seed}{sample}"
    return Table(table_id, title, header, rows, frozenset({1}) if events.groups else frozenset())


def _own_metric(totals: Mapping[int, ClientTotals], metric: Metric | None) -> Metric | None:
    """The judged metric, where clients found it themselves when they evaluated."""
    if metric is not None and any(metric.name in one.judged for one in totals.values()):
        return metric
    return None


def _refused(by_kind: Mapping[str, int]) -> str:
    if not by_kind:
        return "0"
    kinds = [f"{textwrap.shorten(kind, 40, placeholder='…')}: {count:,}" for kind, count in list(by_kind.items())[:3]]
    return f"{sum(by_kind.values()):,} ({'; '.join(kinds)})"
