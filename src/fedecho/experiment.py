"""From a configuration to a run: builds the parts, drives them, judges the model, keeps the records.

>>> from fedecho import Config, run
>>> config = Config.from_dict({"experiment": {"updates": 10}, "data": {"clients": 5, "unlabeled_size": 50},
...                            "server": {"concurrency": 4, "buffer_size": 2}})
>>> run(config).updates
10
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from . import population as populations
from .config import Config, read_toml
from .data.federation import Federation, federation
from .errors import ConfigError, FedechoError, RecordError, Stalled
from .learning.learner import Learner
from .learning.models import MODELS
from .messages import Event, Fact, Model
from .records import METRICS, Clock, RunFolder, environment
from .registry import import_object
from .rng import Key
from .server import Journal, Server, Transport, serve
from .transports.executors import EXECUTORS, Executor
from .transports.replay import ReplayTransport
from .transports.simulated import SimulatedTransport

MOST_REFUSED = 1000
"""Refusals in a row after which a run is given up: it would never end."""


class Interrupted(FedechoError):
    """A run was asked to stop and did, after a checkpoint; `resume` continues it."""


class Observer(Protocol):
    """Is told how a run goes."""

    def started(self, setup: Setup) -> None: ...

    def progressed(self, setup: Setup) -> None:
        """After every event."""
        ...

    def evaluated(self, row: Mapping[str, float]) -> None:
        """After an evaluation; `row` has the keys of `records.METRICS`."""
        ...


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        algorithm: the method, e.g. "fedbuff+echo".
        seed: of the run.
        dataset: name.
        versions: model versions made.
        updates: updates accepted.
        virtual_time_s: the transport's clock at the end.
        wall_s: real seconds, set-up not included.
        final_accuracy: mean of the last five evaluations.
        best_accuracy: the best evaluation.
        slow_client_accuracy: mean of the last five evaluations on the slow clients' label distribution; None where
            nobody is slow.
        fast_client_accuracy: likewise for the fast clients.
        server_s: seconds of work by kind: train_s, infer_s (predictions on U), distill_s, aggregate_s (the rest of what
            the server does with an event), evaluate_s.
        peak_memory_mb: the process's largest resident size, MiB.
        model_sha256: of the final weights' bytes.
        run_dir: where the records are, or None.
        refused: updates refused.
        lost: tasks lost.
    """

    algorithm: str
    seed: int
    dataset: str
    versions: int
    updates: int
    virtual_time_s: float
    wall_s: float
    final_accuracy: float
    best_accuracy: float
    slow_client_accuracy: float | None
    fast_client_accuracy: float | None
    server_s: dict[str, float]
    peak_memory_mb: float
    model_sha256: str
    refused: int
    lost: int
    run_dir: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Setup:
    """The parts of a run."""

    config: Config
    data: Federation
    population: populations.Population
    learner: Learner
    server: Server
    executor: Executor


