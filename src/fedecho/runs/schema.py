"""The tables of a run's records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # it imports PyTorch, which takes seconds
    from ..objectives.base import Metric

SCHEMA_VERSION = 2

BOOKKEEPING: dict[str, str] = {
    "updates": "updates accepted so far",
    "version": "model versions made so far",
    "virtual_time_s": "seconds on the transport's clock",
    "wall_s": "seconds of real time the run has taken, over all its sittings",
    "staleness_mean": "mean staleness of the updates accepted since the last row, in versions",
    "staleness_max": "largest staleness of the updates accepted since the last row, in versions",
    "train_loss": "mean of the clients' mean training losses since the last row",
    "refused": "updates refused so far",
    "lost": "tasks lost so far",
}
"""The columns that the table `metrics` has in every run, and what they mean."""

_INTEGERS = {"updates", "version", "staleness_max", "refused", "lost"}

GROUPS = ("slow_client", "fast_client")
"""Prefixes of the columns that hold a metric of a group of clients."""


def metric_columns(names: Sequence[str]) -> list[str]:
    """The columns of these metrics: for each its NAME, slow_client_NAME and fast_client_NAME."""
    return [column for name in names for column in (name, *(f"{group}_{name}" for group in GROUPS))]


def glossary(metric_info: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What every column of a run's evaluations means; `metric_info` is what the records tell of its metrics."""
    meanings = dict(BOOKKEEPING)
    for info in metric_info:
        name, label = info["name"], info["label"]
        meanings[name] = info["definition"]
        meanings[f"slow_client_{name}"] = (
            f"{label} on the slow clients' own test examples where the data set says whose they are; else what is "
            "expected on data with the label distribution of the slow clients' data"
        )
        meanings[f"fast_client_{name}"] = f"{label} likewise of the fast clients"
    return meanings


def column_faults(metrics: Sequence[Metric]) -> list[str]:
    """Why metrics cannot have columns: names that are no identifiers, or that come twice."""
    columns = [*BOOKKEEPING, *metric_columns([metric.name for metric in metrics])]
    faults = [
        f"a metric is named {metric.name!r}; name it by an identifier, such as 'top_5_accuracy'"
        for metric in metrics
        if not (metric.name.isascii() and metric.name.isidentifier())
    ]
    twice = sorted({name for name in columns if columns.count(name) > 1})
    return faults + [f"two columns of the records would be named {name!r}; rename the metric" for name in twice]


SCHEMA = f"""
create table if not exists meta (key text primary key, value text);
create table if not exists inbox (seq integer primary key, at_s real, kind text, number integer, reason text);
create table if not exists events (
    id integer primary key, seq integer, at_s real, kind text, client integer, task integer, version integer,
    staleness integer, detail text);
create table if not exists continuations (
    seq integer, updates integer, virtual_time_s real, prompt text, text text);
create table if not exists metrics (
    seq integer, {", ".join(f"{name} {'integer' if name in _INTEGERS else 'real'}" for name in BOOKKEEPING)});
"""
"""The columns of a run's own metrics are added to `metrics` when the run begins."""

_FIELD = "case when json_valid({0}detail) then json_extract({0}detail, '$.{1}') end as {1}"

_ACCEPTED = ("num_examples", "waited_s", "change_norm", "loss")

_STAGES = ("stage", "rows", "uncertainty", "alpha", "loss")

VIEWS = f"""
create view if not exists accepted as select seq, at_s, client, task, version, staleness,
    {", ".join(_FIELD.format("", name) for name in _ACCEPTED)}
    from events where kind = 'accept';
create view if not exists refined as select seq, at_s, version,
    {", ".join(_FIELD.format("", name) for name in _STAGES)}
    from events where kind = 'stage';
create view if not exists jobs as select began.task, began.client, began.version, began.at_s as began_s,
    ended.at_s as ended_s, ended.kind as ended, ended.staleness, {_FIELD.format("ended.", "reason")}
    from events began left join
    (select *, min(id) from events where kind in ('accept', 'refuse', 'lost', 'cancel') group by task) ended
    on ended.task = began.task where began.kind = 'dispatch';
"""
"""What is read most, with plain columns; `detail` stays where everything is."""
