"""The journal of a run: what is kept of it, how its model is judged, and what it came to."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..core.errors import Interrupted, Stalled
from ..core.messages import Event, LogEntry
from ..runs.environment import Clock
from ..runs.folder import RunFolder
from ..runs.schema import METRICS
from ..runs.tensorboard import FOLDER, TensorBoardSink
from .observer import Observer
from .result import Result, sha256
from .setup import Setup

MOST_FRUITLESS = 1000
"""Tasks lost or refused in a row (or ten times the clients, where that is more) after which a run is given up: it would
never end."""


class Recorder:
    """The journal of a run: makes events durable, judges the model when it is time, takes checkpoints.

    Args:
        setup: the run's parts.
        folder: where to write; None keeps nothing.
        observer: is told how it goes.
    """

    def __init__(self, setup: Setup, folder: RunFolder | None, observer: Observer | None = None) -> None:
        self.setup, self.folder, self.observer = setup, folder, observer
        self.stop_requested = False
        self.rows: list[dict[str, float]] = []
        self.seq = 0
        self.lost = 0
        self.clock = Clock()
        self.aggregate_s = self.evaluate_s = self.records_s = 0.0
        self._before: dict[str, float] = {}  # seconds of work in earlier sittings
        self._board: TensorBoardSink | None = None
        self._window: tuple[int, int, int, float] = (0, 0, 0, 0.0)  # updates, Σ τ, max τ, Σ loss since the last row
        self._fruitless = 0  # tasks lost or refused since the last accepted update
        self._began = self._handed_s = time.perf_counter()
        self._learning_s = 0.0
        self._saved_s = time.perf_counter()

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
        updates, tau_sum, tau_max, loss = self._window
        for entry in log:
            if entry.kind == "accept":
                tau = entry.staleness or 0
                updates, tau_sum, tau_max = updates + 1, tau_sum + tau, max(tau_max, tau)
                loss += float(entry.detail.get("loss", math.nan))
                self._fruitless = 0
            elif entry.kind in ("lost", "refuse"):
                self.lost += entry.kind == "lost"
                self._fruitless += 1
                if self._fruitless >= max(MOST_FRUITLESS, 10 * server.clients):
                    raise Stalled(
                        f"the last {self._fruitless} tasks were all lost or refused (the last one: "
                        f"{entry.detail.get('reason')}); if clients diverge lower client.lr, if they leave too early "
                        "or come too late change the population or the limit"
                    )
            if self.folder is not None:
                self.folder.add_log_entry(self.seq, entry)
            if entry.kind == "stage" and (board := self.board) is not None:
                board.refined(entry.detail, server.state.updates)
        self._window = (updates, tau_sum, tau_max, loss)
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

    def _continued_by(self, folder: RunFolder) -> str:
        return f"`fedecho resume {folder.path}`"

    # -- judging

    def _due(self, log: Sequence[LogEntry]) -> bool:
        """Is it time to judge the model?"""
        accepted = any(entry.kind == "accept" for entry in log)
        return accepted and self.setup.server.state.updates % self.setup.config.experiment.eval_every == 0

    def evaluate(self) -> None:
        """Judge the server's model and add a row."""
        began = time.perf_counter()
        server, (updates, tau_sum, tau_max, loss) = self.setup.server, self._window
        judged = self.setup.judge(server.output)
        row: dict[str, Any] = {
            "updates": server.state.updates,
            "version": server.model.version,
            "virtual_time_s": server.state.now_s,
            "wall_s": self.clock.seconds,
            "staleness_mean": tau_sum / updates if updates else 0.0,
            "staleness_max": tau_max,
            "accuracy": judged.get("accuracy"),
            "loss": judged.get("loss"),
            "slow_client_accuracy": judged.get("slow_client_accuracy"),
            "fast_client_accuracy": judged.get("fast_client_accuracy"),
            "perplexity": judged.get("perplexity"),
            "slow_client_perplexity": judged.get("slow_client_perplexity"),
            "fast_client_perplexity": judged.get("fast_client_perplexity"),
            "train_loss": loss / updates if updates else None,
            "refused": server.state.refused,
            "lost": self.lost,
        }
        assert list(row) == list(METRICS)
        self._window = (0, 0, 0, 0.0)
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
            there = self.folder.path / FOLDER
            self._board = TensorBoardSink(there, 0 if there.exists() else None)
        return self._board

    def close(self) -> None:
        if self._board is not None:
            self._board.close()
            self._board = None

    # -- checkpoints

    def checkpoint(self) -> None:
        """Write all that is needed to go on."""
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
        """The run is over and its summary written: drop what only going on would need."""
        assert self.folder is not None
        self.folder.drop_checkpoints()

    def restore(self, seq: int, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
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
        """Seconds of work by kind: in all processes, over all sittings."""
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
        last = self.rows[-5:]
        wall_s = self.clock.seconds

        def mean(name: str) -> float | None:
            values = [row[name] for row in last if row[name] is not None]
            return sum(values) / len(values) if values else None

        accuracies = [row["accuracy"] for row in self.rows if row["accuracy"] is not None]
        return Result(
            algorithm=config.method,
            seed=config.experiment.seed,
            dataset=config.data.dataset,
            versions=server.model.version,
            updates=server.state.updates,
            virtual_time_s=server.state.now_s,
            wall_s=wall_s,
            final_accuracy=mean("accuracy"),
            best_accuracy=max(accuracies, default=None),
            slow_client_accuracy=mean("slow_client_accuracy"),
            fast_client_accuracy=mean("fast_client_accuracy"),
            server_s=self.seconds(),
            profile_s=self.profile(),
            peak_memory_mb=_peak_memory_mb(),
            model_sha256=sha256(server.output),
            refused=server.state.refused,
            lost=self.lost,
            run_dir=str(self.folder.path) if self.folder is not None else None,
            final_perplexity=mean("perplexity"),
            slow_client_perplexity=mean("slow_client_perplexity"),
            fast_client_perplexity=mean("fast_client_perplexity"),
        )


def _peak_memory_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, KiB elsewhere
