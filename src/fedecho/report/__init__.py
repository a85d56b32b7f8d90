"""Records → one self-contained HTML page: `fedecho report DIR…`.

data        groups of comparable runs, their methods         events, jobs, clients   read from a run's records
comparison  intervals, paired differences, verdicts          metrics, text           how values are written
settings    what differs                                     headline, remarks       in words
figures, curves, timelines   data → plotly's dictionaries    tables                  Markdown, LaTeX, CSV
sections/   a group → figures and tables                     page, templates/        all of it → HTML
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
    """Write the page of the runs in `paths`, finished or not.

    Args:
        paths: run folders, or folders that hold some, as a comparison's.
        out: the file to write; by default report.html in the first folder.
        title: of the page; by default the experiment's name.
        target: the value of the judged metric whose time is reported: a share in (0, 1), such as an accuracy of 0.9, or
            any finite value of a metric that is no share. By default 5 % short of the best method's mean.

    Returns:
        The file.

    Raises:
        ConfigError: for a target that no judged metric can have.
        RecordError: where there is no run, one cannot be read, or the file cannot be written.
        MissingExtra: without plotly or jinja2.
    """
    text = page(collect(paths, target), title)
    file = Path(out) if out is not None else Path(paths[0]) / "report.html"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", errors="replace")
    except OSError as fault:
        raise RecordError(f"{file} cannot be written ({fault.strerror}); give another file with -o") from None
    return file
