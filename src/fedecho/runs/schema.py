"""The tables of a run's records."""

from __future__ import annotations



SCHEMA_VERSION = 2


METRICS: dict[str, str] = {
    "updates": "updates accepted so far",
    "version": "model versions made so far",
    "virtual_time_s": "seconds on the transport's clock",
    "wall_s": "seconds of real time the run has taken, over all its sittings",
    "staleness_mean": "mean staleness of the updates accepted since the last row, in versions",
    "staleness_max": "largest staleness of the updates accepted since the last row, in versions",
    "accuracy": "share of the judged examples (a language model's: tokens) that the model gets right",
    "loss": "mean cross-entropy on the judged examples, in nats",
    "slow_client_accuracy": "accuracy on the slow clients' own test examples where the data set says whose they are; "
    "else what is expected on data with the label distribution of the slow clients' data",
    "fast_client_accuracy": "likewise of the fast clients",
    "perplexity": "of a language model: exp(loss)",
    "slow_client_perplexity": "likewise on the slow clients' own test text",
    "fast_client_perplexity": "likewise on the fast clients' own test text",
    "train_loss": "mean of the clients' mean training losses since the last row, in nats",
    "refused": "updates refused so far",
    "lost": "tasks lost so far",
}
"""The glossary of every metric; also the columns of the table `metrics`, in order."""


_INTEGERS = {"updates", "version", "staleness_max", "refused", "lost"}


SCHEMA = f"""
create table if not exists meta (key text primary key, value text);
create table if not exists inbox (seq integer primary key, at_s real, kind text, number integer, reason text);
create table if not exists events (
    id integer primary key, seq integer, at_s real, kind text, client integer, task integer, version integer,
    staleness integer, detail text);
create table if not exists continuations (
    seq integer, updates integer, virtual_time_s real, prompt text, text text);
create table if not exists metrics (
    seq integer, {", ".join(f"{name} {'integer' if name in _INTEGERS else 'real'}" for name in METRICS)});
"""


_FIELD = "case when json_valid({0}detail) then json_extract({0}detail, '$.{1}') end as {1}"


_ACCEPTED = ("num_examples", "waited_s", "change_norm", "loss")


_REFINED = ("stage", "rows", "uncertainty", "alpha", "loss")


VIEWS = f"""
create view if not exists accepted as select seq, at_s, client, task, version, staleness,
    {", ".join(_FIELD.format("", name) for name in _ACCEPTED)}
    from events where kind = 'accept';
create view if not exists refined as select seq, at_s, version,
    {", ".join(_FIELD.format("", name) for name in _REFINED)}
    from events where kind = 'stage';
create view if not exists jobs as select began.task, began.client, began.version, began.at_s as began_s,
    ended.at_s as ended_s, ended.kind as ended, ended.staleness, {_FIELD.format("ended.", "reason")}
    from events began left join
    (select *, min(id) from events where kind in ('accept', 'refuse', 'lost', 'cancel') group by task) ended
    on ended.task = began.task where began.kind = 'dispatch';
"""
"""What is read most, with plain columns; `detail` stays where everything is."""
