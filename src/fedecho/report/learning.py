"""The sections of learning curves and continuations."""

from __future__ import annotations

from collections.abc import Mapping

from ..studies.runs import Run
from .background import count_of
from .components import Parts, card, figure, grid, section, switch
from .curves import Bundle, curves
from .data import ReportData
from .results import MEASURES
from .style import Figure, MethodStyle, unit_of
from .tables import Cell, Table


def _bundles(study: ReportData, x: str, y: str, scale: float = 1.0) -> list[Bundle]:
    def line(run: Run) -> list[tuple[float, float]]:
        return [(row[x] / scale, row[y]) for row in run.metrics if row.get(y) is not None and row[y] < 1e6]

    return [
        Bundle(
            method.label,
            {run.seed: found for run in method.runs if (found := line(run))},
            frozenset(run.seed for run in method.finished),
        )
        for method in study.methods
    ]


def learning(study: ReportData, looks: Mapping[str, MethodStyle], parts: Parts) -> str:
    ends = [run.metrics[-1]["virtual_time_s"] for run in study.runs if run.metrics]
    length, unit = unit_of(max(ends, default=0.0))
    there = [name for name in MEASURES if any(row.get(name) is not None for run in study.runs for row in run.metrics)]
    if not there:
        return ""

    def variants(x: str, scale: float, axis: str) -> dict[str, Figure]:
        return {
            name: curves(
                _bundles(study, x, name, scale), looks, axis, MEASURES[name].lower() + ", nats" * ("loss" in name),
                percent="accuracy" in name, log="perplexity" in name,
            )
            for name in there
        }  # fmt: skip

    parts.figures["time"] = variants("virtual_time_s", length, f"{study.clock}, {unit}")
    parts.figures["updates"] = variants("updates", 1.0, "accepted updates")
    picks = {name: MEASURES[name] for name in there}
    seeds = "Line: mean over seeds; band: one standard deviation; thin lines: single seeds. " if count_of(study) else ""
    first, better = MEASURES[there[0]], "Higher" if "accuracy" in there[0] else "Lower"
    content = switch("measure", picks, "time updates", titles=True) + grid(
        [
            figure(
                "time",
                f"{first} over {study.clock}",
                f"{seeds}{better} at the same time is faster for whoever waits.",
                after=f" over {study.clock}",
            ),
            figure(
                "updates",
                f"{first} over updates",
                f"{seeds}{better} at the same number of updates makes more of each.",
                after=" over updates",
            ),
        ]
    )
    kinds = " and ".join(sorted({"live" if run.live else "simulated" for run in study.runs}))
    about = f"The same runs twice: by the clock of the {kinds} federation, and by the work that clients delivered."
    return section("learning", "Learning", about, content)


MOST_TEXTS = 4
"""Of a run's evaluations, how many show what the model writes."""


def continuations(study: ReportData, looks: Mapping[str, MethodStyle], parts: Parts) -> str:
    """What a language model makes of a few beginnings, as it learns."""
    placed: list[tuple[int, list[Cell]]] = []
    seeds = set()
    for method in study.methods:
        said = next(
            ((run, texts) for run, f in zip(method.runs, method.events, strict=True) if (texts := f.texts)), None
        )
        if said is None:
            continue
        run, texts = said
        seeds.add(run.seed)
        ends = list(dict.fromkeys(at_s for at_s, _, _ in texts))
        last = len(ends) - 1
        picked = {ends[round(place * last / max(1, MOST_TEXTS - 1))] for place in range(MOST_TEXTS)}
        for place, prompt in enumerate(dict.fromkeys(prompt for _, prompt, _ in texts)):
            placed += [
                (place, [Cell(method.label), Cell(f"{at_s:,.0f}"), Cell(_shown(prompt)), Cell(_shown(text))])
                for at_s, start, text in texts
                if start == prompt and at_s in picked
            ]
    if not placed:
        return ""
    rows = [row for _, row in sorted(placed, key=lambda pair: pair[0])]  # a beginning's of all methods together
    header = ["method", study.unit, "beginning", "continued by the model"]
    places = {label: look.place for label, look in looks.items()}
    table = Table("t-continuations", "What the model writes", header, rows, frozenset({2, 3}), places)
    note = f"Beginnings of test texts, continued by the server's model. Seed {', '.join(map(str, sorted(seeds)))}."
    about = f"The same beginnings at several times: how the text gets better over {study.clock}."
    return section("texts", "Continuations", about, card(table, parts, note, "texts"))


def _shown(text: str) -> str:
    """A text on one line, its line ends visible."""
    return " ⏎ ".join(" ".join(line.split()) for line in text.strip().splitlines() if line.strip())
