"""Results as text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from ..experiment.result import MetricResult, Result
from ..objectives.base import Metric
from ..studies import tune
from ..studies.statistics import FEWEST, Paired
from ..studies.summary import Difference, MetricSpreads, Row, Spread, Table
from .output import UNKNOWN, WIDTH, blocks

PROFILE = {
    "setup_s": "data and set-up",
    "train_s": "training",
    "infer_s": "predictions on U",
    "distill_s": "distillation",
    "aggregate_s": "aggregation",
    "evaluate_s": "evaluation",
    "records_s": "records",
    "wait_s": "waiting for workers",
    "engine_s": "clock, handing out jobs",
}
"""The kinds of `Result.profile_s`."""


# -- one run


def summary_line(result: Result) -> str:
    """A run's final numbers in a line; one more for each warning."""
    parts = []
    for number, info in enumerate(result.metric_info):
        metric = Metric.from_dict(info)
        if (values := result.metrics.get(metric.name)) is not None:
            parts.append(_judged(metric, values) if number == 0 else f"{metric.label} {_value(metric, values)}")
    numbers = f"{', '.join(parts)}; " if parts else ""
    lost = f", {result.refused} refused, {result.lost} lost" if result.refused or result.lost else ""
    records = "" if result.run_dir is None else f"; records in {result.run_dir}"
    text = (
        f"{result.algorithm} on {result.dataset}, seed {result.seed}: {numbers}{result.updates} updates{lost}, "
        f"{result.versions} versions, {result.virtual_time_s:.0f} virtual s, {result.wall_s:.1f} s; "
        f"model {result.model_sha256[:12]}{records}"
    )
    return "\n".join([text, *(f"warning: {warning}" for warning in result.warnings)])


def _value(metric: Metric, values: MetricResult) -> str:
    return metric.format(values.last_5_mean)


def _judged(metric: Metric, values: MetricResult) -> str:
    """The judged metric in full."""
    if values.last_5_mean is None:
        return f"{metric.label} unknown"
    averaged = "the last evaluation" if values.averaged == 1 else f"mean of the last {values.averaged} evaluations"
    groups = (("slow clients", values.slow_clients), ("fast clients", values.fast_clients))
    parts = [f"{name} {metric.format(value)}" for name, value in groups if value is not None]
    parts = [f"last {metric.format(values.last)}", f"best {metric.format(values.best)}", *parts]
    return f"{metric.label} {_value(metric, values)} ({averaged}; {', '.join(parts)})"


def profile_table(result: Result) -> str:
    """Where a run's time went: this process's seconds and shares, and the workers' seconds of the same kind."""
    total = sum(result.profile_s.values())
    lines = [f"{'where the time went':26} {'s':>8} {'share':>7} {'workers, s':>11}"]
    for kind, about in PROFILE.items():
        seconds = result.profile_s[kind]
        elsewhere = result.server_s[kind] - seconds if kind in ("train_s", "infer_s") else 0.0
        worker_seconds = f"{elsewhere:11.1f}" if elsewhere > 0 else ""
        lines.append(f"{about:26} {seconds:8.1f} {seconds / total:7.1%} {worker_seconds}".rstrip())
    return "\n".join([*lines, f"{'total':26} {total:8.1f}"])


# -- a comparison


def compare_table(table: Table) -> str:
    """Means and standard deviations over seeds, and paired differences to the reference with their intervals."""
    lines = _metric_blocks(table)
    lines += ["", *_costs(table)]
    if differences := _differences(table):
        lines += ["", *differences]
    return "\n".join([*lines, "", *_explanations(table)])


def _metric_blocks(table: Table) -> list[str]:
    notes = [_notes(row) for row in table.rows]
    judged = table.judged
    if judged is None:
        return blocks(["method", "runs"], [[row.label, str(len(row.seeds))] for row in table.rows], notes)
    heading = ["method", judged.label, "last", "best", "slow clients", "fast clients", "area"]
    rows = []
    for row in table.rows:
        spreads = row.metrics[judged.name]
        of_judged = (spreads.last_5_mean, spreads.last, spreads.best, spreads.slow_clients, spreads.fast_clients)
        rows.append([row.label, *(_mean_and_std(one, judged.decimals) for one in (*of_judged, row.area))])
    lines = blocks(heading, rows, notes)
    if others := table.metrics[1:]:
        cells = [
            [row.label, *(_mean_and_std(row.metrics[metric.name].last_5_mean, metric.decimals) for metric in others)]
            for row in table.rows
        ]
        lines += ["", *blocks(["other metrics", *(metric.label for metric in others)], cells)]
    return lines


def _notes(row: Row) -> list[str]:
    """What must be said of a method's runs, below its first line."""
    notes = [f"failed: {reason}" for reason in row.failed]
    if row.refused:
        kinds = "; ".join(f"{kind}: {count:,}" for kind, count in row.refused_by_kind.items())
        notes.append(f"{row.refused:,} of {row.updates + row.refused:,} updates refused ({kinds or 'reason unknown'})")
    if row.lost:
        notes.append(f"{row.lost:,} tasks lost")
    notes += [f"warning: {text}" for text in row.warnings]
    return [part for note in notes for part in textwrap.wrap(note, WIDTH - max(6, len(row.label)) - 4)]


