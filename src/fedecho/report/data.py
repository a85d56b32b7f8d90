"""What a report is about: groups of runs that can be compared, and the methods in each."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError
from ..experiment.result import Result
from ..objectives.base import Metric
from ..studies.curves import default_target
from ..studies.runs import Run, find_runs
from . import events, metrics
from .events import RunEvents
from .style import MethodStyle
from .text import NBSP

EVERYONE = 2**31
"""The concurrency of a live run in which every idle client gets work."""

NOT_DATA = ("unlabeled",)
"""Beginnings of settings under [data] that belong to a method: U is the server's, not the clients' or the test's."""


@dataclass(frozen=True)
class Method:
    """The runs that share a label, by seed, and what their events say.

    Attributes:
        label: as the runs were called.
        style: how it is drawn, the same in all groups of a page.
        runs: by seed.
        events: of each run.
    """

    label: str
    style: MethodStyle
    runs: tuple[Run, ...]
    events: tuple[RunEvents, ...]

    @cached_property
    def finished(self) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run.result is not None)

    @cached_property
    def results(self) -> dict[int, Result]:
        """By seed, what the finished runs came to."""
        return {run.seed: run.result for run in self.runs if run.result is not None}

    def failed(self, metric: Metric) -> list[int]:
        """The seeds whose final value is not finite: the run diverged."""
        finals = {seed: result.metrics.get(metric.name) for seed, result in self.results.items()}
        return [
            seed
            for seed, final in finals.items()
            if final is not None and final.last_5_mean is not None and not math.isfinite(final.last_5_mean)
        ]

    def values(self, metric: Metric, name: str = "last_5_mean") -> dict[int, float]:
        """By seed, a value of `MetricResult`; without runs that have none, or one that is not finite."""
        values: dict[int, float] = {}
        for seed, result in self.results.items():
            measured = result.metrics.get(metric.name)
            value = None if measured is None else getattr(measured, name)
            if value is not None and math.isfinite(value):
                values[seed] = float(value)
        return values


@dataclass(frozen=True)
class Group:
    """Runs that can be compared: the same data, the same task, the same kind of federation.

    Attributes:
        number: from 0; its place on the page.
        title: what tells it from the page's other groups, such as "digits".
        methods: in the order of the comparison, else by name.
        metrics: by which the runs are judged, the first one first; empty where nobody judges.
        wanted: the target value that was asked for.
    """

    number: int
    title: str
    methods: tuple[Method, ...]
    metrics: tuple[Metric, ...]
    wanted: float | None = None

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        return tuple(run for method in self.methods for run in method.runs)

    @cached_property
    def finished(self) -> tuple[Run, ...]:
        return tuple(run for method in self.methods for run in method.finished)

    @cached_property
    def judged(self) -> Metric | None:
        """The metric by which methods are ranked."""
        return self.metrics[0] if self.metrics else None

    @cached_property
    def ranked(self) -> list[Method]:
        """Methods with a final value of the judged metric on every seed, the best mean first."""
        metric = self.judged
        if metric is None:
            return []
        means = {}
        for place, method in enumerate(self.methods):
            values = method.values(metric)
            if values and not method.failed(metric):
                means[place] = sum(values.values()) / len(values)
        places = sorted(means, key=lambda place: -means[place] if metric.higher_is_better else means[place])
        return [self.methods[place] for place in places]

    @cached_property
    def failed(self) -> tuple[Method, ...]:
        """Methods that diverged on a seed; they are not ranked."""
        metric = self.judged
        return tuple(method for method in self.methods if metric is not None and method.failed(metric))

    @cached_property
    def unjudged(self) -> tuple[Method, ...]:
        """Methods with finished runs of which no final value is known."""
        judged = {method.label for method in (*self.ranked, *self.failed)}
        return tuple(method for method in self.methods if method.finished and method.label not in judged)

    @cached_property
    def many_seeds(self) -> bool:
        return any(len(method.runs) > 1 for method in self.methods)

    # -- the clock

    @cached_property
    def live(self) -> bool:
        """Whether the runs are of a live federation."""
        return self.runs[0].live

    @cached_property
    def clock(self) -> str:
        """What the clients' clock is called: virtual only where the federation is simulated."""
        return "time" if self.live else "virtual time"

    @cached_property
    def seconds(self) -> str:
        return "seconds" if self.live else "virtual seconds"

    @cached_property
    def until_s(self) -> float:
        """The time on the clients' clock that every finished run reached."""
        return min((run.metrics[-1]["virtual_time_s"] for run in self.finished if run.metrics), default=0.0)

    # -- where the runs come from

    @cached_property
    def dataset(self) -> str:
        run = self.runs[0]
        return f"the live federation “{name_of(run)}”" if run.live else run.task.dataset

    @cached_property
    def host(self) -> str:
        """What the machine did whose seconds and memory are reported."""
        return "served the clients" if self.live else "simulated the run"

    @cached_property
    def client_data(self) -> str:
        """On what slow and fast clients are judged."""
        if str(self.runs[0].setting("data", "partition", "")).startswith("natural"):
            return "on their own test examples"
        return "expected on data with the label distribution of their data"

    @cached_property
    def target(self) -> float | None:
        """The value of the judged metric whose time is reported: the one asked for, else 5 % short of the best mean."""
        metric = self.judged
        if metric is None or not self.ranked:
            return None
        if self.wanted is not None:
            return self.wanted
        values = self.ranked[0].values(metric)
        return default_target(metric, sum(values.values()) / len(values))


