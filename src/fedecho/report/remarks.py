"""What a reader must know before believing the rest of a group."""

from __future__ import annotations

from .data import Group
from .settings import METHOD_TABLES, differing, environment_differences
from .text import NBSP, listed


def remarks(group: Group) -> list[str]:
    """Each a paragraph; empty where nothing has to be said."""
    return [
        *_unfinished(group),
        *_unjudged(group),
        *_not_finite(group),
        *_mostly_refused(group),
        *_warnings(group),
        *_seeds(group),
        *_more_than_the_method(group),
        *_late(group),
        *_environments(group),
    ]


def _unfinished(group: Group) -> list[str]:
    sentences = []
    for method in group.methods:
        for run in method.runs:
            if run.result is None:
                last = run.metrics[-1]["updates"] if run.metrics else 0
                wanted = run.setting("experiment", "updates")
                end = f" of {wanted:,}" if isinstance(wanted, int) and wanted else ""
                sentences.append(
                    f"{method.label}, seed {run.seed} is not finished: it is drawn as far as it got, "
                    f"{last:,}{end}{NBSP}updates, and counts in no comparison."
                )
    return sentences


def _unjudged(group: Group) -> list[str]:
    if not group.unjudged or not group.live:
        return []
    metric = group.judged
    name = metric.label if metric is not None else "metrics"
    return [
        f"Nobody judged the {name} of {listed([method.label for method in group.unjudged])}: the ServerApp gave no "
        "`evaluate_fn`, or one that returns no such number. It counts in no comparison."
    ]


def _not_finite(group: Group) -> list[str]:
    """A method that diverged on a seed would look better without it, so that it gets no verdict."""
    metric = group.judged
    if metric is None:
        return []
    return [
        f"{method.label} diverged on seed {listed([str(seed) for seed in method.failed(metric)])}: its final "
        f"{metric.label} is not finite there. It is not ranked, and its means are of the other seeds."
        for method in group.failed
    ]


def _mostly_refused(group: Group) -> list[str]:
    sentences = []
    for method in group.methods:
        refused = {seed: r for seed, r in method.results.items() if r.refused > r.updates}
        if refused:
            seeds = listed([str(seed) for seed in refused])
            counts = listed([f"{r.refused:,} of {r.refused + r.updates:,}" for r in refused.values()])
            sentences.append(
                f"Most answers were refused in {method.label}, seed {seeds} ({counts}): the model was made of the "
                "rest. See “Refused and lost”."
            )
    return sentences


def _warnings(group: Group) -> list[str]:
    """What the runs themselves say; one sentence that several say is written once."""
    by_text: dict[str, list[str]] = {}
    for method in group.methods:
        for seed, result in method.results.items():
            for warning in result.warnings:
                by_text.setdefault(warning, []).append(f"{method.label}, seed {seed}")
    return [f"{listed(runs)}: {text}" for text, runs in by_text.items()]


def _seeds(group: Group) -> list[str]:
    seeds = {method.label: sorted(run.seed for run in method.finished) for method in group.methods if method.finished}
    if len({tuple(one) for one in seeds.values()}) < 2:
        return []
    each = "; ".join(f"{label}: {', '.join(map(str, one))}" for label, one in seeds.items())
    return [f"The methods have different seeds: a difference is taken over the seeds that both have. {each}."]


def _more_than_the_method(group: Group) -> list[str]:
    names = [name for name in differing(group) if name.split(".")[0] not in METHOD_TABLES]
    if len(names) > 8:
        names = list(dict.fromkeys(f"[{name.split('.')[0]}]" for name in names))
    if not names or len(group.methods) < 2:
        return []
    return [
        f"The methods differ in more than the method ({', '.join(names)}): their difference is not the methods' alone."
    ]


def _late(group: Group) -> list[str]:
    labels = []
    for method in group.methods:
        slow = [one.shares["slow"] for one in method.events if "slow" in one.shares]
        if method.finished and slow and not any(share.updates for share in slow):
            labels.append(method.label)
    if not labels:
        return []
    sentence = f"No update of a slow client ever arrived in {listed(labels)}: the runs end before such a job does."
    metric = group.judged
    if metric is not None and any(method.values(metric, "slow_clients") for method in group.methods):
        sentence += (
            f" “Slow clients” is then the model's {metric.label} on their kind of data, not what they taught it."
        )
    return [sentence]


def _environments(group: Group) -> list[str]:
    names = environment_differences(group)
    if not names:
        return []
    return [f"The runs were made in different environments ({', '.join(names)}): the same seed may give other bits."]
