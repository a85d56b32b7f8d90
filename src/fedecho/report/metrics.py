"""What a run says of its metrics, and how the page writes their values.

A run's summary and its records describe every metric (name, label, direction, decimals, …), so that no objective has to
be importable here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..objectives.base import Metric
from ..studies.runs import Run
from .text import NBSP, number, plus_minus, with_unit

CLIENT_GROUPS = {"": "", "slow_client_": "slow clients", "fast_client_": "fast clients"}
"""Prefix of a column of evaluations, and whose data it is judged on."""

TRAIN_LOSS = Metric(
    "train_loss", "clients' training loss", "mean of the clients' mean training losses since the last evaluation", False
)
"""What every run records beside the metrics of its objective."""


def metrics_of(run: Run) -> tuple[Metric, ...]:
    """The metrics by which a run is judged, the first one first; empty where the run describes none."""
    metrics = [read_metric(described) for described in run.metric_info if isinstance(described, Mapping)]
    return tuple(metric for metric in metrics if metric is not None)


def read_metric(described: Mapping[str, Any]) -> Metric | None:
    """A metric from its description; None for one without a name.

    Keys of a later version are ignored, and a value of the wrong type gives way to a default: a folder may come from
    anywhere.
    """
    name = described.get("name")
    if not isinstance(name, str) or not name:
        return None
    decimals = described.get("decimals")
    return Metric(
        name=name,
        label=str(described.get("label") or name),
        definition=str(described.get("definition") or ""),
        higher_is_better=bool(described.get("higher_is_better", True)),
        decimals=decimals if isinstance(decimals, int) and 0 <= decimals <= 10 else 4,
        share=bool(described.get("share", False)),
        axis="log" if described.get("axis") == "log" else "linear",
        unit=str(described.get("unit") or ""),
    )


def joined(each: Sequence[Sequence[Metric]]) -> tuple[Metric, ...]:
    """The metrics of several runs, each name once."""
    by_name: dict[str, Metric] = {}
    for metrics in each:
        for metric in metrics:
            by_name.setdefault(metric.name, metric)
    return tuple(by_name.values())


def scale(metric: Metric) -> float:
    """Shares are written in percent."""
    return 100.0 if metric.share else 1.0


def unit(metric: Metric) -> str:
    return "%" if metric.share else metric.unit


def title(metric: Metric, clients: str = "") -> str:
    """ "Accuracy, slow clients"."""
    return metric.label[:1].upper() + metric.label[1:] + (f", {clients}" if clients else "")


def column(metric: Metric, name: str = "") -> str:
    """A heading with its unit: "slow clients, %"."""
    return f",{NBSP}".join(filter(None, [name or metric.label, unit(metric)]))


def axis_title(metric: Metric) -> str:
    """A figure writes shares in percent on its ticks."""
    return ", ".join(filter(None, [metric.label, metric.unit]))


def decimals(metric: Metric, half_widths: Sequence[float | None] = ()) -> int:
    """Digits after the point of a whole table: a share needs two where an interval is below a tenth of a point."""
    if not metric.share:
        return metric.decimals
    smallest = min((100 * width for width in half_widths if width), default=1.0)
    return 1 if smallest >= 0.1 else 2


def value(metric: Metric, mean: float, half_width: float | None = None) -> str:
    """A value with its unit, such as "97.8 %" or "12.3 ± 0.4"."""
    text = plus_minus(mean, half_width, decimals(metric, [half_width]), scale=scale(metric))
    return with_unit(text, unit(metric))


def gap(metric: Metric, size: float) -> str:
    """The size of a difference: shares differ by points of a hundred."""
    places = decimals(metric, [abs(size)])
    text = number(abs(size), places, scale=scale(metric))
    if metric.share:
        return with_unit(text, "point" if float(text) == 1 else "points")
    return with_unit(text, metric.unit)
