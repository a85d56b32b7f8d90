"""The sections of settings, reasons, classes and citations."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping

from ..algorithms.base import Algorithm
from ..stages.base import Stage
from .components import Parts, card, escaped, folded, section
from .data import ReportData
from .style import MethodStyle
from .tables import Cell, Table


def settings(study: ReportData, looks: Mapping[str, MethodStyle], parts: Parts) -> str:
    places = {label: look.place for label, look in looks.items()}
    text = ""
    if study.differing:
        labels = [method.label for method in study.methods]
        rows = [[Cell(name), *(Cell(values[label]) for label in labels)] for name, values in study.differing.items()]
        text += card(
            Table("t-differ", "What differs between the methods", ["setting", *labels], rows),
            parts,
            "– where a method has no such setting.",
            "settings",
        )
    common = [[Cell(name), Cell(value)] for name, value in study.common.items()]
    about = "Common to all runs" if len(study.methods) > 1 else "All settings"
    text += folded(Table("t-common", about, ["setting", "value"], common, frozenset({1})), parts)
    environment = [[Cell(name), Cell(" / ".join(values))] for name, values in study.environments.items()]
    if environment:
        text += folded(Table("t-environment", "Environment", ["", "value"], environment, frozenset({1})), parts)
    runs = []
    for method in study.methods:
        for run, about_run in zip(method.runs, method.events, strict=True):
            last = run.metrics[-1] if run.metrics else None
            r = run.result
            runs.append(
                [
                    Cell(method.label),
                    Cell(str(run.seed)),
                    Cell("finished" if r else "unfinished", "" if r else "bad"),
                    Cell("–" if r is None or r.final_accuracy is None else f"{100 * r.final_accuracy:.2f}"),
                    Cell(f"{last['updates']:,}" if last else "0"),
                    Cell(f"{last['version']:,}" if last else "0"),
                    Cell(f"{last['virtual_time_s']:,.1f}" if last else "0"),
                    Cell(_reasons(about_run.refused)),
                    Cell(_reasons(about_run.lost)),
                    Cell(r.model_sha256[:12] if r else "–"),
                ]
            )
    header = [
        "method",
        "seed",
        "state",
        "final accuracy, %",
        "updates",
        "versions",
        study.unit,
        "refused",
        "lost",
        "model",
    ]
    text += folded(Table("t-runs", "Every run", header, runs, frozenset({2, 9}), places), parts)
    told = []
    if any(not run.live for run in study.runs):
        told.append("Everything that decides a run; a run folder's config.toml given to “fedecho run” repeats it.")
    if study.live:
        told.append(
            "What the server of a live federation was told; its clients' data, training and delays are their own. "
            "“fedecho replay” recomputes its model from what was recorded."
        )
    about = " ".join(told)
    return section("settings", "Settings", about, text)


def _reasons(counts: Mapping[str, int]) -> str:
    """The most frequent ones; a live federation's can be long, and many."""
    most, others = list(counts.items())[:3], sum(list(counts.values())[3:])
    told = [f"{n:,} ({textwrap.shorten(reason, 90, placeholder='…')})" for reason, n in most]
    return ", ".join([*told, *[f"{others:,} (for other reasons)"] * bool(others)]) or "0"


def class_list(study: ReportData) -> str:
    """How a live run's clients came to speed classes, where they did."""
    live = [f for method in study.methods for run, f in zip(method.runs, method.events, strict=True) if run.live]
    if not any(f.groups for f in live):
        return ""
    unheard = " Unknown: too little was heard of them." if any("unknown" in f.groups for f in live) else ""
    return f" Clients of a live federation are fast, medium or slow by the rank of their mean job time there.{unheard}"


def citations(study: ReportData, parts: Parts) -> str:
    found: dict[str, list[str]] = {}
    for run in study.runs:
        rules: tuple[Algorithm | Stage, ...] = (run.config.algorithm, *run.config.stages)
        for part in rules:
            citation = part.citation
            if citation and part.name not in found.setdefault(_bibtex(citation), []):
                found[_bibtex(citation)].append(part.name)
    if not found:
        return ""
    text = ""
    for citation, names in found.items():
        parts.citations.append(citation)
        name = escaped(", ".join(names))
        text += (
            f'<div class="card-head"><h3>{name}</h3><div class="tools"><button type="button" '
            f'data-cite="{len(parts.citations) - 1}" aria-label="Copy the BibTeX of {name}">Copy BibTeX</button></div>'
            f'</div><pre tabindex="0">{escaped(citation)}</pre><br>'
        )
    content = f'<div class="card">{text.removesuffix("<br>")}</div>'
    return section("cite", "Citations", "The papers of the methods in this report.", content)


def _bibtex(text: str) -> str:
    """One field a line."""
    return re.sub(r", (\w+)=\{", r",\n  \1={", text).removesuffix("}") + "\n}"


def count_of(study: ReportData) -> bool:
    return any(len(method.runs) > 1 for method in study.methods)
