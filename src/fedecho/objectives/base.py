"""What an objective is: the training loss, the metrics, and what predictions mean.

Evaluation has two steps, so that a model is run once and judged on many sets of examples:

    statistics = objective.statistics(outputs, targets)     a few numbers per example, [n, r]
    objective.values(statistics)                            the metrics on all examples
    objective.values(statistics[rows])                      on some of them
    objective.values(statistics, weights)                   where examples weigh differently

Statistics of several batches are concatenated.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from .predictions import Predictions


@dataclass(frozen=True)
class Metric:
    """A number by which a model is judged.

    Attributes:
        name: identifier, such as "macro_f1".
        label: how text and tables write it, such as "macro F1".
        definition: one sentence for a glossary, without a full stop.
        higher_is_better: whether a larger value is the better one.
        decimals: digits after the point in text and tables.
        share: whether it is a share in [0, 1], which a report may write in percent.
        axis: the scale of a figure's axis.
        unit: such as "nats"; empty where there is none.
    """

    name: str
    label: str
    definition: str
    higher_is_better: bool
    decimals: int = 4
    share: bool = False
    axis: Literal["linear", "log"] = "linear"
    unit: str = ""

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Metric:
        """The metric with these fields, as `dataclasses.asdict` gives them; unknown fields are ignored."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in fields.items() if name in known})

    def format(self, value: float | None) -> str:
        """The value as text, without its unit; "–" for None and NaN."""
        return "–" if value is None or math.isnan(value) else f"{value:.{self.decimals}f}"

    def best(self, values: Iterable[float | None]) -> float | None:
        """The best value; None and NaN do not count. None where none is left."""
        known = [value for value in values if value is not None and not math.isnan(value)]
        return (max if self.higher_is_better else min)(known, default=None)

    def gain(self, value: float, reference: float) -> float:
        """By how much the value is better than the reference; negative where it is worse."""
        return value - reference if self.higher_is_better else reference - value


class Objective(abc.ABC):
    """The interface of an objective. Outputs and targets are those of n examples, the first dimension of both.

    Methods other than `prepare` take targets that `prepare` returned.
    """

    name: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]]
    """The metrics, in the order of tables. A model is judged by the first; one of them is named "loss"."""
    predictions: ClassVar[Predictions | None] = None
    """What outputs mean as probabilities; None where they mean none. Distillation needs them."""
    class_labels: ClassVar[bool] = False
    """Whether the targets are one class label per example, as partitions by label and label distributions need."""

    # -- fitting data and model together

    @abc.abstractmethod
    def prepare(self, targets: Tensor) -> Tensor:
        """The targets in the type that the other methods take.

        Raises:
            ConfigError: for a type, shape or value that the objective does not take.
        """

    @abc.abstractmethod
    def outputs(self, targets: Tensor) -> int:
        """The size of the model's last dimension that these targets need, at least: classes, labels, target columns or
        tokens."""

    @abc.abstractmethod
    def check(self, shape: Sequence[int], targets: Tensor) -> None:
        """Check that a model with outputs of this shape per example, without the batch, can learn these targets.

        Raises:
            ConfigError: where it cannot.
        """

    # -- training

    @abc.abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The training loss, a scalar: the mean of `losses` over the terms that are asked."""

    @abc.abstractmethod
    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The terms of the training loss, [n, m]: one per prediction, label, target column or token. 0 where nothing is
        asked."""

    @abc.abstractmethod
    def asked(self, targets: Tensor) -> Tensor:
        """Which terms of the loss count, [n, m] bool."""

    # -- evaluation

    @abc.abstractmethod
    def statistics(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What the metrics need to know of each example, [n, r] float64."""

    @abc.abstractmethod
    def values(self, statistics: Tensor, weights: Tensor | None = None) -> dict[str, float]:
        """Every metric, by name, on the examples with these statistics [n, r].

        `weights` [n], not negative, say how much each example counts; by default all count 1. A metric is NaN where the
        examples do not define it, such as on none.
        """

    def mix_weights(self, statistics: Tensor, mix: Tensor) -> Tensor | None:
        """The examples' weights [n] that make `values` what is expected on data with the label distribution `mix` [C].
        None where an example has no single class label."""
        return None
