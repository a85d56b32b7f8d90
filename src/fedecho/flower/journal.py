"""The journal of a live run: its records, Flower's log, and what Flower's Result tells."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import Result as FlowerResult

from ..core.messages import LogEntry
from ..experiment.live_recorder import LiveRecorder
from ..experiment.setup import Setup
from ..runs.folder import RunFolder
from ..server.admission import MAX_EXAMPLES
from .wire import RESERVED, metrics_of

log = logging.getLogger("flwr")

COUNTS = ("num_examples", "num-examples", "client_num_examples")
"""Names under which example counts stand in the records."""


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
            if entry.client is not None and entry.kind in ("accept", "refuse"):  # its node waits for work
                refused = entry.kind == "refuse" and not self._only_late(entry)
                self._judged(entry.client, str(entry.detail.get("reason")) if refused else None)
        super().commit(entries)
        for entry in entries:
            if entry.kind == "aggregate":
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
    """Means of the metrics, weighted by example counts where there are any. What has an absurd count is left out."""
    pairs = [(metrics, _count(metrics)) for metrics in map(numbers, details)]
    pairs = [(metrics, count) for metrics, count in pairs if 0 < count <= MAX_EXAMPLES]
    names = dict.fromkeys(name for metrics, _ in pairs for name in metrics if name not in (*RESERVED, *COUNTS))
    means = {}
    for name in names:
        total = sum(count for metrics, count in pairs if name in metrics)
        means[name] = sum(metrics[name] * count for metrics, count in pairs if name in metrics) / total
    return means


def _count(metrics: Mapping[str, float]) -> float:
    """A client's example count; 1 where there is none."""
    return next((metrics[name] for name in COUNTS if name in metrics), 1.0)


def _record(metrics: Mapping[str, float]) -> MetricRecord:
    return MetricRecord(dict(metrics))
