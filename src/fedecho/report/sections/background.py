"""The sections of settings, environments, single runs, definitions and citations."""

from __future__ import annotations

import re

from ...algorithms.base import Algorithm
from ...core.errors import FedechoError
from ...stages.base import Stage
from .. import metrics
from ..components import Block, Citation, Definitions, Section, TableCard
from ..data import Group, ReportData
from ..settings import common, differing, environments
from ..tables import Cell, Table
from ..text import number


def settings(group: Group, prefix: str) -> Section:
    """What differs, what is common, the environment, and every run."""
    blocks: list[Block] = []
    different = differing(group)
    if different:
        labels = [method.label for method in group.methods]
        rows = [[Cell(name), *(Cell(values[label]) for label in labels)] for name, values in different.items()]
        note = "– where a method has no such setting."
        header = ["setting", *labels]
        table = Table(f"{prefix}t-differ", "What differs between the methods", header, rows, frozenset(), note)
        blocks.append(TableCard(table, css="settings"))
    rows = [[Cell(name), Cell(value)] for name, value in common(group).items()]
    title = "Common to all runs" if len(group.methods) > 1 else "All settings"
    same = Table(f"{prefix}t-common", title, ["setting", "value"], rows, frozenset({1}))
    blocks.append(TableCard(same, folded=True, css="settings"))
    environment = [[Cell(name), Cell(" / ".join(values))] for name, values in environments(group).items()]
    if environment:
        table = Table(f"{prefix}t-environment", "Environment", ["", "value"], environment, frozenset({1}))
        blocks.append(TableCard(table, folded=True, css="settings"))
    blocks.append(TableCard(_runs(group, f"{prefix}t-runs"), folded=True, css="settings"))
    about = "Everything that decides a run; a run folder's config.toml given to “fedecho run” repeats it."
    if group.live:
        about = (
            "What the server of a live federation was given; its clients' data, training and delays are their own. "
            "“fedecho replay” recomputes its model from what was recorded."
        )
    return Section(f"{prefix}settings", "Settings", about, blocks)


def _runs(group: Group, table_id: str) -> Table:
    metric = group.judged
    rows = []
    for method in group.methods:
        values = method.values(metric) if metric is not None else {}
        for run, events in zip(method.runs, method.events, strict=True):
            last, result = run.metrics[-1] if run.metrics else None, run.result
            row = [
                Cell(method.label),
                Cell(str(run.seed)),
                Cell("finished" if result else "unfinished", "" if result else "bad"),
            ]
            if metric is not None:
                places = metrics.decimals(metric, [0.0005])
                row.append(Cell(number(values.get(run.seed), places, scale=metrics.scale(metric))))
            row += [
                Cell(f"{last['updates']:,}" if last else "0"),
                Cell(f"{last['version']:,}" if last else "0"),
                Cell(f"{last['virtual_time_s']:,.1f}" if last else "0"),
                Cell(f"{sum(events.refused.values()):,}"),
                Cell(f"{sum(events.lost.values()):,}"),
                Cell(result.model_sha256[:12] if result else "–"),
            ]
            rows.append(row)
    header = ["method", "seed", "state"]
    if metric is not None:
        header.append(metrics.column(metric, f"final {metric.label}"))
    header += ["updates", "versions", "s" if group.live else "virtual s", "refused", "lost", "model"]
    styles = {method.label: method.style.place for method in group.methods}
    return Table(table_id, "Every run", header, rows, frozenset({2, len(header) - 1}), "", styles)


def definitions(report: ReportData) -> Section:
    """What the page's terms mean."""
    terms = {
        "update": "what a client sends after training: its change of the model's weights",
        "version": "a state of the server's model; every aggregation makes a new one",
        "staleness": "versions the server made between a client's start from the model and the arrival of its update",
        "change": "the weights of an update minus those of the version it started from",
    }
    if any(one.groups for group in report.groups for method in group.methods for one in method.events):
        terms["slow, medium and fast clients"] = "speed classes, by the expected time of a client's job"
    if not all(group.live for group in report.groups):
        terms["virtual time"] = "the clock of a simulated federation, on which jobs take as long as their clients would"
    for group in report.groups:
        for metric in group.metrics:
            if metric.definition:
                terms.setdefault(metric.label, metric.definition)
    return Section("terms", "Terms", "What the words on this page mean.", [Definitions(terms)])


def citations(report: ReportData) -> Section | None:
    """The papers of the methods."""
    names: dict[str, list[str]] = {}
    for run in report.runs:
        try:
            config = run.config
        except FedechoError:  # a class of the user's that cannot be imported here
            continue
        parts: tuple[Algorithm | Stage, ...] = (config.algorithm, *config.stages)
        for part in parts:
            if part.citation and part.name not in names.setdefault(part.citation, []):
                names[part.citation].append(part.name)
    if not names:
        return None
    blocks = [Citation(", ".join(rules), _one_field_per_line(text)) for text, rules in names.items()]
    return Section("cite", "Citations", "The papers of the methods in this report.", blocks)


def _one_field_per_line(bibtex: str) -> str:
    return re.sub(r", (\w+)=\{", r",\n  \1={", bibtex).removesuffix("}") + "\n}"
