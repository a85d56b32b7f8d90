"""One HTML page that needs nothing else: text, tables, figures and the script that draws them.

All text goes through an autoescaping template; figures and plotly.js are packed (gzip, base64). The page's security
policy names the two scripts by their hash, so that no other can run, whatever a label, a reason or a text contains.
"""

from __future__ import annotations

import base64
import datetime
import gzip
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from ..core.errors import MissingExtra
from .components import Section
from .data import Group, ReportData, name_of
from .headline import headline
from .remarks import remarks
from .sections.background import citations, definitions, settings
from .sections.contributors import contributors
from .sections.learning import continuations, learning
from .sections.results import details, results
from .sections.stragglers import stragglers, timeline
from .sections.work import stages, work
from .settings import everyone_works
from .text import NBSP, listed, plural, visible

SECTIONS: Sequence[Callable[[Group, str], Section | None]] = (
    results,
    learning,
    details,
    continuations,
    stragglers,
    timeline,
    contributors,
    stages,
    work,
    settings,
)
"""Of each group, in order."""


@dataclass(frozen=True)
class GroupView:
    """A group as the template shows it.

    Attributes:
        title: its heading; empty where the page has one group.
        anchor: of the heading.
        headline: pieces of text, and whether each is the name of a method.
        about: methods, seeds, clients and model on one line.
        remarks: a paragraph each.
        sections: in order.
    """

    title: str
    anchor: str
    headline: list[tuple[str, bool]]
    about: str
    remarks: list[str]
    sections: list[Section]


def page(report: ReportData, title: str | None = None) -> str:
    """The whole page.

    Raises:
        MissingExtra: without plotly or jinja2.
    """
    try:
        import jinja2
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise MissingExtra("a report", "report") from None
    title = title or _title(report)
    groups = [_view(group, report) for group in report.groups]
    last = [section for section in (definitions(report), citations(report)) if section is not None]
    sections = [*(section for group in groups for section in group.sections), *last]
    plotly, script = get_plotlyjs(), _template("page.js")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if hasattr(value, "__html__") or not isinstance(value, str) else visible(value),
    )
    return environment.get_template("page.html").render(
        title=title,
        description=" ".join(headline(group) for group in report.groups),
        groups=groups,
        last=last,
        methods=[(label, style) for label, style in report.styles.items()],
        many_seeds=any(group.many_seeds for group in report.groups),
        runs=f"{len(report.runs)} run{plural(len(report.runs))}",
        today=datetime.date.today().isoformat(),
        css=_template("page.css"),
        data=script_json(_data(sections, title)),
        figures=packed(json.dumps(_clean(_figures(sections)), allow_nan=False, separators=(",", ":"))),
        plotly=packed(plotly),
        script=script,
        hashes=[script_hash(script), script_hash(plotly)],
    )


def _template(name: str) -> str:
    return (files(__package__) / "templates" / name).read_text(encoding="utf-8")


def _view(group: Group, report: ReportData) -> GroupView:
    single = len(report.groups) == 1
    prefix = "" if single else f"g{group.number + 1}-"
    sections = [section for make in SECTIONS if (section := make(group, prefix)) is not None]
    labels = {method.label for method in group.methods}
    return GroupView(
        title="" if single else group.title,
        anchor=f"{prefix}top",
        headline=marked(headline(group), labels),
        about=_about(group),
        remarks=remarks(group),
        sections=sections,
    )


def _title(report: ReportData) -> str:
    first = report.groups[0]
    if len(report.runs) == 1:
        return f"{first.methods[0].label} on {first.dataset}, seed {first.runs[0].seed}"
    names = list(dict.fromkeys(name_of(run) for run in report.runs))
    if names != ["experiment"]:
        return ", ".join(names)
    return f"Methods on {listed(list(dict.fromkeys(group.dataset for group in report.groups)))}"


def _about(group: Group) -> str:
    run, events = group.runs[0], group.methods[0].events[0]
    seeds = sorted({one.seed for one in group.runs})
    methods = f"{len(group.methods)}{NBSP}method{plural(len(group.methods))}"
    parts = [f"{methods} × {len(seeds)}{NBSP}seed{plural(len(seeds))} ({', '.join(map(str, seeds))})"]
    if group.live and len(group.runs) > 1:
        return parts[0]
    concurrency = run.setting("server", "concurrency", "")
    at_work = "all" if everyone_works(run) else f"{concurrency:,}" if isinstance(concurrency, int) else "some"
    parts.append(f"{events.clients:,}{NBSP}clients, {at_work} at work at a time")
    if not group.live:
        partition = str(run.setting("data", "partition", ""))
        alpha = f", α{NBSP}{run.setting('data', 'alpha', '')}" if "dirichlet" in partition else ""
        parts += [f"delays “{run.setting('population', 'name', '')}”", f"split {partition}{alpha}"]
    if model := run.setting("model", "name"):
        parts.append(f"model {model}")
    return " · ".join(parts)


def marked(text: str, labels: set[str]) -> list[tuple[str, bool]]:
    """The text in pieces, and whether each is one of the labels."""
    names = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
    pieces = re.split(rf"(?<![\w+])({names})(?![\w+])", text) if names else [text]
    return [(piece, piece in labels) for piece in pieces if piece]


# -- what the script is given


def _data(sections: Sequence[Section], title: str) -> dict[str, Any]:
    tables = {
        table.id: {"md": table.markdown(), "tex": table.latex(), "csv": table.csv()}
        for section in sections
        for table in section.tables()
    }
    name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60] or "report"
    citations = [citation.bibtex for section in sections for citation in section.citations()]
    return {"name": name, "tables": tables, "citations": citations}


def _figures(sections: Sequence[Section]) -> dict[str, Any]:
    return {figure.name: dict(figure.variants) for section in sections for figure in section.figures()}


def _clean(value: Any) -> Any:
    """The same without signs that would reorder text."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(str(key)): _clean(item) for key, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list | tuple) else value


def script_json(data: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(_clean(data), ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def packed(text: str) -> str:
    """gzip and base64; the same text gives the same bytes."""
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=9, mtime=0)).decode("ascii")


def script_hash(script: str) -> str:
    """What a security policy allows a script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