@dataclass(frozen=True)
class ReportData:
    """All that a page shows; runs of different groups are never compared."""

    groups: tuple[Group, ...]

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        return tuple(run for group in self.groups for run in group.runs)

    @cached_property
    def styles(self) -> dict[str, MethodStyle]:
        """By label, how a method is drawn in every group."""
        return {method.label: method.style for group in self.groups for method in group.methods}


def collect(paths: Sequence[str | Path], target: float | None = None) -> ReportData:
    """Read the runs in `paths`.

    Args:
        paths: run folders, or folders that hold some.
        target: the value of the judged metric whose time is reported; by default 5 % short of the best method's mean.

    Raises:
        RecordError: where there is no run, or one that cannot be read.
        ConfigError: for a target that no group's judged metric can have.
    """
    buckets = _comparable(find_runs(paths))
    named = [(_label_apart(runs), described) for runs, described in buckets]
    labels = dict.fromkeys(run.label for runs, _ in named for run in runs)
    styles = {label: MethodStyle(place) for place, label in enumerate(labels)}
    titles = _titles([runs for runs, _ in named])
    groups = []
    for number, ((runs, described), title) in enumerate(zip(named, titles, strict=True)):
        methods = []
        for label in dict.fromkeys(run.label for run in runs):
            same = sorted((run for run in runs if run.label == label), key=lambda run: run.seed)
            read = tuple(events.read(run) for run in same)
            methods.append(Method(label, styles[label], tuple(same), read))
        possible = target if target is not None and described and _possible(target, described[0]) else None
        groups.append(Group(number, title, tuple(methods), described, possible))
    if target is not None and all(group.wanted is None for group in groups):
        raise ConfigError(
            f"the target is {target:g}, a value that no run's judged metric can have; give a share between 0 and 1, "
            "such as 0.9, or a finite value of another metric"
        )
    return ReportData(tuple(groups))


def _possible(target: float, metric: Metric) -> bool:
    return 0 < target < 1 if metric.share else math.isfinite(target)


# -- what can be compared


def _comparable(runs: Sequence[Run]) -> list[tuple[list[Run], tuple[Metric, ...]]]:
    """The runs by data and task, with the metrics of each group.

    A run that describes no metrics (one that has just begun) joins the first group with its data.
    """
    described = {id(run): metrics.metrics_of(run) for run in runs}
    buckets: dict[tuple[str, tuple[str, ...]], list[Run]] = {}
    for run in sorted(runs, key=lambda run: not described[id(run)]):  # those that describe their metrics first
        names = (run.objective, *(metric.name for metric in described[id(run)])) if described[id(run)] else ()
        data = repr(_data(run))
        if not names:
            names = next((key[1] for key in buckets if key[0] == data), ())
        buckets.setdefault((data, names), []).append(run)
    order = {id(run): place for place, run in enumerate(runs)}
    sorted_buckets = [sorted(bucket, key=lambda run: order[id(run)]) for bucket in buckets.values()]
    sorted_buckets.sort(key=lambda bucket: order[id(bucket[0])])
    return [(bucket, metrics.joined([described[id(run)] for run in bucket])) for bucket in sorted_buckets]


def name_of(run: Run) -> str:
    """What the experiment is called."""
    return str(run.setting("experiment", "name", ""))


def _data(run: Run) -> dict[str, Any]:
    """What the data and the judged part of a run are: equal for runs that can be compared."""
    if run.live:
        return {"live": name_of(run)}
    data: Mapping[str, Any] = run.tables.get("data", {})
    return {
        "dataset": run.task.dataset,
        "evaluate": run.task.evaluate,
        **{name: value for name, value in data.items() if name != "dataset" and not name.startswith(NOT_DATA)},
    }


def _titles(groups: Sequence[Sequence[Run]]) -> list[str]:
    """A group's data set, and the settings in which groups of one data set differ."""
    about = [{**_data(runs[0]), "objective": runs[0].objective} for runs in groups]
    names = [f"live federation “{name_of(runs[0])}”" if runs[0].live else runs[0].task.dataset for runs in groups]
    titles = []
    for place, name in enumerate(names):
        same = [other for other, other_name in zip(about, names, strict=True) if other_name == name]
        keys = [key for key in about[place] if len({repr(other.get(key)) for other in same}) > 1]
        details = [f"{key.replace('_', ' ')}{NBSP}{about[place][key]}" for key in keys]
        titles.append(", ".join([name, *details]) if details or names.count(name) == 1 else f"{name} ({place + 1})")
    return titles


def _label_apart(runs: Sequence[Run]) -> list[Run]:
    """Runs of one method and seed from two folders are two methods: their folder's name goes into the label."""
    counts = Counter((run.label, run.seed) for run in runs)
    twice = {label for (label, _), count in counts.items() if count > 1}

    def home(run: Run) -> Path:
        return run.path.parent.parent if run.path.name.startswith("seed-") else run.path

    def name(run: Run) -> str:
        here, same = home(run), [home(other) for other in runs if other.label == run.label]
        alike = any(other.name == here.name for other in same if other != here)
        return str(here) if alike else here.name

    return [dataclasses.replace(run, label=f"{run.label} ({name(run)})") if run.label in twice else run for run in runs]
