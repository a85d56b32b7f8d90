"""Tables: one content, written for the page (by its template), as Markdown, as LaTeX and as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from .text import NBSP, visible


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
        title: its caption.
        header: a name a column.
        rows: as wide as the header.
        text_columns: columns that are no numbers, besides the first.
        note: what a reader needs to know, under it.
        styles: the methods' places, for rows that are methods: their first cell gets the method's mark.
    """

    id: str
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    text_columns: frozenset[int] = frozenset()
    note: str = ""
    styles: dict[str, int] = field(default_factory=dict)

    def markdown(self) -> str:
        def line(cells: Sequence[str]) -> str:
            texts = [" ".join(visible(cell).replace(NBSP, " ").split()) for cell in cells]
            return "| " + " | ".join(_MARKDOWN_SIGNS.sub(r"\\\g<0>", text) for text in texts) + " |"

        marks = ["---" if column == 0 or column in self.text_columns else "---:" for column in range(len(self.header))]
        rows = [[f"**{c.text}**" if c.stress == "best" else c.text for c in row] for row in self.rows]
        return "\n".join([line(self.header), line(marks), *map(line, rows)]) + "\n"

    def latex(self) -> str:
        """A tabular; it needs the package booktabs."""
        columns = "".join(
            "l" if column == 0 or column in self.text_columns else "r" for column in range(len(self.header))
        )
        lines = [f"% {_comment(self.title)}", f"\\begin{{tabular}}{{{columns}}}", "\\toprule"]
        lines += [" & ".join(_tex(name) for name in self.header) + r" \\", "\\midrule"]
        for row in self.rows:
            cells = [f"\\textbf{{{_tex(cell.text)}}}" if cell.stress == "best" else _tex(cell.text) for cell in row]
            lines.append(" & ".join(cells) + r" \\")
        return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"

    def csv(self) -> str:
        """Comma-separated values. A text that a spreadsheet would run as a formula gets an apostrophe before it."""
        output = io.StringIO()
        writer = csv.writer(output, lineterminator="\n")
        writer.writerow([_cell(name) for name in self.header])
        writer.writerows([[_cell(cell.text) for cell in row] for row in self.rows])
        return output.getvalue()


_NUMBER = re.compile(r"[+-]?[\d.,]+(e[+-]?\d+)?( ± [\d.,]+)?( [^=+@-]*)?")


def _cell(text: str) -> str:
    text = visible(text).replace(NBSP, " ").replace("−", "-")
    formula = text[:1] in ("=", "+", "-", "@", "\t") and len(text) > 1 and not _NUMBER.fullmatch(text)
    return f"'{text}" if formula else text


def _comment(text: str) -> str:
    return " ".join(visible(text).split())


_MARKDOWN_SIGNS = re.compile(r"[|<>`\\]")

_SIGNS = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{sign: f"${sign}$" for sign in "<>|"},
    NBSP: "~",
    "\n": " ",
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
    return "".join(_SIGNS.get(sign, sign) for sign in visible(text))
