"""The journal of a live run: its records, Flower's log, and what Flower's Result tells."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import Result as FlowerResult

from ..core.messages import LogEntry
from ..experiment.live_recorder import LiveRecorder
from ..experiment.setup import Setup
from ..runs.folder import RunFolder
from .wire import metrics_of

log = logging.getLogger("flwr")


OURS = ("num_examples", "num-examples", "waited_s", "change_norm")
"""What the records tell of an update beside its client's metrics."""


class Story:
    """What Flower's Result holds, gathered from the log entries."""

    def __init__(self) -> None:
        self.judged: dict[int, dict[str, float]] = {}
        self._trained: dict[int, dict[str, float]] = {}
        self._evaluated: dict[int, list[dict[str, float]]] = {}
        self._since: list[Mapping[str, float | str]] = []

    def add(self, kind: str, version: int | None, detail: Mapping[str, float | str]) -> None:
        if kind == "accept":
            self._since.append(detail)
        elif kind == "aggregate":
            self._trained[version or 0] = _mean(self._since)
            self._since = []
        elif kind == "evaluate":
            self._evaluated.setdefault(version or 0, []).append(numbers(detail))
        elif kind == "judge":
            self.judged[version or 0] = numbers(detail)

    def trained(self, version: int) -> dict[str, float]:
        return self._trained.get(version, {})

    def result(self, arrays: ArrayRecord) -> FlowerResult:
        return FlowerResult(
            arrays,
            {version: _record(metrics) for version, metrics in self._trained.items()},
            {version: _record(_mean(details)) for version, details in sorted(self._evaluated.items())},
            {version: _record(metrics) for version, metrics in self.judged.items() if metrics},
        )


class Journal(LiveRecorder):
    """Records the run, tells Flower's log, and asks clients to evaluate."""

    def __init__(
        self,
        setup: Setup,
        folder: RunFolder | None,
        story: Story,
        ask: Callable[[int], None] | None,
        judged: Callable[[int, str | None], None] = lambda client, refused: None,
    ) -> None:
        super().__init__(setup, folder)
        self._story, self._ask, self._judged = story, ask, judged

    def commit(self, entries: Sequence[LogEntry]) -> None:
        for entry in entries:
            self._story.add(entry.kind, entry.version, entry.detail)
        super().commit(entries)
        for entry in entries:
            if entry.kind == "accept" and entry.client is not None:
                self._judged(entry.client, None)
            elif entry.kind == "refuse" and entry.client is not None and not self._only_late(entry):
                self._judged(entry.client, str(entry.detail.get("reason")))
            elif entry.kind == "aggregate":
                self._log_version(entry)
                if self._ask is not None and self._due([entry]):
                    self._ask(entry.version or 0)

    @staticmethod
    def _only_late(entry: LogEntry) -> bool:
        """Whether an answer was refused for nothing but its lateness, which is no fault of its node."""
        return entry.detail.get("reason") == "too late"

    def evaluate(self) -> None:
        super().evaluate()
        version = int(self.rows[-1]["version"])
        if self.folder is not None and (metrics := self._story.judged.get(version)):
            self.folder.add_log_entry(
                self.seq, LogEntry("judge", self.setup.server.state.now_s, version=version, detail=metrics)
            )

    def evaluated(self, version: int, node: int, reply: Message | None) -> None:
        """A client's evaluation came, or will not come."""
        if reply is None:
            return
        detail: dict[str, float | str] = {**metrics_of(reply.content), "node": str(node)}
        entry = LogEntry("evaluate", self.setup.server.state.now_s, version=version, detail=detail)
        self._story.add(entry.kind, entry.version, entry.detail)
        if self.folder is not None:
            self.folder.add_log_entry(self.seq, entry)

    def restore(self, seq: int, state: Mapping[str, Any]) -> None:
        super().restore(seq, state)
        assert self.folder is not None
        for row in self.folder.events():
            self._story.add(row["kind"], row["version"], row["detail"])

    def _log_version(self, entry: LogEntry) -> None:
        version, server = entry.version or 0, self.setup.server
        judged, trained = self._story.judged.get(version, {}), self._story.trained(version)
        parts = [f"{name} {value:.4g}" for name, value in judged.items()]
        if "loss" in trained:
            parts.append(f"train loss {trained['loss']:.4g}")
        log.info(
            "[VERSION %s/%s] %s updates, %.0f s%s",
            version,
            server.stop.versions,
            server.state.updates,
            server.state.now_s,
            "".join(f", {text}" for text in parts),
        )


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in record.items() if isinstance(value, int | float)}


def _mean(details: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means of the metrics, weighted by examples where these are told."""
    each = [numbers(one) for one in details]
    weights = [one.get("num_examples", one.get("num-examples", 1.0)) for one in each]
    names = [name for name in dict.fromkeys(name for one in each for name in one) if name not in OURS]
    means = {}
    for name in names:
        pairs = [(one[name], w) for one, w in zip(each, weights, strict=True) if name in one]
        total = sum(w for _, w in pairs)
        means[name] = sum(value * w for value, w in pairs) / total if total else math.nan
    return means


def _record(metrics: Mapping[str, float]) -> MetricRecord:
    return MetricRecord(dict(metrics))
