"""The journal of a run: its records, the evaluations of its model, and its final numbers."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..core.errors import Interrupted, Stalled
from ..core.messages import Event, LogEntry
from ..runs.environment import Clock
from ..runs.folder import RunFolder
from ..runs.schema import metric_columns
from ..runs.tensorboard import FOLDER, TensorBoardSink
from .observer import Observer
from .result import MetricResult, Result, sha256
from .setup import Setup

try:
    import resource as _resource
except ImportError:  # not on Windows
    _resource = None  # type: ignore[assignment]

MOST_FRUITLESS = 1000
"""Tasks lost or refused in a row (or ten times the clients, where that is more) after which a run is given up: it would
never end."""

Window = tuple[int, int, int, float, int]
"""Of the updates accepted since the last evaluation: their number, Σ τ, max τ, Σ training loss, and how many reported
one."""

EMPTY: Window = (0, 0, 0, 0.0, 0)


class Recorder:
    """The journal of a run: makes events durable, judges the model when it is time, takes checkpoints.

    Args:
        setup: the run's parts.
        folder: where to write; None keeps nothing.
        observer: follows the run.
    """

    def __init__(self, setup: Setup, folder: RunFolder | None, observer: Observer | None = None) -> None:
        self.setup, self.folder, self.observer = setup, folder, observer
        self.stop_requested = False
        self.rows: list[dict[str, Any]] = []
        self.seq = 0
        self.lost = 0
        self.clock = Clock()
        self.aggregate_s = self.evaluate_s = self.records_s = 0.0
        self._before: dict[str, float] = {}  # seconds of work before the run was resumed
        self._board: TensorBoardSink | None = None
        self._window = EMPTY
        self._fruitless = 0  # tasks lost or refused since the last accepted update
        self._began = self._handed_s = time.perf_counter()
        self._learning_s = 0.0
        self._saved_s = time.perf_counter()
        if folder is not None:
            folder.declare_metrics(setup.objective, setup.metrics)

    # -- the journal

    def accept(self, event: Event) -> None:
        began = time.perf_counter()
        self.seq += 1
        self._keep(event)
        self._handed_s, self._learning_s = time.perf_counter(), sum(self.setup.seconds.values())
        self.records_s += self._handed_s - began

    def _keep(self, event: Event) -> None:
        """Write the event down; on disk with the next checkpoint, as it can be computed again."""
        if self.folder is not None:
            self.folder.add_inbox(self.seq, event)

    def commit(self, log: Sequence[LogEntry]) -> None:
        learning_s = sum(self.setup.seconds.values()) - self._learning_s
        began, judged_s = time.perf_counter(), self.evaluate_s
        self.aggregate_s += began - self._handed_s - learning_s
        server = self.setup.server
        for entry in log:
            self._count(entry)
            if self.folder is not None:
                self.folder.add_log_entry(self.seq, entry)
            if entry.kind == "stage" and (board := self.board) is not None:
                board.refined(entry.detail, server.state.updates)
        if not self.rows or self._due(log):
            self.evaluate()
        if self.observer is not None:
            self.observer.progressed(self.setup)
        if self.folder is not None:
            due = time.perf_counter() - self._saved_s >= self.setup.config.records.checkpoint_every_s
            if due or self.stop_requested or self.seq == 0:
                self.checkpoint()
        self.records_s += time.perf_counter() - began - (self.evaluate_s - judged_s)
        if self.stop_requested:
            how = f"; {self._continued_by(self.folder)} continues it" if self.folder is not None else ""
            raise Interrupted(f"stopped at {server.state.updates} updates{how}")

    def _count(self, entry: LogEntry) -> None:
        """Add an entry to the numbers that the next row and the result tell.

        Raises:
            Stalled: when nothing but lost and refused tasks comes any more.
        """
        if entry.kind == "accept":
            updates, tau_sum, tau_max, loss, losses = self._window
            tau = entry.staleness or 0
            if "loss" in entry.detail:
                loss, losses = loss + float(entry.detail["loss"]), losses + 1
            self._window = (updates + 1, tau_sum + tau, max(tau_max, tau), loss, losses)
            self._fruitless = 0
        elif entry.kind in ("lost", "refuse"):
            self.lost += entry.kind == "lost"
            self._fruitless += 1
            if self._fruitless >= max(MOST_FRUITLESS, 10 * self.setup.server.clients):
                raise Stalled(
                    f"the last {self._fruitless} tasks were all lost or refused (the last one: "
                    f"{entry.detail.get('reason')}); if clients diverge lower client.lr, if they leave too early "
                    "or come too late change the population or the limit"
                )

    def _continued_by(self, folder: RunFolder) -> str:
        return f"`fedecho resume {folder.path}`"

    # -- judging

    def _due(self, log: Sequence[LogEntry]) -> bool:
        """Whether it is time to judge the model."""
        accepted = any(entry.kind == "accept" for entry in log)
        return accepted and self.setup.server.state.updates % self.setup.config.experiment.eval_every == 0

    def evaluate(self) -> None:
        """Judge the server's model and add a row."""
        began = time.perf_counter()
        server, (updates, tau_sum, tau_max, loss, losses) = self.setup.server, self._window
        judged = self.setup.judge(server.output)
        row: dict[str, Any] = {
            "updates": server.state.updates,
            "version": server.model.version,
            "virtual_time_s": server.state.now_s,
            "wall_s": self.clock.seconds,
            "staleness_mean": tau_sum / updates if updates else 0.0,
            "staleness_max": tau_max,
            "train_loss": loss / losses if losses else None,
            "refused": server.state.refused,
            "lost": self.lost,
        }
        row |= {name: judged.get(name) for name in metric_columns([metric.name for metric in self.setup.metrics])}
        self._window = EMPTY
        self.rows.append(row)
        if self.folder is not None:
            self.folder.add_metrics(self.seq, row)
            if self.setup.continue_prompts is not None:
                for prompt, text in self.setup.continue_prompts(server.output):
                    self.folder.add_continuation(self.seq, row, prompt, text)
        self.evaluate_s += time.perf_counter() - began
        if (board := self.board) is not None:
            board.evaluated(row)
        if self.observer is not None:
            self.observer.evaluated(row)

    @property
    def board(self) -> TensorBoardSink | None:
        """Where the metrics go for TensorBoard, if that is asked for; opened when it is first needed."""
        if self._board is None and self.folder is not None and self.setup.config.records.tensorboard:
            folder = self.folder.path / FOLDER
            self._board = TensorBoardSink(folder, 0 if folder.exists() else None)
        return self._board

    def close(self) -> None:
        """Close what is written besides the folder."""
        if self._board is not None:
            self._board.close()
            self._board = None

    # -- checkpoints

    def checkpoint(self) -> None:
        """Write all that is needed to continue the run."""
        assert self.folder is not None
        state = {
            "server": self.setup.server.snapshot(),
            "window": self._window,
            "lost": self.lost,
            "wall_s": self.clock.seconds,
            "seconds": self.seconds(),
        }
        self.folder.save_checkpoint(self.seq, state)
        self._saved_s = time.perf_counter()

    def finish(self) -> None:
        """The run is over and its summary written: drop what only a resumed run would need."""
        assert self.folder is not None
        self.folder.drop_checkpoints()

    def restore(self, seq: int, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        assert self.folder is not None
        self._forget_after(seq)
        self.setup.server.restore(state["server"])
        self.seq, self.lost, self._window = seq, state["lost"], tuple(state["window"])
        self.rows = self.folder.metrics()
        self._before = dict(state["seconds"])
        self.clock = Clock(state["wall_s"])
        if self.setup.config.records.tensorboard:
            updates = self.setup.server.state.updates
            self._board = TensorBoardSink(self.folder.path / FOLDER, updates)
            self._board.again(self.rows, self.folder.events(), updates)

    def _forget_after(self, seq: int) -> None:
        assert self.folder is not None
        self.folder.forget_after(seq)

    def seconds(self) -> dict[str, float]:
        """Seconds of work by kind: in all processes, since the run began."""
        parts = (self._before, self._here(), self.setup.worker_seconds)
        kinds = [kind for kind in self._here() if kind != "records_s"]
        return {kind: sum(part.get(kind, 0.0) for part in parts) for kind in kinds}

    def _here(self) -> dict[str, float]:
        """In this process since it started or resumed the run."""
        own = {"aggregate_s": self.aggregate_s, "evaluate_s": self.evaluate_s, "records_s": self.records_s}
        return {**self.setup.seconds, **own}

    def profile(self) -> dict[str, float]:
        """Where this process's time went; adds up to the set-up and the time since."""
        spent = {**self._here(), "wait_s": self.setup.worker_seconds.get("wait_s", 0.0)}
        engine_s = time.perf_counter() - self._began - sum(spent.values())
        return {"setup_s": self.setup.worker_seconds.get("setup_s", 0.0), **spent, "engine_s": engine_s}

    def result(self) -> Result:
        """The final numbers."""
        server, config = self.setup.server, self.setup.config
        if self.rows[-1]["updates"] != server.state.updates or self.rows[-1]["version"] != server.model.version:
            self.evaluate()
        refusals = server.state.refusals
        refused_by_kind = {kind: refusals[kind] for kind in sorted(refusals, key=lambda kind: -refusals[kind])}
        return Result(
            algorithm=config.method,
            seed=config.experiment.seed,
            dataset=config.data.dataset,
            objective=self.setup.objective,
            metrics={metric.name: MetricResult.of(metric, self.rows) for metric in self.setup.metrics},
            metric_info=[dataclasses.asdict(metric) for metric in self.setup.metrics],
            versions=server.model.version,
            updates=server.state.updates,
            refused=server.state.refused,
            refused_by_kind=refused_by_kind,
            lost=self.lost,
            warnings=_warnings(server.state.updates, server.state.refused, refused_by_kind),
            virtual_time_s=server.state.now_s,
            wall_s=self.clock.seconds,
            server_s=self.seconds(),
            profile_s=self.profile(),
            peak_memory_mb=_peak_memory_mb(),
            model_sha256=sha256(server.output),
            run_dir=str(self.folder.path) if self.folder is not None else None,
        )


def _warnings(updates: int, refused: int, refused_by_kind: Mapping[str, int]) -> list[str]:
    """What a reader of the final numbers should know."""
    if refused <= updates:
        return []
    kinds = ", ".join(f"{kind}: {count}" for kind, count in refused_by_kind.items())
    return [
        f"{refused} of {refused + updates} updates were refused ({kinds}): the model learned from the few that were "
        "accepted; check what clients send, or the limits of the server and the rule"
    ]


def _peak_memory_mb() -> float:
    """The process's largest resident size, MiB; NaN where the system does not tell."""
    resource: Any = _resource
    if resource is None:
        return math.nan
    peak = float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, KiB elsewhere
