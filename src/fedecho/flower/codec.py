"""Between Flower's records and the server's flat vectors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from ..core.errors import ConfigError
from ..core.messages import Model, Task, TrainResult
from ..stages.compute import LOGITS
from .arrays import Arrays, Keys, as_record, digest, to_values, to_vector
from .transport import Unreadable

ASKED = "fedecho"
"""The config record in which the server asks more of a client than its training; only our client mod reads it."""


EXTRA = "fedecho.extra"
"""The array record with what a client rule is sent, and reports."""


PREDICTIONS = "fedecho.predictions"
"""The array record with a client's logits on U."""


PATIENCE = 3
"""Answers without what a rule needs, before the first with it, after which the run is given up."""


class RecordCodec:
    """Writes train messages and reads their answers (a `Codec` of the transport).

    Args:
        arrays: the federation's.
        keys: what the app calls its records.
        train_config: goes with every task.
        rule: what the algorithm's client rule is made of again, {name, **settings}; None without a client rule.
        reports: the vectors that the rule needs back.
        unlabeled: U, where the clients are to predict on it.
    """

    def __init__(
        self,
        arrays: Arrays,
        keys: Keys,
        train_config: ConfigRecord,
        rule: Mapping[str, object] | None = None,
        reports: Sequence[str] = (),
        unlabeled: Tensor | None = None,
    ) -> None:
        self.arrays, self.keys, self._config = arrays, keys, dict(train_config)
        self._rule, self._reports = rule, tuple(reports)
        self._digest = None if unlabeled is None else digest(unlabeled)
        self._last: tuple[int, ArrayRecord] = (-1, ArrayRecord())
        self._without, self._served = 0, False

    def record(self, model: Model) -> ArrayRecord:
        """The model's arrays; the last one's are remembered."""
        if self._last[0] != model.version:
            self._last = (model.version, self.arrays.record(model))
        return self._last[1]

    def config(self, given: Mapping[str, object], number: int) -> ConfigRecord:
        return ConfigRecord({**given, "server-round": number})  # type: ignore[dict-item]

    def write(self, task: Task, model: Model) -> RecordDict:
        """A message as Flower's FedAvg writes it: the model, and the config with the `server-round`, which is one more
        than the version that the task starts from. What else is asked is in records of our own."""
        content = RecordDict(
            {self.keys.arrays: self.record(model), self.keys.config: self.config(self._config, task.version + 1)}
        )
        asked: dict[str, Any] = {}
        if self._rule is not None:
            asked = {"rule": json.dumps(self._rule), "weights": json.dumps(self.arrays.weights)}
            numbers = {name: float(value) for name, value in task.extra.items() if not isinstance(value, Tensor)}
            asked["numbers"] = json.dumps(numbers)
            vectors = {name: value for name, value in task.extra.items() if isinstance(value, Tensor)}
            if vectors:
                content[EXTRA] = as_record(vectors)
        if self._digest is not None:
            asked["predict"] = self._digest
            if (form := task.request.predictions or LOGITS) != LOGITS:
                asked["form"] = json.dumps(form.asking())
        if asked:
            content[ASKED] = ConfigRecord(asked)
        return content

    def read(self, task: int, content: RecordDict) -> TrainResult:
        """A client's answer.

        Raises:
            Unreadable: when it is not what it should be.
            ConfigError: when no client sends what the rule needs.
        """
        own = (EXTRA, PREDICTIONS)
        records = {name: record for name, record in content.array_records.items() if name not in own}
        record = records.get(self.keys.arrays) or (next(iter(records.values())) if len(records) == 1 else None)
        if record is None:
            raise Unreadable(f"it holds {len(records)} array records and none is called {self.keys.arrays!r}")
        weights, buffers = self.arrays.read(record)
        metrics = metrics_of(content)
        examples = metrics.pop(self.keys.examples, math.nan)
        if not 1 <= examples < math.inf:
            raise Unreadable(f"its metrics do not say how many examples it has ({self.keys.examples!r})")
        if "train_loss" in metrics:
            metrics.setdefault("loss", metrics["train_loss"])
        extra = {name: to_vector(array, name) for name, array in content.array_records.get(EXTRA, {}).items()}
        if missing := [name for name in self._reports if name not in extra]:
            self._without += 1
            told = (
                f"it does not report {', '.join(missing)}: the rule needs fedecho's client mod, "
                "ClientApp(mods=[fedecho.flower.client_mod()])"
            )
            if self._without == PATIENCE and not self._served:
                raise ConfigError(f"no client of the first {PATIENCE} can serve the rule: {told}")
            raise Unreadable(told)
        self._served = True
        predictions = None
        if PREDICTIONS in content.array_records:
            (array,) = content.array_records[PREDICTIONS].values()
            predictions = to_values(array, "predictions")
        return TrainResult(task, weights, buffers, int(examples), metrics, predictions, extra)


def metrics_of(content: RecordDict) -> dict[str, float]:
    """The numbers in an answer's metric records, without those that are not finite."""
    records: list[MetricRecord] = list(content.metric_records.values())
    numbers = {name: value for record in records for name, value in record.items() if isinstance(value, int | float)}
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
