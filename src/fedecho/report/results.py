"""The section of results: the table and its paired differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ..studies.summary import Row, Spread
from .components import Parts, card, escaped, section
from .data import ReportData
from .style import MethodStyle
from .tables import Cell, Table, digits, plus_minus

MEASURES = {
    "perplexity": "Perplexity",
    "slow_client_perplexity": "Perplexity, slow clients",
    "fast_client_perplexity": "Perplexity, fast clients",
    "accuracy": "Accuracy",
    "slow_client_accuracy": "Accuracy, slow clients",
    "fast_client_accuracy": "Accuracy, fast clients",
    "loss": "Loss",
    "train_loss": "Clients' training loss",
}
"""What the first two figures can show; of a language model its perplexity first."""


def results(study: ReportData, looks: Mapping[str, MethodStyle], parts: Parts) -> str:
    if not study.ranked:
        return ""
    places = {method.label: look.place for method, look in zip(study.methods, looks.values(), strict=True)}
    tiles = []
    for method, final in study.ranked[:6]:
        about = f"best {100 * method.row.best.mean:.1f}" if method.row.best else ""
        if method.row.slow is not None:
            about += f" · slow clients {100 * method.row.slow.mean:.1f}"
        spread = f" <small>± {100 * final.std:.1f} %</small>" if final.n > 1 else " <small>%</small>"
        tiles.append(
            f'<li class="tile" style="border-top-color: var(--m{looks[method.label].place % 8})">'
            f"<b>{escaped(method.label)}</b>"
            f'<div class="big">{100 * final.mean:.1f}{spread}</div><span>{escaped(about)}</span></li>'
        )
    text = f'<ul class="tiles">{"".join(tiles)}</ul>'
    text += card(_comparison(study, places), parts, _comparison_note(study))
    about = (
        "Final accuracy: the mean of a run's last five evaluations; mean ± sample standard deviation over seeds, in "
        "percent."
    )
    return section("results", "Results", about, text)


def details(study: ReportData, looks: Mapping[str, MethodStyle], parts: Parts) -> str:
    if not study.ranked:
        return ""
    places = {label: look.place for label, look in looks.items()}
    target, text = f"{100 * study.table.target:g} %", ""
    text += card(
        _cost(study, places),
        parts,
        f"To {target}: at the first evaluation that reaches it, over the seeds that do (how many, where not all). "
        f"Seconds and memory are of the machine that {study.host}; the server's: predictions on U, distillation, "
        "aggregation.",
    )
    if len(study.ranked) > 2:
        text += card(
            _pairs(study, places),
            parts,
            "Row minus column, in points of final accuracy: mean ± standard error over the seeds that both have. "
            "▲ ahead, ▼ behind, ≈ a tie: below two standard errors.",
        )
    about = "How soon each method was good, what that took, and what the differences are worth."
    return section("detail", "In detail", about, text)


@dataclass(frozen=True)
class Column:
    """A number of every row: `wanted` says which is best ("high", "low", or "" for neither), `places` its digits."""

    name: str
    value: Callable[[Row], Spread | None]
    scale: float = 1.0
    wanted: str = ""
    places: int | None = None
    of_target: bool = False


def _numbers(table_id: str, about: str, rows: list[Row], columns: list[Column], looks: dict[str, int]) -> Table:
    """Methods × columns; columns that no method has are left out, the best mean of several is stressed."""
    columns = [column for column in columns if any(column.value(row) for row in rows)]
    cells: list[list[Cell]] = [[Cell(row.label)] for row in rows]
    for column in columns:
        spreads = [column.value(row) for row in rows]
        places = digits(spreads, column.scale) if column.places is None else column.places
        means = [spread.mean for spread in spreads if spread is not None]
        top = max(means) if column.wanted == "high" else min(means)
        for line, row, spread in zip(cells, rows, spreads, strict=True):
            text = plus_minus(spread, places, column.scale)
            n = row.final.n if row.final is not None else 0
            partly = column.of_target and row.reached < n
            best = len(rows) > 1 and column.wanted and spread is not None and spread.mean == top and not partly
            line.append(Cell(f"{text} ({row.reached} of {n})" if partly else text, "best" if best else ""))
    return Table(table_id, about, ["method", *(column.name for column in columns)], cells, looks=looks)


def _comparison(study: ReportData, places: dict[str, int]) -> Table:
    rows = [method.row for method in study.methods if method.row.final is not None]
    columns = [
        Column("final accuracy, %", lambda row: row.final, 100.0, "high"),
        Column("best, %", lambda row: row.best, 100.0, "high"),
        Column("slow clients, %", lambda row: row.slow, 100.0, "high"),
        Column("fast clients, %", lambda row: row.fast, 100.0, "high"),
        Column("mean over time, %", lambda row: row.area, 100.0, "high"),
        Column("perplexity", lambda row: row.perplexity, 1.0, "low"),
        Column("slow clients' perplexity", lambda row: row.slow_perplexity, 1.0, "low"),
        Column("fast clients' perplexity", lambda row: row.fast_perplexity, 1.0, "low"),
    ]
    made = _numbers("t-comparison", "Comparison" if len(rows) > 1 else "Accuracy", rows, columns, places)
    if len(rows) < 2:
        return made
    reference = study.table.reference
    cells = []
    for line, row in zip(made.rows, rows, strict=True):  # next to what they judge
        stress = {"ahead": "good", "behind": "bad"}.get(row.verdict, "soft")
        name = row.verdict or ("reference" if row.label == reference else "–")
        cells.append(
            [*line[:2], Cell("–" if row.difference is None else _gap(row.difference)), Cell(name, stress), *line[2:]]
        )
    header = [*made.header[:2], f"points to {reference}", "verdict", *made.header[2:]]
    text = {3}
    if any(row.perplexity_difference is not None for row in rows):
        for line, row in zip(cells, rows, strict=True):
            line += _perplexity_gap(row, reference)
        text.add(len(header) + 1)
        header += [f"perplexity to {reference}", "verdict, perplexity"]
    return replace(made, header=header, rows=cells, text_columns=frozenset(text))


def _perplexity_gap(row: Row, reference: str) -> list[Cell]:
    """The difference in perplexity to the reference's, and what it is worth."""
    gap = row.perplexity_difference
    if gap is None:
        return [Cell("–"), Cell("reference" if row.label == reference else "–", "soft")]
    error = f" ± {gap.standard_error:.2f}" if gap.n > 1 else ""
    verdict = gap.judged(lower=True)
    stress = {"ahead": "good", "behind": "bad"}.get(verdict, "soft")
    return [Cell(f"{gap.mean:+.2f}{error}".replace("-", "−")), Cell(verdict, stress)]


