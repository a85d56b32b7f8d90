"""One HTML page that needs nothing else: text, tables, figures and the script that draws them."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from ..core.errors import MissingExtra
from .background import citations, settings
from .components import Parts, escaped, plural
from .data import EVERYONE, ReportData
from .learning import continuations, learning
from .results import details, results
from .sections import stages, work
from .stragglers import stragglers, timeline
from .style import MethodStyle

DARK = """
  --bg: #0f1318; --card: #171c23; --ink: #e8ecf1; --soft: #9ba8b7; --line: #2a323c; --grid: #27303a;
  --accent: #6cb6ff;
  --bad: #ff8a80; --good: #5fd3a8; --wash: #10151b; color-scheme: dark;
  --m0: #56aef0; --m1: #ff8c4b; --m2: #2cc795; --m3: #e58fc6; --m4: #f2b233; --m5: #a3dcff;
  --m6: #c9d1da; --m7: #e6dc5a;
  --k0: #93a4b8; --k1: #7cc8f5; --k2: #ff8c4b; --k3: #e8cb45; --k4: #2cc795; --k5: #e58fc6;
"""


def page(study: ReportData, title: str | None = None) -> str:
    """The whole page.

    Raises:
        MissingExtra: without plotly.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise MissingExtra("a report's figures", "report") from None
    looks = {method.label: MethodStyle(place) for place, method in enumerate(study.methods)}
    title = title or _title(study)
    parts = Parts()
    made = [
        results(study, looks, parts),
        learning(study, looks, parts),
        details(study, looks, parts),
        continuations(study, looks, parts),
        stragglers(study, looks, parts),
        timeline(study, looks, parts),
        stages(study, looks, parts),
        work(study, looks, parts),
        settings(study, looks, parts),
        citations(study, parts),
    ]
    here = files(__package__)
    css = (here / "page.css").read_text(encoding="utf-8")
    dark = f'@media (prefers-color-scheme: dark) {{ :root:not([data-theme="light"]) {{{DARK}}} }}\n'
    css = css.replace("/*DARK*/", f'{dark}:root[data-theme="dark"] {{{DARK}}}')
    name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "report"
    data = {"name": name, "figures": parts.figures, "tables": parts.tables, "citations": parts.citations}
    body = "\n".join(section for section in made if section)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src 'unsafe-inline'; img-src data: blob:; font-src data:">
<meta name="description" content="{escaped(study.headline)}">
<title>{escaped(title)}</title>
<link rel="icon" href="data:,">
<style>{css}</style>
</head>
<body>
<a class="skip" href="#main">To the results</a>
<header class="top">
<div class="kicker"><span>fedecho report</span><button type="button" data-act="theme" aria-label="Change between \
automatic, light and dark colours">◐ Auto</button></div>
<h1>{escaped(title)}</h1>
<p class="lead">{_marked(study.headline, looks)}</p>
<p class="facts">{escaped(_about(study))}</p>
</header>
{_chips(study, looks)}
<main id="main">
<noscript><p>The figures are drawn by a script, which is switched off here. The tables need none.</p></noscript>
{_remarks(study)}
{body}
</main>
<footer>Made by fedecho on {datetime.date.today().isoformat()} from {len(study.runs)} run{plural(len(study.runs))}. \
This page is one file and asks nothing of any network. Figures: plotly.js (MIT licence), contained.</footer>
<div id="said" role="status" aria-live="polite"></div>
<script type="application/json" id="data">{_json(data)}</script>
<script>{get_plotlyjs()}</script>
<script>{(here / "page.js").read_text(encoding="utf-8")}</script>
</body>
</html>
"""


def _title(study: ReportData) -> str:
    names = list(dict.fromkeys(run.config.experiment.name for run in study.runs))
    if len(study.methods) == 1 and len(study.runs) == 1:
        return f"{study.methods[0].label} on {study.dataset}, seed {study.runs[0].seed}"
    return ", ".join(names) if names != ["experiment"] else f"Methods on {study.dataset}"


def _about(study: ReportData) -> str:
    run, about = study.runs[0], study.methods[0].events[0]
    config = run.config
    seeds = sorted({run.seed for run in study.runs})
    told = [
        f"{len(study.methods)} method{plural(len(study.methods))} × {len(seeds)} seed{plural(len(seeds))} "
        f"({', '.join(map(str, seeds))})",
    ]
    if len({(run.live, run.config.data) for run in study.runs}) > 1 or (run.live and len(study.runs) > 1):
        return told[0]
    at_work = "all" if config.server.concurrency >= EVERYONE else f"{config.server.concurrency:,}"
    told.append(f"{about.clients:,} clients, {at_work} at work at a time")
    if not run.live:
        alpha = f", α {config.data.alpha:g}" if "dirichlet" in config.data.partition else ""
        told += [f"delays “{config.population.name}”", f"split {config.data.partition}{alpha}"]
    return " · ".join([*told, *[f"model {config.model.name}"] * bool(config.model.name)])


def _marked(text: str, looks: Mapping[str, MethodStyle]) -> str:
    """The methods' names in bold."""
    names = "|".join(re.escape(name) for name in sorted(looks, key=len, reverse=True))
    pieces = re.split(rf"(?<![\w+])({names})(?![\w+])", text) if names else [text]
    return "".join(f"<strong>{escaped(p)}</strong>" if p in looks else escaped(p) for p in pieces)


def _chips(study: ReportData, looks: Mapping[str, MethodStyle]) -> str:
    chips = []
    for method in study.methods:
        look = looks[method.label]
        dash = "" if look.dash == "solid" else look.dash.replace("px", "").replace(",", " ")
        line = (
            f'<svg width="34" height="10" aria-hidden="true"><line x1="0" y1="5" x2="34" y2="5" stroke="var(--m'
            f'{look.place % 8})" stroke-width="3" stroke-dasharray="{dash}"/></svg>'
        )
        chips.append(
            f'<button type="button" class="chip" aria-pressed="true" data-method="{escaped(method.label)}" '
            f'title="Show or hide {escaped(method.label)} in the figures">{line}{escaped(method.label)}</button>'
        )
    if any(len(method.runs) > 1 for method in study.methods):
        chips.append(
            '<button type="button" class="chip end" aria-pressed="true" data-act="seeds">single seeds</button>'
        )
    return f'<nav class="methods" aria-label="Methods: show or hide"><div>{"".join(chips)}</div></nav>'


def _remarks(study: ReportData) -> str:
    if not study.remarks:
        return ""
    told = "".join(f"<p>{escaped(remark)}</p>" for remark in study.remarks)
    return f'<aside class="remarks" aria-label="Remarks">{told}</aside>'


def _json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
