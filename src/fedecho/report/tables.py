"""Tables: one content, four dresses (the page's, Markdown, LaTeX, plain)."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..studies.summary import Spread


@dataclass(frozen=True)
class Cell:
    """Text, and how it is stressed: "best", "good", "bad", "soft", or "" for plain."""

    text: str
    stress: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under a header; the first column names the row.

    Attributes:
        id: in the page.
        about: its caption.
        header: a name a column.
        rows: as wide as the header.
        text_columns: columns that are no numbers, besides the first.
        looks: the methods' places, for rows that are methods: their first cell gets the method's mark.
    """

    id: str
    about: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    text_columns: frozenset[int] = frozenset()
    looks: dict[str, int] = field(default_factory=dict)

    def html(self) -> str:
        def kind(column: int, *more: str) -> str:
            names = " ".join(filter(None, [*more, "text" if column in self.text_columns else ""]))
            return f' class="{names}"' if names else ""

        head = "".join(
            f'<th scope="col"{kind(column)}>{html.escape(name)}</th>' for column, name in enumerate(self.header)
        )
        body = []
        for row in self.rows:
            name = html.escape(row[0].text)
            if row[0].text in self.looks:
                name = f'<span class="dot m{self.looks[row[0].text] % 8}" aria-hidden="true"></span>{name}'
            cells = [f'<th scope="row">{name}</th>']
            for column, cell in enumerate(row[1:], 1):
                cells.append(f"<td{kind(column, cell.stress)}>{html.escape(cell.text)}</td>")
            body.append(f"<tr>{''.join(cells)}</tr>")
        return (
            f'<div class="scroll" role="region" tabindex="0" aria-label="{html.escape(self.about, quote=True)}">'
            f'<table id="{self.id}"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
        )

    def markdown(self) -> str:
        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

        marks = ["---" if column == 0 or column in self.text_columns else "---:" for column in range(len(self.header))]
        rows = [[f"**{c.text}**" if c.stress == "best" else c.text for c in row] for row in self.rows]
        return "\n".join([line(self.header), line(marks), *map(line, rows)]) + "\n"

    def latex(self) -> str:
        """A tabular; it needs the package booktabs."""
        columns = "".join(
            "l" if column == 0 or column in self.text_columns else "r" for column in range(len(self.header))
        )
        lines = [f"% {self.about}", f"\\begin{{tabular}}{{{columns}}}", "\\toprule"]
        lines += [" & ".join(_tex(name) for name in self.header) + r" \\", "\\midrule"]
        for row in self.rows:
            cells = [f"\\textbf{{{_tex(cell.text)}}}" if cell.stress == "best" else _tex(cell.text) for cell in row]
            lines.append(" & ".join(cells) + r" \\")
        return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


_SIGNS = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{sign: f"${sign}$" for sign in "<>|"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "≈": r"$\approx$",
    "▲": r"$\blacktriangle$",
    "▼": r"$\blacktriangledown$",
    "α": r"$\alpha$",
}


def _tex(text: str) -> str:
    return "".join(_SIGNS.get(sign, sign) for sign in text)


def digits(spreads: Sequence[Spread | None], scale: float = 1.0) -> int:
    """Digits after the point that a column deserves: no more than its smallest standard deviation can bear."""
    smallest = min((scale * spread.std for spread in spreads if spread is not None and spread.std > 0), default=1.0)
    return 1 if smallest >= 0.1 else 2


def plus_minus(spread: Spread | None, places: int, scale: float = 1.0) -> str:
    if spread is None:
        return "–"
    mean = f"{scale * spread.mean:,.{places}f}".replace("-", "−")
    return f"{mean} ± {scale * spread.std:,.{places}f}" if spread.n > 1 else mean
