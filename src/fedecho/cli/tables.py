"""Tables of results as text."""

from __future__ import annotations

from collections.abc import Sequence

from ..experiment.result import Result
from ..studies import tune as tuning
from ..studies.summary import Spread, Table

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


def summary_line(result: Result) -> str:
    r = result
    slow = "" if r.slow_client_accuracy is None else f", slow clients {r.slow_client_accuracy:.4f}"
    if r.final_perplexity is not None:
        theirs = "" if r.slow_client_perplexity is None else f" (slow clients {r.slow_client_perplexity:.2f})"
        slow += f", perplexity {r.final_perplexity:.2f}{theirs}"
    where = "" if r.run_dir is None else f"; records in {r.run_dir}"
    return (
        f"{r.algorithm} on {r.dataset}, seed {r.seed}: accuracy {r.final_accuracy:.4f} (mean of the last five "
        f"evaluations), best {r.best_accuracy:.4f}{slow}; {r.updates} updates, {r.versions} versions, "
        f"{r.virtual_time_s:.0f} virtual s, {r.wall_s:.1f} s; model {r.model_sha256[:12]}{where}"
    )


def profile_table(result: Result) -> str:
    """Where a run's time went: this process's seconds and shares, and the workers' seconds of the same kind."""
    total = sum(result.profile_s.values())
    lines = [f"{'where the time went':26} {'s':>8} {'share':>7} {'workers, s':>11}"]
    for kind, about in PROFILE.items():
        here = result.profile_s[kind]
        there = result.server_s[kind] - here if kind in ("train_s", "infer_s") else 0.0
        worker_seconds = f"{there:11.1f}" if there > 0 else ""
        lines.append(f"{about:26} {here:8.1f} {here / total:7.1%} {worker_seconds}".rstrip())
    return "\n".join([*lines, f"{'together':26} {total:8.1f}"])


def compare_table(table: Table) -> str:
    """Mean ± standard deviation over seeds, and paired differences to the reference ± their standard error."""
    goal = f"s to {table.target:g}"
    wide = max(16, *(len(row.label) for row in table.rows))
    head = f"{'method':{wide}} {'accuracy':16} {'best':16} {'area':16} {'slow clients':16} fast clients"
    lines, costs = [head], [f"{'cost':{wide}} {goal:16} {'updates to it':16} {'s a run':16} {'server s':16} MiB"]
    for row in table.rows:
        spreads = [_pm(value) for value in (row.final, row.best, row.area, row.slow, row.fast)]
        lines.append(f"{row.label:{wide}} {' '.join(f'{cell:16}' for cell in spreads)}".rstrip())
        lines += [f"{'':{wide}} failed: {reason}" for reason in row.failed]
        n = row.final.n if row.final is not None else 0
        some = f" ({row.reached} of {n})" if 0 < row.reached < n else ""
        at = "never" if row.target_s is None else f"{row.target_s.mean:.0f}{some}"
        cells = [at, _at(row.target_updates, 0), _at(row.wall, 1), _at(row.server, 1), _at(row.memory, 0)]
        costs.append(f"{row.label:{wide}} {' '.join(f'{cell:16}' for cell in cells)}".rstrip())
    if any(row.perplexity is not None for row in table.rows):
        lines += ["", f"{'perplexity':{wide}} {'all':16} {'slow clients':16} fast clients"]
        for row in table.rows:
            texts = [_pm(value, 3) for value in (row.perplexity, row.slow_perplexity, row.fast_perplexity)]
            lines.append(f"{row.label:{wide}} {' '.join(f'{cell:16}' for cell in texts)}".rstrip())
    lines += ["", *costs]
    if len(table.rows) > 1:
        lines += ["", f"{'minus ' + table.reference:{wide}} {'accuracy':31} {'slow clients':31} {goal}"]
        for row in table.rows:
            if row.label != table.reference:
                accuracy, slow = (_gap(gap, 4) for gap in (row.difference, row.slow_difference))
                time = row.target_s_difference
                seconds = "–" if time is None else f"{time.mean:+.0f} ± {time.standard_error:.0f}"
                lines.append(f"{row.label:{wide}} {accuracy:31} {slow:31} {seconds}".rstrip())
                if row.perplexity_difference is not None:
                    pair = (row.perplexity_difference, row.slow_perplexity_difference)
                    perplexity, slow = (_gap(gap, 3, lower=True) for gap in pair)
                    lines.append(f"{'  perplexity':{wide}} {perplexity:31} {slow:31}".rstrip())
    seeds = len(table.seeds)
    lines += [
        "",
        f"mean ± standard deviation over {seeds} seed{'' if seeds == 1 else 's'}; accuracy is the mean of the last "
        "five evaluations, area that over virtual time",
        "differences are paired by seed, ± their standard error; under two of these is a tie",
    ]
    return "\n".join(lines)


def _pm(value: Spread | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value.mean:.{digits}f} ± {value.std:.{digits}f}"


def _at(value: Spread | None, digits: int) -> str:
    return "–" if value is None else f"{value.mean:.{digits}f}"


def _gap(value: Spread | None, digits: int, lower: bool = False) -> str:
    if value is None:
        return "–"
    return f"{value.mean:+.{digits}f} ± {value.standard_error:.{digits}f} {value.judged(lower)}"


def tune_table(choices: Sequence[tuning.Choice]) -> str:
    """Every candidate's accuracy on the validation part, the best of each method marked."""
    lines = []
    for choice in choices:
        for candidate in choice.candidates:
            settings = " ".join(f"{key}={value}" for key, value in candidate.settings.items())
            score = candidate.failed[0] if candidate.failed else _pm(candidate.score)
            mark = "  best" if candidate is choice.best else ""
            lines.append(f"{choice.method:16} {settings:40} {score}{mark}")
        lines += [f"{'':16} the best {key} is at the grid's edge: a wider grid may do better" for key in choice.at_edge]
    return "\n".join(lines)