def _costs(table: Table) -> list[str]:
    goal = UNKNOWN if table.target is None else f"s to {table.target:g}"
    heading = ["cost", *([goal, "updates to it"] if table.target is not None else []), "s a run", "server s", "MiB"]
    rows = []
    for row in table.rows:
        some = f" ({row.reached} of {len(row.seeds)})" if 0 < row.reached < len(row.seeds) else ""
        seconds = "never" if row.target_s is None else f"{row.target_s.mean:.0f}{some}"
        to_target = [seconds, _mean(row.target_updates, 0)] if table.target is not None else []
        rows.append([row.label, *to_target, _mean(row.wall_s, 1), _mean(row.server_s, 1), _mean(row.memory_mb, 0)])
    return blocks(heading, rows)


def _differences(table: Table) -> list[str]:
    """The paired differences; empty where nothing is compared."""
    judged, rows = table.judged, [row for row in table.rows if row.label != table.reference]
    if judged is None or not rows:
        return []
    heading = [f"minus {table.reference}", judged.label, "slow clients"]
    heading += [f"s to {table.target:g}"] if table.target is not None else []
    cells = []
    for row in rows:
        final = "failed" if row.failed else _gap(row.difference, judged.decimals)
        line = [row.label, final, _gap(row.slow_difference, judged.decimals)]
        cells.append([*line, _interval(row.target_s_difference, 0)] if table.target is not None else line)
    return blocks(heading, cells)


def _explanations(table: Table) -> list[str]:
    """What the numbers of a comparison mean."""
    seeds, texts = len(table.seeds), []
    texts.append(
        f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed: nothing is known of the spread"
    )
    if (judged := table.judged) is not None:
        texts.append(f"{judged.label}: {_averaged([row.metrics[judged.name] for row in table.rows])}")
        texts.append(f"area: {judged.label} averaged over the first {table.until_s:,.0f} virtual seconds")
    if lower := [metric.label for metric in table.metrics if not metric.higher_is_better]:
        texts.append(f"lower is better: {', '.join(lower)}")
    if judged is not None and len(table.rows) > 1:
        level, compared = f"{100 * table.level:g} %", sum(row.difference is not None for row in table.rows)
        corrected = f", corrected for {compared} comparisons (Holm)" if compared > 1 else ""
        texts.append(
            f"differences are paired by seed, ± half of their {level} interval (Student's t); verdicts at {level}"
            f"{corrected}; a verdict needs {FEWEST} seeds"
        )
    return [part for text in texts for part in textwrap.wrap(text, WIDTH, subsequent_indent="  ")]


def _averaged(spreads: Sequence[MetricSpreads]) -> str:
    """How many evaluations the final values hold."""
    counts = [one.averaged for one in spreads if one.averaged[1]]
    fewest, most = min((low for low, _ in counts), default=0), max((high for _, high in counts), default=0)
    if fewest == most == 1:
        return "the last evaluation; there are no more after the first update"
    if fewest == most == 5:
        return "mean of the last five evaluations"
    number = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    return f"mean of the last {number} evaluations; there are no more after the first update"


def _mean_and_std(value: Spread | None, decimals: int) -> str:
    if value is None:
        return UNKNOWN
    return f"{value.mean:.{decimals}f}" + ("" if value.std is None else f" ± {value.std:.{decimals}f}")


def _mean(value: Spread | None, decimals: int) -> str:
    return UNKNOWN if value is None else f"{value.mean:.{decimals}f}"


def _gap(value: Difference | None, decimals: int) -> str:
    return UNKNOWN if value is None else f"{_interval(value.paired, decimals)} {value.verdict}"


def _interval(value: Paired | None, decimals: int) -> str:
    if value is None:
        return UNKNOWN
    return f"{value.mean:+.{decimals}f}" + ("" if value.half_width is None else f" ± {value.half_width:.{decimals}f}")


# -- a search


def tune_table(choices: Sequence[tune.Choice]) -> str:
    """Every candidate's value of the judged metric on the validation part, the best of each method marked."""
    lines: list[str] = []
    for choice in choices:
        metric = choice.best.metric
        settings = [" ".join(f"{key}={value}" for key, value in one.settings.items()) for one in choice.candidates]
        rows = [
            [f"  {text}", _score(candidate), "best" if candidate is choice.best else ""]
            for text, candidate in zip(settings, choice.candidates, strict=True)
        ]
        heading = [choice.method, "validation" if metric is None else metric.label, ""]
        lines += [*([""] if lines else []), *blocks(heading, rows, [_refusals(one) for one in choice.candidates])]
        lines += [f"  the best {key} is at the grid's edge: a wider grid may do better" for key in choice.at_edge]
    return "\n".join([*lines, "", *_search_explanations(choices)])


def _score(candidate: tune.Candidate) -> str:
    if candidate.failed:
        return textwrap.shorten(candidate.failed[0], 50, placeholder=" …")
    return _mean_and_std(candidate.score, 4 if candidate.metric is None else candidate.metric.decimals)


def _refusals(candidate: tune.Candidate) -> list[str]:
    if not candidate.refused:
        return []
    return [f"{candidate.refused:,} of {candidate.updates + candidate.refused:,} updates refused"]


def _search_explanations(choices: Sequence[tune.Choice]) -> list[str]:
    metrics = [
        candidate.metric for choice in choices for candidate in choice.candidates if candidate.metric is not None
    ]
    seeds = max((one.score.n for choice in choices for one in choice.candidates if one.score is not None), default=0)
    spread = f", mean ± standard deviation over {seeds} seeds" if seeds > 1 else ""
    better = "" if not metrics or metrics[0].higher_is_better else "; lower is better"
    return textwrap.wrap(f"on the validation part, mean of the last evaluations{spread}{better}", WIDTH)
