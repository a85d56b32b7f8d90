"""Words and numbers: how the page writes them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

NBSP = "\u00a0"
"""A space at which no line breaks: it stands between a number and its unit."""


def visible(text: str) -> str:
    """The text without characters that would reorder or hide what stands beside them.

    Control characters, format characters such as U+202E (right-to-left override) and lone surrogates become their code
    point in brackets. Line ends and tabs stay.
    """
    return "".join(
        f"[U+{ord(sign):04X}]" if unicodedata.category(sign) in ("Cc", "Cf", "Cs") and sign not in "\n\t" else sign
        for sign in text
    )


def plural(count: int) -> str:
    return "" if count == 1 else "s"


def listed(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def number(value: float | None, decimals: int, *, scale: float = 1.0, sign: bool = False) -> str:
    """A number with a true minus sign and thousands separated; "–" for None and NaN."""
    if value is None or math.isnan(value):
        return "–"
    return f"{scale * value:{'+' if sign else ''},.{decimals}f}".replace("-", "−")


def plus_minus(
    mean: float | None, half_width: float | None, decimals: int, *, scale: float = 1.0, sign: bool = False
) -> str:
    """ "97.8 ± 0.3" in one piece; the mean alone where there is no interval."""
    text = number(mean, decimals, scale=scale, sign=sign)
    if mean is None or half_width is None:
        return text
    return f"{text}{NBSP}±{NBSP}{number(half_width, decimals, scale=scale)}"


def with_unit(text: str, unit: str) -> str:
    """A number and its unit in one piece."""
    return f"{text}{NBSP}{unit}" if unit else text
