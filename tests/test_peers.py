"""The comparison with other simulators: what its table makes of what drivers tell."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
PEERS = runpy.run_path(str(BENCHMARKS / "peers.py"))


def told(wall_s: float, cpu_s: float, steps: int = 1200) -> dict[str, Any]:
    return {"jobs": 60, "steps": steps, "wall_s": wall_s, "cpu_s": cpu_s, "accuracy": 0.5}


def test_ratios_are_of_pairs() -> None:
    """Not of medians: ours doubles its time in the second pair, as the machine slows down, and so does the peer."""
    pairs = [(told(1.0, 1.0), told(3.0, 2.0)), (told(2.0, 2.0), told(6.0, 4.0)), (told(1.0, 1.0), told(4.0, 2.5))]
    row = PEERS["table"]({"flgo": pairs}, 60).splitlines()[-1]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:] == ["3.00 (3.00 to 4.00)", "2.00 (2.00 to 2.50)", "4.00", "2.50", "0.50", "3"]


def test_unequal_work_is_not_compared() -> None:
    with pytest.raises(ValueError, match="flgo: 60 jobs and 1199 steps; comparable are 60 and 1200"):
        PEERS["table"]({"flgo": [(told(1.0, 1.0), told(3.0, 2.0, steps=1199))]}, 60)


@pytest.mark.parametrize("name", PEERS["PEERS"])
def test_every_driver_reads_the_same_work_and_no_other_data(name: str) -> None:
    path = BENCHMARKS / "peers" / PEERS["PEERS"][name].driver
    tree = ast.parse(path.read_text(encoding="utf-8"))
    taken = {a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "work" for a in n.names}
    assert "Work" in taken
    assert "datasets" not in path.read_text(encoding="utf-8")


def test_versions_are_pinned() -> None:
    for peer in PEERS["PEERS"].values():
        assert all("==" in package for package in peer.packages), peer.title
