"""Names that a configuration may get wrong: suggestions for misspelt ones, and where renamed ones went."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

RENAMED = {
    "refine": "stages",
    "server.refine_s": "stage_s",
    "algorithm.buffer_size": "window",  # of fedfa: k is not M
}
"""Tables and settings of earlier versions, and their names now."""


def suggestion(name: str, known: Iterable[str], table: str = "") -> str:
    """ " (did you mean 'lr'?)" for a name that is not known, or nothing where none is near.

    Args:
        name: of a table, a setting of `table`, or a part.
        known: the names there are.
        table: the table's name, for a setting.
    """
    known = list(known)
    new_name = RENAMED.get(f"{table}.{name}" if table else name)
    close = [new_name] if new_name in known else difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