def prepare(config: Config) -> Setup:
    """Build every part of a run.

    Raises:
        ConfigError, DataError, MissingExtra: for what cannot be built, with the remedy.
    """
    torch.set_num_threads(config.executor.threads)
    key = Key(config.experiment.seed)
    settings = {f.name: getattr(config.population, f.name) for f in dataclasses.fields(config.population)}
    population = populations.build(config.data.clients, key, **settings)
    data = federation(config.data, key.fold("data"), population.members("slow"))
    shape = tuple(data.inputs.shape[1:])
    model = config.model
    builder = MODELS[model.name] if model.name in MODELS else import_object(model.name, "model")

    def make() -> nn.Module:
        try:
            module = builder(shape, data.classes, **model.options)
        except TypeError as fault:
            raise ConfigError(f"[model] {model.name} cannot be built: {fault}; check the keys of the table") from None
        if not isinstance(module, nn.Module):
            raise ConfigError(f"[model] {model.name} gave a {type(module).__name__}; it must give an nn.Module")
        return module

    try:
        torch.zeros(1, device=config.experiment.device)
    except (RuntimeError, AssertionError) as fault:  # torch raises either, depending on how it was built
        why = str(fault).splitlines()[0]
        raise ConfigError(f"experiment.device {config.experiment.device!r} cannot be used ({why}); try 'cpu'") from None
    learner = Learner(
        make, data, config.client, key, config.algorithm.client_rule, config.experiment.device, model.memory_format
    )
    server = Server(
        config.algorithm,
        learner.initial(),
        config.data.clients,
        key.fold("server"),
        config.experiment.stop,
        config.server,
        config.refine,
        learner,
        (len(data.unlabeled), data.classes),
        [client for client in range(config.data.clients) if not population.present(client, 0.0)],
    )
    return Setup(config, data, population, learner, server, EXECUTORS[config.executor.name](learner))


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
        self.aggregate_s = self.evaluate_s = 0.0
        self._window: tuple[int, int, int, float] = (0, 0, 0, 0.0)  # updates, Σ τ, max τ, Σ loss since the last row
        self._refused = 0  # in a row
        self._handed_s = time.perf_counter()
        self._learning_s = 0.0
        self._saved_s = time.perf_counter()
        config, data = setup.config, setup.data
        self._judged = data.validation if config.experiment.evaluate == "validation" else data.test
        members = {group: setup.population.members(group) for group in ("slow", "fast")}
        self._mixes = {group: data.label_mix(clients) for group, clients in members.items() if clients}

    # -- the journal

    def accept(self, event: Event) -> None:
        self.seq += 1
        if self.folder is not None:
            self.folder.add_inbox(self.seq, event)
        self._handed_s, self._learning_s = time.perf_counter(), sum(self.setup.learner.seconds.values())

    def commit(self, facts: Sequence[Fact]) -> None:
        learning_s = sum(self.setup.learner.seconds.values()) - self._learning_s
        self.aggregate_s += time.perf_counter() - self._handed_s - learning_s
        updates, tau_sum, tau_max, loss = self._window
        for fact in facts:
            if fact.kind == "accept":
                tau = fact.staleness or 0
                updates, tau_sum, tau_max = updates + 1, tau_sum + tau, max(tau_max, tau)
                loss += float(fact.detail.get("loss", math.nan))
                self._refused = 0
            elif fact.kind == "lost":
                self.lost += 1
            elif fact.kind == "refuse":
                self._refused += 1
                if self._refused >= MOST_REFUSED:
                    raise Stalled(
                        f"the last {self._refused} updates were all refused ({fact.detail.get('reason')}); if clients "
                        "diverge lower client.lr, else raise the limit that refuses them"
                    )
            if self.folder is not None:
                self.folder.add_fact(self.seq, fact)
        self._window = (updates, tau_sum, tau_max, loss)
        accepted = any(fact.kind == "accept" for fact in facts)
        server = self.setup.server
        if not self.rows or (accepted and server.ledger.updates % self.setup.config.experiment.eval_every == 0):
            self.evaluate()
        if self.observer is not None:
            self.observer.progressed(self.setup)
        if self.folder is not None:
            due = time.perf_counter() - self._saved_s >= self.setup.config.records.checkpoint_every_s
            if due or self.stop_requested or self.seq == 0:
                self.checkpoint()
        if self.stop_requested:
            where = f"; `fedecho resume {self.folder.path}` continues it" if self.folder is not None else ""
            raise Interrupted(f"stopped at {server.ledger.updates} updates{where}")

    # -- judging

    def evaluate(self) -> None:
        """Judge the server's model and add a row."""
        began = time.perf_counter()
        server, (updates, tau_sum, tau_max, loss) = self.setup.server, self._window
        judged = self.setup.learner.evaluate(server.output, *self._judged)
        by_group = {group: judged.accuracy_under(mix) for group, mix in self._mixes.items()}
        by_group = {group: share for group, share in by_group.items() if not math.isnan(share)}  # their classes unseen
        row: dict[str, Any] = {
            "updates": server.ledger.updates,
            "version": server.model.version,
            "virtual_time_s": server.ledger.now_s,
            "wall_s": self.clock.seconds,
            "staleness_mean": tau_sum / updates if updates else 0.0,
            "staleness_max": tau_max,
            "accuracy": judged.accuracy,
            "loss": judged.loss,
            "slow_client_accuracy": by_group.get("slow"),
            "fast_client_accuracy": by_group.get("fast"),
            "train_loss": loss / updates if updates else None,
            "refused": server.ledger.refused,
            "lost": self.lost,
        }
        assert list(row) == list(METRICS)
        self._window = (0, 0, 0, 0.0)
        self.rows.append(row)
        self.evaluate_s += time.perf_counter() - began
        if self.folder is not None:
            self.folder.add_metrics(self.seq, row)
        if self.observer is not None:
            self.observer.evaluated(row)

    # -- checkpoints

    def checkpoint(self) -> None:
        """Write all that is needed to go on."""
        assert self.folder is not None
        learner = self.setup.learner
        state = {
            "ledger": self.setup.server.snapshot(),
            "window": self._window,
            "lost": self.lost,
            "wall_s": self.clock.seconds,
            "seconds": {**learner.seconds, "aggregate_s": self.aggregate_s, "evaluate_s": self.evaluate_s},
        }
        self.folder.save_checkpoint(self.seq, state)
        self._saved_s = time.perf_counter()

    def restore(self, seq: int, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        assert self.folder is not None
        self.folder.forget_after(seq)
        self.setup.server.restore(state["ledger"])
        self.seq, self.lost, self._window = seq, state["lost"], tuple(state["window"])
        self.rows = self.folder.metrics()
        seconds = dict(state["seconds"])
        self.aggregate_s, self.evaluate_s = seconds.pop("aggregate_s"), seconds.pop("evaluate_s")
        self.setup.learner.seconds.update(seconds)
        self.clock = Clock(state["wall_s"])

    def result(self) -> Result:
        """The final numbers."""
        server, config = self.setup.server, self.setup.config
        if self.rows[-1]["updates"] != server.ledger.updates or self.rows[-1]["version"] != server.model.version:
            self.evaluate()
        last = self.rows[-5:]
        wall_s = self.clock.seconds

        def mean(name: str) -> float | None:
            values = [row[name] for row in last if row[name] is not None]
            return sum(values) / len(values) if values else None

        accuracy = mean("accuracy")
        assert accuracy is not None
        return Result(
            algorithm=config.method,
            seed=config.experiment.seed,
            dataset=config.data.dataset,
            versions=server.model.version,
            updates=server.ledger.updates,
            virtual_time_s=server.ledger.now_s,
            wall_s=wall_s,
            final_accuracy=accuracy,
            best_accuracy=max(row["accuracy"] for row in self.rows),
            slow_client_accuracy=mean("slow_client_accuracy"),
            fast_client_accuracy=mean("fast_client_accuracy"),
            server_s={
                **self.setup.learner.seconds,
                "aggregate_s": self.aggregate_s,
                "evaluate_s": self.evaluate_s,
            },
            peak_memory_mb=_peak_memory_mb(),
            model_sha256=sha256(server.output),
            refused=server.ledger.refused,
            lost=self.lost,
            run_dir=str(self.folder.path) if self.folder is not None else None,
        )


def sha256(model: Model) -> str:
    """Of the weights' bytes."""
    return hashlib.sha256(model.weights.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def _peak_memory_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, KiB elsewhere


# -- the three ways to drive a run -------------------------------------------------------------------------------------


def run(config: Config, out: str | Path | None = None, observer: Observer | None = None) -> Result:
    """Run an experiment.

    Args:
        config: what to run.
        out: the run folder to write; None keeps no records.
        observer: is told how it goes.

    Raises:
        ConfigError, DataError, MissingExtra: before anything is computed.
        RecordError: when `out` already holds a run.
        Stalled: when nothing is left to wait for.
        Interrupted: after Ctrl-C, with the run ready to be resumed.
    """
    setup = prepare(config)
    folder = None
    if out is not None:
        memory_format = "channels_last" if setup.learner.channels_last else "contiguous"
        about = environment(config.experiment.device, config.executor.threads, memory_format)
        folder = RunFolder.create(Path(out), config.to_toml(), about)
    return _drive(setup, Recorder(setup, folder, observer), _simulated(setup))


def resume(run_dir: str | Path, observer: Observer | None = None) -> Result:
    """Continue a stopped run from its last checkpoint; of a finished one, give its result again.

    The result equals that of a run that never stopped, bit for bit, on the same machine and versions.

    Raises:
        RecordError: when the folder holds no run that can be read.
    """
    with contextlib.closing(RunFolder.open(Path(run_dir))) as folder:
        folder.lock()
        summary = folder.summary()
        if summary is not None:
            folder.drop_checkpoints()  # it may have been killed just before it did so itself
            return Result(**{**summary, "run_dir": str(folder.path)})
        setup = prepare(Config.from_dict(read_toml(folder.path / "config.toml")))
        recorder = Recorder(setup, folder, observer)
        checkpoint = folder.load_checkpoint()
        if checkpoint is None:
            folder.forget_after(-1)  # killed before its first checkpoint: begin again
        else:
            recorder.restore(*checkpoint)
        return _drive(setup, recorder, _simulated(setup))


@dataclass(frozen=True)
class Replayed:
    """What a replay came to: the recomputed model's digest, the recorded one, and whether they are equal."""

    model_sha256: str
    recorded_sha256: str
    matches: bool
    updates: int
    versions: int


def replay(run_dir: str | Path, observer: Observer | None = None) -> Replayed:
    """Recompute a finished run's model from its recorded events.

    Raises:
        RecordError: when the folder holds no finished run, or its record does not fit.
    """
    with contextlib.closing(RunFolder.open(Path(run_dir))) as folder:
        summary = folder.summary()
        if summary is None:
            raise RecordError(f"{run_dir} is not finished; `fedecho resume {run_dir}` finishes it")
        setup = prepare(Config.from_dict(read_toml(folder.path / "config.toml")))
        recorder = _Silent(setup, observer)
        if observer is not None:
            observer.started(setup)
        with contextlib.closing(setup.executor), contextlib.closing(folder.inbox()) as inbox:
            serve(setup.server, ReplayTransport(inbox, setup.executor), recorder)
    digest, recorded = sha256(setup.server.output), str(summary["model_sha256"])
    ledger = setup.server.ledger
    return Replayed(digest, recorded, digest == recorded, ledger.updates, ledger.model.version)


class _Silent:
    """A journal that keeps nothing."""

    def __init__(self, setup: Setup, observer: Observer | None) -> None:
        self._setup, self._observer = setup, observer

    def accept(self, event: Event) -> None: ...

    def commit(self, facts: Sequence[Fact]) -> None:
        if self._observer is not None:
            self._observer.progressed(self._setup)


def _simulated(setup: Setup) -> Transport:
    ledger, data, refined = setup.server.ledger, setup.data, bool(setup.config.refine)
    model = setup.server.model
    down = 4 * (model.weights.numel() + model.buffers.numel())
    return SimulatedTransport(
        setup.population,
        setup.executor,
        down_bytes=down,
        up_bytes=down + (4 * len(data.unlabeled) * data.classes if refined else 0),
        now_s=ledger.event_s,
        away=ledger.away,
    )


def _drive(setup: Setup, recorder: Recorder, transport: Transport) -> Result:
    """Serve until the end, then write it down."""
    folder, observer = recorder.folder, recorder.observer
    if observer is not None:
        observer.started(setup)
    journal: Journal = recorder
    try:
        with _graceful(recorder):
            serve(setup.server, transport, journal)
        result = recorder.result()
        if folder is not None:
            folder.flush()
            folder.save_model(setup.learner.state_dict(setup.server.output))
            folder.save_summary(result.to_dict())
            folder.drop_checkpoints()
        return result
    finally:
        setup.executor.close()
        if folder is not None:
            folder.close()


@contextlib.contextmanager
def _graceful(recorder: Recorder) -> Iterator[None]:
    """Ctrl-C asks the run to stop after the event it is at; a second one stops it where it is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: Any) -> None:
        if recorder.stop_requested:
            raise KeyboardInterrupt
        recorder.stop_requested = True

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder that goes away."""
    return tempfile.TemporaryDirectory(prefix="fedecho-")
