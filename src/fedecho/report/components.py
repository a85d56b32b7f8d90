"""The building blocks of the page: a figure with its buttons, a switch, a table in a card."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field

from .style import Figure
from .tables import Table


@dataclass
class Parts:
    """What the page's script is given."""

    figures: dict[str, dict[str, Figure]] = field(default_factory=dict)
    tables: dict[str, dict[str, str]] = field(default_factory=dict)
    citations: list[str] = field(default_factory=list)


def figure(name: str, title: str, caption: str, controls: str = "", after: str = "") -> str:
    text = f"{escaped(title)}. {escaped(caption)}"
    buttons = "".join(
        f'<button type="button" data-save="{kind.lower()}" aria-label="Save “{escaped(title)}” as {kind}">'
        f"{kind}</button>"
        for kind in ("SVG", "PNG")
    )
    return (
        f'<figure data-figure="{name}"><div class="card-head"><h3 data-after="{escaped(after)}">{escaped(title)}</h3>'
        f'<div class="tools">{buttons}</div></div>{controls}<div class="plot" role="img" aria-label="{text}"></div>'
        f"<figcaption>{escaped(caption)}</figcaption></figure>"
    )


def section(name: str, title: str, about: str, content: str) -> str:
    """A part of the page under a heading."""
    return (
        f'<section aria-labelledby="h-{name}"><h2 id="h-{name}">{escaped(title)}</h2>'
        f'<p class="about">{escaped(about)}</p>{content}</section>'
    )


def grid(made: list[str]) -> str:
    """Figures beside each other where there is room."""
    return f'<div class="grid">{"".join(made)}</div>'


def switch(name: str, picks: Mapping[str, str], figures_: str, titles: bool = False) -> str:
    choices = []
    for place, (value, text) in enumerate(picks.items()):
        title = f' data-title="{escaped(text)}"' if titles else ""
        choices.append(
            f'<input type="radio" name="{name}" id="{name}-{place}" value="{escaped(value)}"{title} '
            f'data-switches="{figures_}"{" checked" if place == 0 else ""}>'
            f'<label for="{name}-{place}">{escaped(text)}</label>'
        )
    return f'<fieldset class="segments"><legend>{escaped(name)}</legend>{"".join(choices)}</fieldset>'


def copies(table: Table, parts: Parts) -> str:
    parts.tables[table.id] = {"md": table.markdown(), "tex": table.latex()}
    return "".join(
        f'<button type="button" data-table="{table.id}" data-copy="{kind}" '
        f'aria-label="Copy “{escaped(table.about)}” as '
        f'{name}">{name}</button>'
        for kind, name in (("md", "Markdown"), ("tex", "LaTeX"))
    )


def card(table: Table, parts: Parts, note: str = "", kind: str = "") -> str:
    told = f'<p class="note">{escaped(note)}</p>' if note else ""
    return (
        f'<div class="card {kind}"><div class="card-head"><h3>{escaped(table.about)}</h3>'
        f'<div class="tools">{copies(table, parts)}'
        f"</div></div>{table.html()}{told}</div>"
    )


def folded(table: Table, parts: Parts) -> str:
    return (
        f'<details class="settings"><summary>{escaped(table.about)}</summary><div class="card-head"><div class="tools">'
        f"{copies(table, parts)}</div></div>{table.html()}</details>"
    )


def escaped(text: str) -> str:
    return html.escape(text, quote=True)


def plural(n: int) -> str:
    return "" if n == 1 else "s"
