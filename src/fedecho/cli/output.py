"""Writing on standard output."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH = 80
"""Columns of a terminal that tables fit into."""


UNKNOWN = "–"
"""The cell of a number that is not known."""


def print_json(document: Mapping[str, Any]) -> None:
    """One JSON document. JSON has no NaN and no infinity: these are written as null."""
    print(json.dumps(_finite(document), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def blocks(header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[Sequence[str]] = ()) -> list[str]:
    """A table as lines of at most `WIDTH` columns: where it is wider, its columns come in blocks one below the other,
    each with the first column.

    Args:
        header: the heading of every column.
        rows: the cells of every row; columns in which no row has more than `UNKNOWN` are left out.
        notes: for each row, lines that stand below it in the first block.
    """
    widths = [max(len(cells[column]) for cells in (header, *rows)) for column in range(len(header))]
    groups: list[list[int]] = [[]]
    for column, width in enumerate(widths[1:], start=1):
        if all(cells[column] == UNKNOWN for cells in rows):
            continue
        if groups[-1] and sum(widths[place] + 2 for place in groups[-1]) + widths[0] + 2 + width > WIDTH:
            groups.append([])
        groups[-1].append(column)
    lines: list[str] = []
    for number, group in enumerate(groups):
        if number:
            lines.append("")
        for place, cells in enumerate((header, *rows)):
            lines.append("  ".join(f"{cells[column]:{widths[column]}}" for column in (0, *group)).rstrip())
            if number == 0 and place and place <= len(notes):
                lines += [f"{'':{widths[0]}}  {note}" for note in notes[place - 1]]
    return lines
