"""Records → one self-contained HTML page: `fedecho report DIR…`.

facts    what is read of a run's events          study    methods, what came out, in words
figures  data → plotly's dictionaries            tables   one content: page, Markdown, LaTeX
page     all of it → HTML, with page.css and page.js
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core.errors import RecordError
from .data import collect
from .page import page

__all__ = ["write_report"]


def write_report(
    paths: Sequence[str | Path], out: str | Path | None = None, title: str | None = None, target: float | None = None
) -> Path:
    """Make the page of the runs in `paths`, finished or not.

    Args:
        paths: run folders, or folders that hold some, as a comparison's.
        out: the file to write; by default report.html in the first folder.
        title: the page's; by default the experiment's name.
        target: the accuracy, in (0, 1), whose time is told.

    Returns:
        The file.

    Raises:
        RecordError: where there is no run, one cannot be read, or the file cannot be written.
        MissingExtra: without plotly.
    """
    text = page(collect(paths, target), title)
    file = Path(out) if out is not None else Path(paths[0]) / "report.html"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as fault:
        raise RecordError(f"{file} cannot be written ({fault.strerror}); give another file with -o") from None
    return file
