"""The sections of results: final values, paired differences and verdicts, speed and cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...objectives.base import Metric
from ...studies.curves import reached
from ...studies.statistics import FEWEST, MeanInterval
from .. import metrics
from ..comparison import LEVEL, Judged, every_pair, interval, mean_over_time, to_reference
from ..components import Section, TableCard, Tile, Tiles
from ..data import Group, Method
from ..tables import Cell, Table
from ..text import NBSP, plus_minus

STRESS = {"ahead": "good", "behind": "bad"}
SIGNS = {"ahead": "▲", "behind": "▼", "tie": "≈"}
INTERVAL = f"mean ± half-width of the {LEVEL}{NBSP}% interval over seeds (Student's t)"
MOST_TILES = 6


def results(group: Group, prefix: str) -> Section | None:
    """Final values by every metric, the judged one first, the others folded."""
    metric = group.judged
    if not group.ranked or metric is None:
        return None
    blocks: list[Tiles | TableCard] = [Tiles([_tile(method, metric) for method in group.ranked[:MOST_TILES]])]
    for place, one in enumerate(group.metrics):
        table = _comparison(group, one, f"{prefix}t-{one.name}")
        if table is not None:
            blocks.append(TableCard(table, folded=place > 0))
    about = f"Final values are the mean of a run's last {_averaged(group)}, without the untrained model: {INTERVAL}."
    return Section(f"{prefix}results", "Results", about, blocks)


def _averaged(group: Group) -> str:
    """How many evaluations the final values are means of."""
    counts = sorted(
        {
            measured.averaged
            for method in group.methods
            for result in method.results.values()
            if (measured := result.judged) is not None and measured.averaged
        }
    )
    if counts in ([], [1]):
        return "evaluation"
    return f"{counts[0]}{f' to {counts[-1]}' if len(counts) > 1 else ''} evaluations"


def _tile(method: Method, metric: Metric) -> Tile:
    values = interval(list(method.values(metric).values()))
    assert values is not None
    places, factor = metrics.decimals(metric, [values.half_width]), metrics.scale(metric)
    about = []
    for text, name in (("best", "best"), ("slow clients", "slow_clients")):
        if one := interval(list(method.values(metric, name).values())):
            about.append(f"{text}{NBSP}{plus_minus(one.mean, None, places, scale=factor)}")
    whole = plus_minus(values.mean, values.half_width, places, scale=factor)
    mean, _, rest = whole.partition(NBSP)
    unit = metrics.unit(metric)
    return Tile(method.label, method.style.place, mean, f"{rest}{NBSP}{unit}".strip(NBSP), " · ".join(about))


@dataclass(frozen=True)
class Column:
    """A number of every method.

    Attributes:
        name: its heading.
        value: of a method, with its interval; None where it has none.
        scale: what it is multiplied by.
        best: "high" or "low" where the best mean is set in bold.
    """

    name: str
    value: Callable[[Method], MeanInterval | None]
    scale: float = 1.0
    best: str = ""


def _with_columns(
    methods: Sequence[Method], columns: Sequence[Column], places: Callable[[Sequence[float | None]], int]
) -> tuple[list[str], list[list[Cell]], int]:
    """Headings, rows and the digits of the whole table, which `places` takes from the half-widths of all intervals. A
    column that no method has is left out."""
    values = {column.name: [column.value(method) for method in methods] for column in columns}
    columns = [column for column in columns if any(values[column.name])]
    widths = [one.half_width for column in columns for one in values[column.name] if one is not None]
    digits = places(widths)
    rows = [[Cell(method.label)] for method in methods]
    for column in columns:
        known = [one.mean for one in values[column.name] if one is not None]
        best = {"high": max, "low": min}.get(column.best)
        for row, one in zip(rows, values[column.name], strict=True):
            text = plus_minus(one.mean, one.half_width, digits, scale=column.scale) if one is not None else "–"
            stressed = best is not None and len(methods) > 1 and one is not None and one.mean == best(known)
            row.append(Cell(text, "best" if stressed else ""))
    return ["method", *(column.name for column in columns)], rows, digits


def _comparison(group: Group, metric: Metric, table_id: str) -> Table | None:
    methods = [method for method in group.methods if method.values(metric)]
    if not methods:
        return None

    def final(name: str) -> Callable[[Method], MeanInterval | None]:
        return lambda method: interval(list(method.values(metric, name).values()))

    factor, best = metrics.scale(metric), "high" if metric.higher_is_better else "low"
    columns = [
        Column(metrics.column(metric, f"final {metric.label}"), final("last_5_mean"), factor, best),
        Column(metrics.column(metric, "last"), final("last"), factor, best),
        Column(metrics.column(metric, "best"), final("best"), factor, best),
        Column(metrics.column(metric, "slow clients"), final("slow_clients"), factor, best),
        Column(metrics.column(metric, "fast clients"), final("fast_clients"), factor, best),
    ]
    if metric.axis == "linear":
        columns.append(
            Column(
                metrics.column(metric, "mean over time"),
                lambda method: mean_over_time(method, metric, group.until_s),
                factor,
                best,
            )
        )
    reference = group.ranked[0]
    judged = to_reference(group, reference, metric)
    differences = [one.difference.half_width for one in judged.values()]
    header, rows, digits = _with_columns(
        methods, columns, lambda widths: metrics.decimals(metric, [*widths, *differences])
    )
    text_columns: frozenset[int] = frozenset()
    if len(methods) > 1:
        unit = "points" if metric.share else metric.label
        header = [*header[:2], f"{unit} to {reference.label}", "verdict", *header[2:]]
        rows = [
            [*row[:2], *_difference_cells(method, reference, judged, metric, digits), *row[2:]]
            for method, row in zip(methods, rows, strict=True)
        ]
        text_columns = frozenset({3})
    title = metrics.title(metric)
    styles = {method.label: method.style.place for method in methods}
    return Table(table_id, title, header, rows, text_columns, _comparison_note(group, metric, methods), styles)


def _difference_cells(
    method: Method, reference: Method, judged: dict[str, Judged], metric: Metric, digits: int
) -> list[Cell]:
    """The difference to the reference, and the verdict."""
    if method.label == reference.label:
        return [Cell("–"), Cell("reference", "soft")]
    one = judged.get(method.label)
    if one is None:
        reason = "failed" if method.failed(metric) else "no seed in common"
        return [Cell("–"), Cell(reason, "soft")]
    return [Cell(_difference(one, metric, digits)), Cell(one.verdict, STRESS.get(one.verdict, "soft"))]


def _difference(judged: Judged, metric: Metric, digits: int) -> str:
    gap = judged.difference
    return plus_minus(gap.mean, gap.half_width, digits, scale=metrics.scale(metric), sign=True)


def _comparison_note(group: Group, metric: Metric, methods: Sequence[Method]) -> str:
    sentences = []
    if metric.definition:
        direction = "higher" if metric.higher_is_better else "lower"
        sentences.append(f"{metrics.title(metric)}: {metric.definition}; {direction} is better.")
    if any(method.values(metric, "slow_clients") for method in methods):
        sentences.append(f"Slow and fast clients: {group.client_data}.")
    if metric.axis == "linear":
        sentences.append(
            f"Mean over time: the area under the curve up to {group.until_s:,.0f}{NBSP}{group.seconds}, divided by "
            "that time."
        )
    if len(methods) > 1:
        sentences.append(f"Bold: the best mean. {verdict_note(len(methods) - 1)}")
    return " ".join(sentences)


def verdict_note(comparisons: int) -> str:
    """How verdicts are decided."""
    many = f", corrected for {comparisons} comparisons (Holm)" if comparisons > 1 else ""
    return (
        f"Differences are paired by seed: mean ± half-width of the {LEVEL}{NBSP}% interval. A verdict is Student's t "
        f"test on them at {LEVEL}{NBSP}%{many}; below {FEWEST} seeds there is none."
    )


# -- in detail


def details(group: Group, prefix: str) -> Section | None:
    """Speed and cost, and every pair of methods."""
    metric = group.judged
    if not group.ranked or metric is None:
        return None
    blocks = [TableCard(_cost(group, metric, f"{prefix}t-cost"))]
    if len(group.ranked) > 2:
        for place, one in enumerate(group.metrics):
            table = _pairs(group, one, f"{prefix}t-pairs-{one.name}")
            if table is not None:
                blocks.append(TableCard(table, folded=place > 0))
    about = "How soon each method was good, what that took, and what the differences are worth."
    return Section(f"{prefix}detail", "In detail", about, blocks)


def _cost(group: Group, metric: Metric, table_id: str) -> Table:
    methods = [method for method in group.methods if method.values(metric)]

    def of_results(name: str) -> Callable[[Method], MeanInterval | None]:
        return lambda method: interval([float(getattr(r, name)) for r in method.results.values()])

    def server_s(method: Method) -> MeanInterval | None:
        kinds = ("infer_s", "distill_s", "aggregate_s")
        return interval([sum(r.server_s.get(k, 0.0) for k in kinds) for r in method.results.values()])

    columns = [
        Column("seconds per run", of_results("wall_s")),
        Column("of these the server's", server_s),
        Column(f"peak memory,{NBSP}MiB", of_results("peak_memory_mb")),
    ]
    header, rows, _ = _with_columns(methods, columns, lambda widths: 1)
    note = (
        f"{INTERVAL[:1].upper()}{INTERVAL[1:]}. Seconds and memory are of the machine that {group.host}; the server's: "
        "predictions on U, distillation, aggregation."
    )
    target = group.target
    if target is not None:
        goal = metrics.value(metric, target).replace(".0", "") if metric.share else f"{metric.label} {target:g}"
        cells = [_time_to(method, metric, target) for method in methods]
        seconds = "s" if group.live else "virtual s"
        header = [*header[:1], f"{seconds} to {goal}", f"updates to {goal}", *header[1:]]
        rows = [[*row[:1], *to, *row[1:]] for row, to in zip(rows, cells, strict=True)]
        note = f"To {goal}: at the first evaluation that reaches it, over the seeds that do. {note}"
    styles = {method.label: method.style.place for method in methods}
    return Table(table_id, "Speed and cost", header, rows, frozenset(), note, styles)


def _time_to(method: Method, metric: Metric, target: float) -> list[Cell]:
    """Seconds and updates until the target, and how many seeds reach it where not all do."""
    arrivals = [at for run in method.finished if (at := reached(run.metrics, target, metric)) is not None]
    seeds = len(method.values(metric))
    partly = f" ({len(arrivals)} of {seeds})" if len(arrivals) < seeds else ""
    if not arrivals:
        return [Cell(f"never{partly}"), Cell(f"never{partly}")]
    cells = []
    for place in (1, 0):
        one = interval([float(arrival[place]) for arrival in arrivals])
        assert one is not None
        cells.append(Cell(plus_minus(one.mean, one.half_width, 1) + partly))
    return cells


def _pairs(group: Group, metric: Metric, table_id: str) -> Table | None:
    methods = [method for method in group.ranked if method.values(metric)]
    if len(methods) < 3:
        return None
    judged = every_pair(group, metric)
    digits = metrics.decimals(metric, [one.difference.half_width for one in judged.values()])
    rows = []
    for one in methods:
        cells = [Cell(one.label)]
        for other in methods:
            pair = judged.get((one.label, other.label))
            if pair is None:
                cells.append(Cell("–", "soft"))
            else:
                text = f"{_difference(pair, metric, digits)}{NBSP}{SIGNS.get(pair.verdict, '')}".rstrip(NBSP)
                cells.append(Cell(text, STRESS.get(pair.verdict, "soft")))
        rows.append(cells)
    unit = "points of " if metric.share else ""
    note = (
        f"Row minus column, in {unit}final {metric.label}. ▲ ahead, ▼ behind, ≈ a tie, no sign: too few seeds. "
        + verdict_note(len(methods) * (len(methods) - 1) // 2)
    )
    styles = {method.label: method.style.place for method in methods}
    header = ["", *(method.label for method in methods)]
    return Table(table_id, f"Every pair: {metric.label}", header, rows, frozenset(), note, styles)