def _comparison_note(study: ReportData) -> str:
    told = [
        "Mean over time: the area under the accuracy curve up to "
        f"{study.table.until_s:,.0f} {study.seconds}, divided by that time."
    ]
    if any(method.row.slow or method.row.fast for method in study.methods):
        told.insert(0, f"Slow and fast clients: {study.theirs}.")
    if study.language:
        told.append(
            "Accuracy: of the next token. Perplexity: exp of the mean cross-entropy of a token; lower is better."
        )
    if len(study.ranked) > 1:
        told.append(
            f"Bold: the best mean. Points to {study.table.reference}: the difference in final accuracy, paired by "
            "seed, mean ± standard error; below two standard errors it is a tie."
        )
    return " ".join(told)


def _cost(study: ReportData, places: dict[str, int]) -> Table:
    rows = [method.row for method in study.methods if method.row.final is not None]
    target, reference = f"{100 * study.table.target:g} %", study.table.reference
    columns = [
        Column(f"{study.unit} to {target}", lambda row: row.target_s, 1.0, "low", of_target=True),
        Column(f"{study.unit} minus {reference}'s", lambda row: row.target_s_difference),
        Column(f"updates to {target}", lambda row: row.target_updates, 1.0, "low", 0, True),
        Column("seconds a run", lambda row: row.wall),
        Column("of these the server's", lambda row: row.server),
        Column("peak memory, MiB", lambda row: row.memory, places=0),
    ]
    return _numbers("t-cost", "Speed and cost", rows, columns, places)


def _gap(gap: Spread) -> str:
    places = 1 if gap.n < 2 or gap.standard_error >= 0.0005 else 2
    text = f"{100 * gap.mean:+.{places}f}".replace("-", "−")
    return f"{text} ± {100 * gap.standard_error:.{places}f}" if gap.n > 1 else text


def _pairs(study: ReportData, places: dict[str, int]) -> Table:
    methods = [method for method, _ in study.ranked]
    signs = {"ahead": ("▲", "good"), "behind": ("▼", "bad"), "tie": ("≈", "soft"), "one seed": ("", "soft")}
    rows = []
    for one in methods:
        cells = [Cell(one.label)]
        for other in methods:
            gap = study.difference(one, other)
            sign, stress = signs[gap.verdict] if gap else ("–", "soft")
            cells.append(Cell(f"{_gap(gap)} {sign}".strip() if gap else sign, stress))
        rows.append(cells)
    return Table("t-pairs", "Every pair", ["", *(m.label for m in methods)], rows, looks=places)
