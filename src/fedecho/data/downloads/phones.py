"""Frame rates of phones and tablets: the benchmarks of detect-gpu."""

from __future__ import annotations

from ..archive import Archive

ARCHIVE = Archive(
    "npm",
    "detect-gpu@5.0.70",
    "edbfe85e6606ea24fc493476c248d8161a67a31fe88e701447dc964fa936d4ec",
    r"package/dist/benchmarks/m-[a-z-]+\.json",
    9,
    name="phones",
)
