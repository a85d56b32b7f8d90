"""What a report is about: the runs by method, what came out, and what a reader must be told of them."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..studies.runs import Run, find_runs
from ..studies.summary import Row, Spread, Table, summarize
from . import events as events
from .events import RunEvents

METHOD_TABLES = ("algorithm", "stages", "server", "client", "variants", "records", "executor")
"""Tables of a configuration in which the methods of a comparison may differ."""


EVERYONE = 2**31
"""What a live run has as its concurrency where every idle client gets work."""


@dataclass(frozen=True)
class Method:
    """One line of the comparison: the runs that share a label, by seed."""

    label: str
    runs: tuple[Run, ...]
    events: tuple[RunEvents, ...]
    row: Row

    @cached_property
    def finished(self) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run.result is not None)


@dataclass(frozen=True)
class ReportData:
    """All that a page shows."""

    methods: tuple[Method, ...]
    table: Table

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        return tuple(run for method in self.methods for run in method.runs)

    @cached_property
    def finished(self) -> tuple[Run, ...]:
        return tuple(run for method in self.methods for run in method.finished)

    @cached_property
    def ranked(self) -> list[tuple[Method, Spread]]:
        """Methods with a finished run and their final accuracy, the most accurate first."""
        done = [(method, method.row.final) for method in self.methods if method.row.final is not None]
        return sorted(done, key=lambda pair: -pair[1].mean)

    def difference(self, one: Method, other: Method) -> Spread | None:
        """Final accuracy of one minus the other's, paired by seed."""
        theirs = {run.seed: run.result.final_accuracy for run in other.finished if run.result is not None}
        ours = {run.seed: run.result.final_accuracy for run in one.finished if run.result is not None}
        pairs = [(mine, theirs.get(seed)) for seed, mine in ours.items()]
        gaps = [mine - other for mine, other in pairs if mine is not None and other is not None]
        return Spread.of(gaps) if gaps and one.label != other.label else None

    # -- in words

    @cached_property
    def live(self) -> frozenset[str]:
        """The methods of which some run is of a live federation."""
        return frozenset(method.label for method in self.methods if any(run.live for run in method.runs))

    @cached_property
    def clock(self) -> str:
        """What the clients' clock is called: virtual only where no run is live."""
        return "time" if self.live else "virtual time"

    @cached_property
    def unit(self) -> str:
        return "s" if self.live else "virtual s"

    @cached_property
    def seconds(self) -> str:
        return f"{self.unit}econds"

    @cached_property
    def host(self) -> str:
        """What the machine did whose seconds and memory are told."""
        does = {"served the clients" if run.live else "simulated the run" for run in self.runs}
        return " or ".join(sorted(does, reverse=True))

    @cached_property
    def dataset(self) -> str:
        return _either(
            f"the live federation “{run.config.experiment.name}”" if run.live else run.config.data.dataset
            for run in self.runs
        )

    @cached_property
    def unjudged(self) -> tuple[Method, ...]:
        """Methods with finished runs of which nobody told an accuracy, as on a live federation nobody need."""
        return tuple(method for method in self.methods if method.finished and method.row.final is None)

    @cached_property
    def length(self) -> str:
        """How long the finished runs were."""
        done = [run.result for run in self.finished if run.result is not None]
        counts = sorted({result.updates for result in done})
        if len(counts) == 1:
            return f"{counts[0]:,} updates"
        ends = sorted({round(result.virtual_time_s) for result in done})
        return f"{ends[0]:,} {self.seconds}" if len(ends) == 1 else f"{counts[0]:,} to {counts[-1]:,} updates"

    @cached_property
    def judged(self) -> str:
        return _either("judged" if run.live else run.config.experiment.evaluate for run in self.runs)

    @cached_property
    def language(self) -> bool:
        """Whether any run is of a language model."""
        return any(row.get("perplexity") is not None for run in self.runs for row in run.metrics)

    @cached_property
    def theirs(self) -> str:
        """On what slow and fast clients are judged."""
        own = {run.config.data.partition.startswith("natural") for run in self.runs if not run.live}
        mix = "expected on data with the label distribution of their data"
        return "on their own test examples" if own == {True} else mix if own != {True, False} else f"own data, or {mix}"

    @cached_property
    def _what(self) -> str:
        return "tokens" if self.language else "examples"

    @cached_property
    def _perplexities(self) -> str:
        """Which method has the lowest perplexity, where that is told."""
        told = {method.label: method.row.perplexity for method in self.methods}
        known = {label: spread.mean for label, spread in told.items() if spread is not None}
        if not known:
            return ""
        best = min(known, key=lambda label: known[label])
        return (
            f" Its perplexity is {known[best]:.2f}."
            if len(known) == 1
            else f" Lowest perplexity: {best}, {known[best]:.2f}."
        )

    @cached_property
    def headline(self) -> str:
        """What was compared and what came out, in one or two sentences that hold."""
        ranked, about = self.ranked, f"on {self.dataset}"
        if not ranked and self.unjudged:
            return f"{_names([m.label for m in self.unjudged])} ran for {self.length} {about}; nobody judged the model."
        if not ranked:
            return f"No run {about} is finished yet: {_names([m.label for m in self.methods])} as far as they got."
        best, final = ranked[0]
        start = f"After {self.length} {about}, {best.label}"
        if len(ranked) == 1:
            over = f"on average over {final.n} seeds" if final.n > 1 else "with one seed"
            right = f"{100 * final.mean:.1f} % of the {self.judged} {self._what} right"
            return f"{start} gets {right} {over}.{self._perplexities}"
        gaps = {other.label: self.difference(best, other) for other, _ in ranked[1:]}
        judged = {label: gap for label, gap in gaps.items() if gap is not None and gap.n > 1}

        def those(verdict: str, ending: str) -> str:
            return _names([ending.format(k, points(gap.mean)) for k, gap in judged.items() if gap.verdict == verdict])

        ahead, tied, behind = those("ahead", "{} by {}"), those("tie", "{} ({} apart)"), those("behind", "{} by {}")
        told = [
            f"ahead of {ahead}" if ahead else "",
            f"in a tie with {tied}" if tied else "",
            f"behind {behind} over the seeds that both have" if behind else "",
        ]
        text = f"{start} has the highest mean accuracy, {100 * final.mean:.1f} %"
        if judged:
            least, most = min(gap.n for gap in judged.values()), max(gap.n for gap in judged.values())
            seeds = f"{least}" if least == most else f"{least} to {most}"
            text += f": {'; '.join(filter(None, told))} (paired over {seeds} seeds)"
        text += "."
        single = [f"{label} ({_signed(-gap.mean)})" for label, gap in gaps.items() if gap is not None and gap.n < 2]
        strange = [label for label, gap in gaps.items() if gap is None]
        if single:
            text += f" One seed is not enough to judge {_names(single)}."
        if strange:
            text += f" It has no seed in common with {_names(strange)}."
        return text + self._perplexities

    @cached_property
    def remarks(self) -> list[str]:
        """What a reader must know before believing the rest."""
        told = []
        for method in self.methods:
            for run in method.runs:
                if run.result is None:
                    last = run.metrics[-1]["updates"] if run.metrics else 0
                    wanted = run.config.experiment.updates
                    told.append(
                        f"{method.label}, seed {run.seed} is not finished: it is drawn as far as it got, "
                        f"{last:,}{f' of {wanted:,}' if wanted else ''} updates, and counts in no comparison."
                    )
        if self.unjudged:
            told.append(
                f"Nobody judged the accuracy of {_names([method.label for method in self.unjudged])}: the ServerApp "
                "gave no `evaluate_fn`, or one that tells no number under `accuracy_key`. It counts in no comparison."
            )
        if self.live and any(not run.live for run in self.runs):
            told.append(
                f"Seconds are real ones where the federation is live ({_names(sorted(self.live))}), and virtual ones "
                "where it is simulated."
            )
        seeds = {
            method.label: sorted(run.seed for run in method.finished) for method in self.methods if method.finished
        }
        if len({tuple(found) for found in seeds.values()}) > 1:
            told.append(
                "The methods have different seeds: a difference is taken over the seeds that both have. "
                + "; ".join(f"{label}: {', '.join(map(str, found))}" for label, found in seeds.items())
                + "."
            )
        strange = [name for name in self.differing if name.split(".")[0] not in METHOD_TABLES]
        if len(strange) > 8:
            strange = list(dict.fromkeys(f"[{name.split('.')[0]}]" for name in strange))
        if strange and len(self.methods) > 1:
            told.append(
                f"The methods differ in more than the method ({', '.join(strange)}): their difference is not the "
                "methods' alone."
            )
        late = [
            method.label
            for method in self.methods
            if method.finished and any("slow" in f.shares for f in method.events)
            and not any(f.shares["slow"].updates for f in method.events if "slow" in f.shares)
        ]  # fmt: skip
        if late:
            told.append(
                f"No update of a slow client ever arrived in {_names(late)}: the runs end before such a job does."
                + " “Slow clients” is then the model's accuracy on their kind of data, not what they taught it."
                * any(method.row.slow is not None for method in self.methods)
            )
        if any(len(values) > 1 for values in self.environments.values()):
            told.append("The runs were made in different environments (see below): the same seed may give other bits.")
        return told

    # -- settings

    @cached_property
    def _flat(self) -> dict[str, list[dict[str, str]]]:
        return {
            method.label: [_flat(_told(run)) for run in method.runs]
            for method in self.methods
        }  # fmt: skip

    @cached_property
    def settings(self) -> dict[str, dict[str, str]]:
        """Every setting: its value by method ("–" where a method has it not, several values joined by "/")."""
        names = list(dict.fromkeys(name for flats in self._flat.values() for flat in flats for name in flat))
        return {
            name: {
                label: " / ".join(dict.fromkeys(flat.get(name, "–") for flat in flats))
                for label, flats in self._flat.items()
            }
            for name in names
        }

    @cached_property
    def differing(self) -> dict[str, dict[str, str]]:
        return {name: values for name, values in self.settings.items() if len(set(values.values())) > 1}

    @cached_property
    def common(self) -> dict[str, str]:
        return {
            name: next(iter(values.values()))
            for name, values in self.settings.items()
            if len(set(values.values())) == 1
        }

    @cached_property
    def environments(self) -> dict[str, list[str]]:
        """By name, the different values that the runs had."""
        found: dict[str, list[str]] = {}
        for run in self.runs:
            try:
                about = json.loads((run.path / "environment.json").read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            for name, value in about.items():
                values = found.setdefault(name, [])
                if str(value) not in values:
                    values.append(str(value))
        return found


def _told(run: Run) -> dict[str, Any]:
    """A run's settings, without those that say nothing of a live federation."""
    tables = run.config.to_dict()
    if run.live:
        tables["experiment"] = {k: v for k, v in tables["experiment"].items() if k not in ("eval_every", "evaluate")}
        del tables["data"], tables["executor"]["name"]
        if run.config.server.concurrency >= EVERYONE:
            tables["server"]["concurrency"] = "all that are there"
    return tables


def collect(paths: Sequence[str | Path], target: float | None = None) -> ReportData:
    """Read the runs in `paths`.

    Args:
        paths: run folders, or folders that hold some.
        target: the accuracy whose time is told; by default what `analysis.summarize` takes.

    Raises:
        RecordError: where there is no run, or one that cannot be read.
    """
    runs = _told_apart(find_runs(paths))
    first = summarize(runs, target=target)
    means = {row.label: row.final.mean for row in first.rows if row.final is not None}
    table = summarize(runs, max(means, key=lambda label: means[label]), target) if means else first
    methods = []
    for row in table.rows:
        theirs = sorted((run for run in runs if run.label == row.label), key=lambda run: run.seed)
        methods.append(
            Method(row.label, tuple(theirs), tuple(events.read(run.path, run.config) for run in theirs), row)
        )
    return ReportData(tuple(methods), table)


def _told_apart(runs: Sequence[Run]) -> list[Run]:
    """Runs of one method and seed from two folders are two methods: their folder's name goes into the label. So are
    a live run and a simulated one."""
    counts = Counter((run.label, run.seed) for run in runs)
    kinds = Counter(label for label, _ in {(run.label, run.live) for run in runs})
    twice = {label for (label, _), n in counts.items() if n > 1} | {label for label, n in kinds.items() if n > 1}

    def home(run: Run) -> Path:
        return run.path.parent.parent if run.path.name.startswith("seed-") else run.path

    def name(run: Run) -> str:
        here, same = home(run), [home(other) for other in runs if other.label == run.label]
        alike = any(other.name == here.name for other in same if other != here)
        return str(here) if alike else here.name

    return [
        dataclasses.replace(run, label=f"{run.label} ({name(run)})") if run.label in twice else run for run in runs
    ]  # fmt: skip


def points(gap: float) -> str:
    """A difference of two accuracies, in points of a hundred."""
    size = 100 * abs(gap)
    text = f"{size:.1f}" if size >= 0.095 else f"{size:.2f}"
    return f"{text} point{'' if text == '1.0' else 's'}"


def _signed(gap: float) -> str:
    return ("+" if gap >= 0 else "−") + points(gap)


def _either(names: Iterable[str]) -> str:
    return _names(list(dict.fromkeys(names)))


def _names(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def _flat(tables: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted names to values; a list of tables counts from its names; without seeds and other methods' variants."""
    found: dict[str, str] = {}
    for name, value in tables.items():
        path = f"{prefix}{name}"
        if path in ("variants", "records", "experiment.seed"):
            continue
        if isinstance(value, Mapping):
            found |= _flat(value, f"{path}.")
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            for item in value:
                found |= _flat(item, f"{path}.{item.get('name', '?')}.")
        else:
            found[path] = json.dumps(value) if isinstance(value, list | bool) else str(value)
    return found
