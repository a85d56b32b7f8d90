"""What was compared and what came out, in sentences that hold."""

from __future__ import annotations

from collections.abc import Mapping

from ..objectives.base import Metric
from . import metrics
from .comparison import LEVEL, Judged, interval, to_reference
from .data import Group, Method
from .text import NBSP, listed, number


def headline(group: Group) -> str:
    """The result of a group in one to four sentences."""
    about, metric = f"on {group.dataset}", group.judged
    if not group.ranked or metric is None:
        if group.unjudged:
            labels = listed([method.label for method in group.unjudged])
            return f"{labels} ran for {_length(group)} {about}; nobody judged the model."
        return f"No run {about} is finished yet: {listed([method.label for method in group.methods])} so far."
    best = group.ranked[0]
    values = best.values(metric)
    mean = sum(values.values()) / len(values)
    start = f"After {_length(group)} {about}, {best.label}"
    if len(group.ranked) == 1:
        seeds = f"on average over {len(values)} seeds" if len(values) > 1 else "with one seed"
        return f"{start} has {article(metric)}{metric.label} of {_with_interval(metric, values)} {seeds}."
    most = "highest" if metric.higher_is_better else "lowest"
    judged = to_reference(group, best, metric)
    sentence = f"{start} has the {most} mean {metric.label}, {metrics.value(metric, mean)}"
    return " ".join([sentence + _verdicts(judged, metric), *_not_compared(group, best, judged, metric)])


def article(metric: Metric) -> str:
    return "an " if metric.label[:1].lower() in "aeiou" else "a "


def _with_interval(metric: Metric, values: Mapping[int, float]) -> str:
    over_seeds = interval(list(values.values()))
    assert over_seeds is not None
    if over_seeds.half_width is None:
        return metrics.value(metric, over_seeds.mean)
    return f"{metrics.value(metric, over_seeds.mean, over_seeds.half_width)} ({LEVEL}{NBSP}% interval)"


def _verdicts(judged: Mapping[str, Judged], metric: Metric) -> str:
    """The best method's difference to each other method, by verdict; the keys of `judged` are those methods.

    `judged` holds each other method minus the best one, so that "behind" there means that the best method is ahead.
    """

    def those(verdict: str) -> str:
        return listed(
            [
                f"{label} by {metrics.gap(metric, one.difference.mean)} ({bounds(metric, one)})"
                for label, one in judged.items()
                if one.verdict == verdict
            ]
        )

    ties = listed(
        [
            f"{label} ({metrics.gap(metric, one.difference.mean)} apart, {bounds(metric, one)})"
            for label, one in judged.items()
            if one.verdict == "tie"
        ]
    )
    ahead, behind = those("behind"), those("ahead")
    clauses = [
        f"ahead of {ahead}" if ahead else "",
        f"in a tie with {ties}" if ties else "",
        f"behind {behind} over the seeds that both have" if behind else "",
    ]
    clauses = [clause for clause in clauses if clause]
    if not clauses:
        return "."
    pairs = sorted({one.difference.pairs for one in judged.values() if one.verdict != "too few seeds"})
    seeds = f"{pairs[0]}" if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]}"
    return f": {'; '.join(clauses)}. Differences are paired over {seeds} seeds, with {LEVEL}{NBSP}% intervals."


def bounds(metric: Metric, judged: Judged) -> str:
    """The interval of the size of a difference, from the side of the better method: "1.2 to 3.4"."""
    low, high = judged.difference.interval or (judged.difference.mean, judged.difference.mean)
    if judged.difference.mean < 0:
        low, high = -high, -low
    places = metrics.decimals(metric, [(high - low) / 2])
    scale = metrics.scale(metric)
    return f"{number(low, places, scale=scale)}{NBSP}to{NBSP}{number(high, places, scale=scale)}"


def _not_compared(group: Group, best: Method, judged: Mapping[str, Judged], metric: Metric) -> list[str]:
    """Which methods get no verdict, and why."""
    sentences = []
    few = [
        f"{label} ({signed(metric, one.difference.mean)} over {one.difference.pairs} "
        f"seed{'' if one.difference.pairs == 1 else 's'})"
        for label, one in judged.items()
        if one.verdict == "too few seeds"
    ]
    if few:
        sentences.append(f"Too few seeds to judge {listed(few)}; it takes four.")
    apart = [other.label for other in group.ranked if other.label not in judged and other.label != best.label]
    if apart:
        sentences.append(f"It has no seed in common with {listed(apart)}.")
    return sentences


def signed(metric: Metric, size: float) -> str:
    return ("+" if size >= 0 else "−") + metrics.gap(metric, size)


def _length(group: Group) -> str:
    """How long the finished runs were."""
    results = [run.result for run in group.finished if run.result is not None]
    counts = sorted({result.updates for result in results})
    if len(counts) == 1:
        return f"{counts[0]:,}{NBSP}updates"
    ends = sorted({round(result.virtual_time_s) for result in results})
    if len(ends) == 1:
        return f"{ends[0]:,}{NBSP}{group.seconds}"
    return f"{counts[0]:,} to {counts[-1]:,}{NBSP}updates"
