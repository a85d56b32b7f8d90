"""Reading runs again: their curves, what those come to, and what differences between methods are worth."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from .curves import area, reached
from .runs import Run


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of n values; std is 0 for one value."""

    mean: float
    std: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(fmean(values), stdev(values) if len(values) > 1 else 0.0, len(values))

    @property
    def standard_error(self) -> float:
        return self.std / math.sqrt(self.n)

    @property
    def verdict(self) -> str:
        """What this mean of paired differences is worth: a gap under two standard errors is a tie."""
        return self.judged()

    def judged(self, lower: bool = False) -> str:
        """The verdict; of a measure whose `lower` values are better, with that."""
        if self.n < 2:
            return "one seed"
        if abs(self.mean) < 2 * self.standard_error:
            return "tie"
        return "ahead" if (self.mean > 0) != lower else "behind"


@dataclass(frozen=True)
class Row:
    """One method's line: spreads over seeds, and paired differences to the reference method, seed by seed.

    Attributes:
        label: the method.
        final: accuracy, mean of a run's last five evaluations.
        best: best evaluation.
        area: mean accuracy over virtual time, up to the end of the comparison's shortest run.
        slow: accuracy on the slow clients' label distribution; None where nobody is slow.
        fast: likewise on the fast clients'.
        reached: runs that reached the target accuracy.
        target_s: virtual seconds to the target, of those that reached it.
        target_updates: updates to it.
        wall: real seconds a run.
        server: of these, the server's own: predictions on U, distillation and aggregation.
        memory: peak memory of a run's process, MiB.
        difference: final accuracy minus the reference's.
        slow_difference: slow-client accuracy minus the reference's.
        target_s_difference: seconds to the target minus the reference's, where both reached it.
        failed: why runs have no result, one reason each ("diverged", …).
        perplexity: of language models, on the whole test part; None of others. Lower is better.
        slow_perplexity: on the slow clients' own test text.
        fast_perplexity: on the fast clients'.
        perplexity_difference: perplexity minus the reference's.
        slow_perplexity_difference: on the slow clients' own test text, minus the reference's.
    """

    label: str
    final: Spread | None
    best: Spread | None
    area: Spread | None
    slow: Spread | None
    fast: Spread | None
    reached: int
    target_s: Spread | None
    target_updates: Spread | None
    wall: Spread | None
    server: Spread | None
    memory: Spread | None
    difference: Spread | None
    slow_difference: Spread | None
    target_s_difference: Spread | None
    failed: tuple[str, ...] = ()
    perplexity: Spread | None = None
    slow_perplexity: Spread | None = None
    fast_perplexity: Spread | None = None
    perplexity_difference: Spread | None = None
    slow_perplexity_difference: Spread | None = None

    @property
    def verdict(self) -> str:
        """Of the difference in accuracy; a method that failed on a seed is not compared."""
        if self.failed:
            return "failed"
        return self.difference.verdict if self.difference is not None else ""

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {**dataclasses.asdict(self), "failed": list(self.failed), "verdict": self.verdict}


@dataclass(frozen=True)
class Table:
    """A comparison's rows, and what they refer to.

    Attributes:
        rows: one per method.
        reference: the method that differences are taken to.
        target: the target accuracy.
        until_s: the virtual time that every finished run has reached.
        seeds: all seeds in it.
    """

    rows: list[Row]
    reference: str
    target: float
    until_s: float
    seeds: list[int]


def summarize(
    runs: Sequence[Run],
    reference: str | None = None,
    target: float | None = None,
    failures: Mapping[str, Sequence[str]] | None = None,
) -> Table:
    """One row per method, in the order in which they first appear.

    Args:
        runs: unfinished ones are left out.
        reference: the method that the others are compared with; by default the last.
        target: an accuracy; by default 95 % of the best method's mean, rounded down to a whole percent.
        failures: method to the reasons of its runs that ended without a result.
    """
    failures = failures or {}
    by_method: dict[str, dict[int, Run]] = {label: {} for label in dict.fromkeys(run.label for run in runs)}
    by_method.update({label: {} for label in failures if label not in by_method})
    for run in runs:
        if run.result is not None:
            by_method[run.label][run.seed] = run
    reference = list(by_method)[-1] if reference is None else reference
    done = [run for by_seed in by_method.values() for run in by_seed.values()]
    finals = [_spread(run.result.final_accuracy for run in r.values() if run.result) for r in by_method.values()]
    if target is None:
        target = math.floor(95 * max((final.mean for final in finals if final is not None), default=0.0)) / 100
    until_s = min((run.metrics[-1]["virtual_time_s"] for run in done), default=0.0)
    yardstick = by_method.get(reference, {})
    rows = [
        _row(label, by_seed, yardstick if label != reference else {}, target, until_s, tuple(failures.get(label, ())))
        for label, by_seed in by_method.items()
    ]
    return Table(rows, reference, target, until_s, sorted({run.seed for run in done}))


def _row(
    label: str,
    by_seed: Mapping[int, Run],
    yardstick: Mapping[int, Run],
    target: float,
    until_s: float,
    failed: tuple[str, ...],
) -> Row:
    results = {seed: run.result for seed, run in by_seed.items() if run.result is not None}
    to_target = {seed: reached(run.metrics, target) for seed, run in by_seed.items()}
    theirs = {seed: run.result for seed, run in yardstick.items() if run.result is not None and seed in results}
    their_target = {seed: reached(run.metrics, target) for seed, run in yardstick.items()}
    arrived = {seed: found for seed, found in to_target.items() if found is not None}
    both = {seed: (found, their_target.get(seed)) for seed, found in arrived.items()}
    return Row(
        label=label,
        final=_spread(r.final_accuracy for r in results.values()),
        best=_spread(r.best_accuracy for r in results.values()),
        area=_spread(area(run.metrics, until_s) for run in by_seed.values()),
        slow=_spread(r.slow_client_accuracy for r in results.values()),
        fast=_spread(r.fast_client_accuracy for r in results.values()),
        reached=len(arrived),
        target_s=_spread(at_s for _, at_s in arrived.values()),
        target_updates=_spread(updates for updates, _ in arrived.values()),
        wall=_spread(r.wall_s for r in results.values()),
        server=_spread(
            sum(r.server_s.get(kind, 0.0) for kind in ("infer_s", "distill_s", "aggregate_s")) for r in results.values()
        ),
        memory=_spread(r.peak_memory_mb for r in results.values()),
        difference=_spread(_minus(results[seed].final_accuracy, r.final_accuracy) for seed, r in theirs.items()),
        slow_difference=_spread(
            _minus(results[seed].slow_client_accuracy, r.slow_client_accuracy) for seed, r in theirs.items()
        ),
        target_s_difference=_spread(mine[1] - other[1] for mine, other in both.values() if other is not None),
        failed=failed,
        perplexity=_spread(r.final_perplexity for r in results.values()),
        slow_perplexity=_spread(r.slow_client_perplexity for r in results.values()),
        fast_perplexity=_spread(r.fast_client_perplexity for r in results.values()),
        perplexity_difference=_spread(
            _minus(results[seed].final_perplexity, r.final_perplexity) for seed, r in theirs.items()
        ),
        slow_perplexity_difference=_spread(
            _minus(results[seed].slow_client_perplexity, r.slow_client_perplexity) for seed, r in theirs.items()
        ),
    )


def _minus(left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else left - right


def _spread(values: Iterable[float | None]) -> Spread | None:
    """Of the values that there are; None if there is none."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    return Spread.of(known) if known else None
