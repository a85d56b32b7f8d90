"""Between Flower's records and the server's flat vectors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from ..core.errors import ConfigError
from ..core.messages import Model, Task, TrainResult
from ..server.admission import MAX_EXAMPLES
from ..stages.compute import LOGITS
from .arrays import Arrays, Keys, as_record, digest
from .wire import RESERVED, Unreadable, decode, metric, metrics_of, printable

ASKED = "fedecho"
"""The config record in which the server asks more of a client than its training; only our client mod reads it."""
EXTRA = "fedecho.extra"
"""The array record with what a client rule is sent, and reports."""
PREDICTIONS = "fedecho.predictions"
"""The array record with a client's logits on U."""
PATIENCE = 3
"""Answers without what a rule needs (or without an example count), before the first with it, after which the run is
given up."""


LARGEST_LOGIT = 1e3
"""The size of a logit in a client's predictions, at most."""


class RecordCodec:
    """Writes train messages and reads their answers (a `Codec` of the transport).

    Args:
        arrays: the federation's.
        keys: what the app calls its records.
        train_config: goes with every task.
        rule: what the algorithm's client rule is made of again, {name, **settings}; None without a client rule.
        reports: the vectors that the rule needs back.
        unlabeled: U, where the clients are to predict on it.
        predictions: the shape and kind (floating or packed) that predictions must have, where clients make them.
    """

    def __init__(
        self,
        arrays: Arrays,
        keys: Keys,
        train_config: ConfigRecord,
        rule: Mapping[str, object] | None = None,
        reports: Sequence[str] = (),
        unlabeled: Tensor | None = None,
        predictions: tuple[tuple[int, int], bool] | None = None,
    ) -> None:
        self.arrays, self.keys, self._config = arrays, keys, dict(train_config)
        self._rule, self._reports = rule, tuple(reports)
        self._digest = None if unlabeled is None else digest(unlabeled)
        self._last: tuple[int, ArrayRecord] = (-1, ArrayRecord())
        self._predictions = predictions
        self._incomplete, self._complete = 0, False

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
        examples = self._examples(content, metrics)
        if "train_loss" in metrics:
            metrics.setdefault("loss", metrics["train_loss"])
        extra = self._reported(content, len(weights))
        self._complete = True
        return TrainResult(task, weights, buffers, examples, metrics, self._asked_predictions(content), extra)

    def _examples(self, content: RecordDict, metrics: dict[str, float]) -> int:
        """The client's example count, which is taken out of the metrics."""
        examples = metric(content, self.keys.examples)
        name = self.keys.examples
        metrics.pop(f"client_{name}" if name in RESERVED else printable(name), None)
        if math.isnan(examples):
            names = ", ".join(repr(printable(name, 40)) for name in list(metrics)[:5]) or "none"
            self._give_up_or_refuse(
                f"its metrics do not say how many examples it has under {self.keys.examples!r} (they are: {names}); "
                "name the metric with weighted_by_key=…"
            )
        if not 1 <= examples <= MAX_EXAMPLES or examples != int(examples):
            raise Unreadable(f"its example count ({self.keys.examples!r}) is {examples:g}, not a whole number from 1")
        return int(examples)

    def _reported(self, content: RecordDict, d: int) -> dict[str, Tensor]:
        """The vectors [d] that the rule needs back; whatever else was sent is not looked at."""
        record = content.array_records.get(EXTRA, ArrayRecord())
        if missing := [name for name in self._reports if name not in record]:
            self._give_up_or_refuse(
                f"it does not report {', '.join(missing)}: the rule needs fedecho's client mod, "
                "ClientApp(mods=[fedecho.flower.client_mod()])"
            )
        return {name: decode(record[name], name, (d,)).float() for name in self._reports}

    def _asked_predictions(self, content: RecordDict) -> Tensor | None:
        """The client's predictions on U where they were asked for; else they are not looked at."""
        if self._predictions is None or PREDICTIONS not in content.array_records:
            return None
        arrays = list(content.array_records[PREDICTIONS].values())
        if len(arrays) != 1:
            raise Unreadable(f"its record {PREDICTIONS!r} holds {len(arrays)} arrays, not one")
        shape, floating = self._predictions
        predictions = decode(arrays[0], "predictions", shape, floating)
        if floating and predictions.numel() and (largest := float(predictions.abs().max())) > LARGEST_LOGIT:
            raise Unreadable(f"its predictions hold a logit of size {largest:.3g}, above {LARGEST_LOGIT:.3g}")
        return predictions

    def _give_up_or_refuse(self, reason: str) -> NoReturn:
        """Refuse an answer that lacks what every answer must have; when none of the first had it, give up the run."""
        self._incomplete += 1
        if self._incomplete >= PATIENCE and not self._complete:
            raise ConfigError(f"none of the first {PATIENCE} answers can be used: {reason}")
        raise Unreadable(reason)
