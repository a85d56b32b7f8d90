"""Strategies that do not wait: Flower's `start`, fedecho's server behind it."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result as FlowerResult
from flwr.serverapp.strategy import Strategy
from torch import Tensor, nn

from .. import __version__
from ..config.config import Config
from ..config.registry import ALIASES, algorithm_classes
from ..config.toml import read_toml, resolve
from ..core.errors import ConfigError, RecordError
from ..core.messages import Model
from ..experiment.live import prepare_live
from ..experiment.run import drive, warn_of_changes
from ..experiment.setup import Setup
from ..learning.learner import Learner
from ..runs.folder import RunFolder
from .arrays import Arrays, Keys
from .codec import RecordCodec
from .journal import Journal, Story, numbers
from .transport import FlowerTransport

log = logging.getLogger("flwr")


BEGAN = "began_at"
"""Under which a run's folder notes when it began, in seconds since the epoch."""


EVERYONE = 2**31
"""A concurrency that is never reached: every idle node gets work."""


class Asynchronous(Strategy):
    """A Flower strategy that never waits for a round.

    Nodes get work whenever they are free, and every M-th answer makes a new model version:

        strategy = Asynchronous("ca2fl", buffer_size=5, lr=0.5, run_dir="state")
        result = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=100, evaluate_fn=judge)

    The clients' apps stay as they are. What rounds are elsewhere are model versions here: `num_rounds` is how many are
    made, and `server-round` in a task's config is one more than the version that it starts from, so a client that
    lowers its step size round by round goes on doing so.

    Args:
        method: a rule (`fedecho list algorithms`), `rule+stage`, or an alias such as "fedecho". The classes below have
            theirs fixed.
        model: builds the module that the clients train; needed by stages, which learn on the server. A function that
            can be imported by its name, so that `fedecho replay` finds it.
        unlabeled: U, [|U|, *shape] float32, likewise.
        predictions: who predicts on U: the "server" (from the weights it gets), or the "client" by our client mod; then
            the server does so for those that have no mod.
        concurrency: nodes at work at once; None: all that are there.
        run_dir: the folder for the run's records and its state. With it nothing that was accepted is ever lost: a
            ServerApp that is started again on it goes on from there. None keeps nothing.
        keep: "checkpoint" keeps what clients sent until a checkpoint holds what came of it; "all" keeps everything, for
            a replay from the beginning.
        checkpoint_every_s: seconds between checkpoints.
        min_available_nodes: nodes to wait for before the start.
        fraction_evaluate: share of the nodes that are asked to evaluate on their own data, the idle ones first; nobody
            waits for their answers.
        evaluate_every: versions between evaluations, on the server (`evaluate_fn`) and on clients.
        refresh_s: seconds between looks at which nodes are there.
        seed: of the server's draws (who works next, mini-batches of U, noise); None draws one, and records it.
        device: where the server learns.
        threads: torch threads of the server.
        weighted_by_key: the metric that counts a client's examples.
        arrayrecord_key: what the app calls its arrays.
        configrecord_key: what it calls its config.
        accuracy_key: the metric of `evaluate_fn` that is the accuracy in the records and in reports.
        loss_key: likewise the loss.
        name: what the run is called in reports.
        server: further settings of the server (`fedecho.server.settings.ServerConfig`), e.g. {"ema": 0.9}.
        settings: the rule's own, by their names; a stage's with its name before them: `echo_lr=0.02`.

    Raises:
        ConfigError: with every fault.
    """

    method: ClassVar[str] = ""

    def __init__(
        self,
        method: str = "",
        *,
        model: Callable[[], nn.Module] | None = None,
        unlabeled: Tensor | None = None,
        predictions: Literal["server", "client"] = "server",
        concurrency: int | None = None,
        run_dir: str | Path | None = None,
        keep: Literal["checkpoint", "all"] = "checkpoint",
        checkpoint_every_s: float = 30.0,
        min_available_nodes: int = 2,
        fraction_evaluate: float = 0.0,
        evaluate_every: int = 1,
        refresh_s: float = 3.0,
        seed: int | None = None,
        device: str = "cpu",
        threads: int = 1,
        weighted_by_key: str = "num-examples",
        arrayrecord_key: str = "arrays",
        configrecord_key: str = "config",
        accuracy_key: str = "accuracy",
        loss_key: str = "loss",
        name: str = "flower",
        server: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        if self.method and method:
            raise ConfigError(f"{type(self).__name__} is {self.method}; give `method` to Asynchronous")
        if predictions not in ("server", "client"):
            raise ConfigError(f"predictions is {predictions!r}; it must be 'server' or 'client'")
        if not 0 <= fraction_evaluate <= 1:
            raise ConfigError(f"fraction_evaluate is {fraction_evaluate}; it must be from 0 to 1")
        if not 0 < refresh_s < math.inf:
            raise ConfigError(f"refresh_s is {refresh_s}; it must be above 0 and finite")
        if min_available_nodes < 1:
            raise ConfigError(f"min_available_nodes is {min_available_nodes}; it must be at least 1")
        self._model, self._unlabeled, self._predictions = model, unlabeled, predictions
        self._run_dir = None if run_dir is None else Path(run_dir)
        self._seed, self._least, self._fraction = seed, min_available_nodes, fraction_evaluate
        self._refresh_s = refresh_s
        self._keys = Keys(arrayrecord_key, configrecord_key, weighted_by_key)
        self._judged_by = {"accuracy": accuracy_key, "loss": loss_key}
        called = self.method or method or "fedbuff"
        rule, *stages = ALIASES.get(called, called).split("+")
        own, theirs = _dealt(settings, stages)
        if concurrency is None and (needed := _wants_a_number(rule, own)):
            raise ConfigError(f"{rule} needs to know how many nodes work at once: give `concurrency`, or `{needed}`")
        tables: dict[str, Any] = {
            "experiment": {"name": name, "versions": 1, "device": device},
            "data": {"dataset": "flower"},
            "server": {"concurrency": EVERYONE if concurrency is None else concurrency, **(server or {})},
            "algorithm": {"name": rule, **own},
            "stages": [{"name": stage, **theirs[stage]} for stage in stages],
            "transport": {"name": "flower", "evaluate_every": evaluate_every},
            "executor": {"threads": threads},
            "records": {"checkpoint_every_s": checkpoint_every_s, "keep": keep},
        }
        self._tables = resolve(tables)
        self._config = Config.from_dict(self._tables)  # every fault is told now, not when the federation is waiting

    # -- what Flower asks of a strategy

    def summary(self) -> None:
        """Log what will run."""
        rule = self._config.algorithm
        log.info("\t├──> Asynchronous, fedecho %s: %s", __version__, self._config.method)
        log.info("\t│\t└── %s", rule)
        for stage in self._config.stages:
            log.info("\t│\t└── %s", stage)
        log.info("\t└──> State: %s", self._run_dir or "none: a server that stops loses everything")

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """There are no rounds: whoever asks for one would make the training synchronous."""
        raise ConfigError(
            f"{type(self).__name__} has no rounds, and was asked for one: a strategy around it (one of Flower's "
            "differential-privacy wrappers?) would make it synchronous; call its own start(), and for central privacy "
            "give it the stage central_dp"
        )

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """See `configure_train`."""
        self.configure_train(server_round, ArrayRecord(), ConfigRecord(), None)  # type: ignore[arg-type]
        raise AssertionError

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """See `configure_train`."""
        return self.configure_train(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """See `configure_train`."""
        return self.aggregate_train(server_round, replies)[1]

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 43_200.0,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> FlowerResult:
        """Train until `num_rounds` model versions are made.

        Args:
            grid: Flower's.
            initial_arrays: version 0.
            num_rounds: versions to make. A run that ended can be started again with more.
            timeout: seconds after which a task without an answer is lost; generous, for lateness is no loss here.
            train_config: goes with every task.
            evaluate_config: goes with every evaluation on a client.
            evaluate_fn: (version, arrays) to metrics, on the server, between events.

        Raises:
            ConfigError: when the arrays, the model and U do not fit each other, or the state is another run's.
            RecordError: when the state cannot be read.
            Diverged, Stalled: when the run cannot go on.
        """
        log.info("Starting %s strategy:", type(self).__name__)
        self.summary()
        folder, config = self._open(num_rounds, grid)
        story = Story()
        arrays: list[Arrays] = []

        def read(learner: Learner | None) -> Model:
            arrays.append(Arrays(initial_arrays, learner))
            return arrays[0].initial

        def judge(model: Model) -> dict[str, float | None]:
            found = None if evaluate_fn is None else evaluate_fn(model.version, arrays[0].record(model))
            told = numbers(found or {})
            story.judged[model.version] = told
            return {ours: told.get(theirs) for ours, theirs in self._judged_by.items()}

        try:
            setup = prepare_live(config, read, self._model, self._unlabeled, judge, lambda _, m: arrays[0].tensors(m))
            return self._serve(
                setup, folder, story, arrays[0], grid, timeout, train_config, evaluate_config or ConfigRecord()
            )
        finally:
            if folder is not None:
                folder.close()

    # -- inside

    def _serve(
        self,
        setup: Setup,
        folder: RunFolder | None,
        story: Story,
        arrays: Arrays,
        grid: Grid,
        timeout: float,
        train_config: ConfigRecord | None,
        evaluate_config: ConfigRecord,
    ) -> FlowerResult:
        config, server = setup.config, setup.server
        rule = config.algorithm
        post = RecordCodec(
            arrays,
            self._keys,
            train_config or ConfigRecord(),
            config.to_dict()["algorithm"] if rule.client_rule is not None else None,
            rule.reports,
            self._unlabeled if self._predictions == "client" and config.stages else None,
        )
        transport: FlowerTransport

        def ask(version: int) -> None:
            if not transport.live:  # they were asked when the last server made it
                return
            nodes = transport.idle
            some = nodes[: math.ceil(self._fraction * len(nodes))]
            told = post.config(dict(evaluate_config), version)
            content = RecordDict({self._keys.arrays: post.record(server.model), self._keys.config: told})
            transport.evaluate(version, content, some)

        journal = Journal(setup, folder, story, ask if self._fraction else None)
        backlog = None
        if folder is not None:
            began_at = float(folder.noted(BEGAN) or time.time())
            checkpoint = folder.load_checkpoint(config.experiment.device)
            if checkpoint is None and folder.heard:
                raise RecordError(
                    f"{folder.path} has heard {folder.heard} events, and no checkpoint of it can be read: nothing is "
                    "thrown away; restore a checkpoint, or give another run_dir"
                )
            if checkpoint is None:
                folder.forget_after(-1)  # new, or killed before anybody was asked anything
                folder.save_environment(setup.environment())
                start = {"weights": server.model.weights, "buffers": server.model.buffers}
                if self._unlabeled is not None and config.stages:
                    start["unlabeled"] = self._unlabeled
                folder.save_start(start)
                folder.note(BEGAN, repr(began_at))
            else:
                warn_of_changes(folder, setup)
                journal.restore(*checkpoint)
                backlog = folder.again(checkpoint[0])
                log.info("Going on at version %s and what was heard after it (%s)", server.model.version, folder.path)
        else:
            began_at = time.time()
        away = set(server.state.away)
        transport = FlowerTransport(
            grid,
            post,
            began_at,
            after_s=server.state.event_s,
            names=folder.names() if folder is not None else {},
            here=[client for client in range(server.clients) if client not in away],
            backlog=backlog,
            timeout_s=timeout,
            ttl_s=max(timeout, 43_200.0),
            refresh_s=self._refresh_s,
            evaluated=journal.evaluated,
        )
        try:
            result = drive(setup, journal, transport)
        finally:
            transport.close()
        log.info("Done: %s versions from %s updates in %.1f s", result.versions, result.updates, result.virtual_time_s)
        return story.result(arrays.record(server.output))

    def _open(self, num_rounds: int, grid: Grid) -> tuple[RunFolder | None, Config]:
        """The run's folder, new or as it was left, and what is run; waits for the first nodes where it is new."""
        tables = {name: dict(table) if isinstance(table, Mapping) else table for name, table in self._tables.items()}
        tables["experiment"]["versions"] = num_rounds
        if name := _import_name(self._model):
            tables["model"] = {"name": name}
        drawn = int.from_bytes(os.urandom(8), "big") >> 1  # as many bits as TOML's integers have
        tables["experiment"]["seed"] = drawn if self._seed is None else self._seed
        folder = None
        if self._run_dir is not None and (self._run_dir / "config.toml").is_file():
            folder = RunFolder.open(self._run_dir)
            folder.lock()
        if self._run_dir is None or folder is None or folder.noted(BEGAN) is None:
            tables["data"]["clients"] = len(self._wait(grid))
            config = Config.from_dict(tables)
            if folder is not None:  # of a start that failed before anybody was asked anything
                folder.rewrite(config.to_toml())
            elif self._run_dir is not None:
                folder = RunFolder.create(self._run_dir, config.to_toml(), {})
            return folder, config
        before = read_toml(folder.path / "config.toml")
        tables["data"]["clients"] = before["data"]["clients"]
        if self._seed is None:
            tables["experiment"]["seed"] = before["experiment"]["seed"]
        config = Config.from_dict(tables)
        changed = _differences(before, config.to_dict())
        more = changed.pop("experiment.versions", None)
        if changed:
            folder.close()
            where = f"{self._run_dir} holds another run"
            raise ConfigError(
                [f"{where}: {text}; give the same settings, or another run_dir" for text in changed.values()]
            )
        if more:
            folder.rewrite(config.to_toml())
        return folder, config

    def _wait(self, grid: Grid) -> Sequence[int]:
        """The nodes that are there, once they are enough."""
        told = 0.0
        while True:
            nodes = list(grid.get_node_ids())
            if len(nodes) >= self._least:
                return nodes
            if time.monotonic() - told > 30:
                log.info("Waiting for nodes: %s connected, %s wanted", len(nodes), self._least)
                told = time.monotonic()
            time.sleep(1)


def _wants_a_number(rule: str, own: Mapping[str, Any]) -> str | None:
    """The setting of the rule that would be the concurrency, if there is one and it is not given."""
    cls = algorithm_classes().get(rule)
    fields = {f.name for f in dataclasses.fields(cls)} if cls is not None else set()  # type: ignore[arg-type]
    return next((name for name in ("cohort", "concurrency") if name in fields and name not in own), None)


def _dealt(settings: Mapping[str, Any], stages: Sequence[str]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """A strategy's settings: the rule's, and each stage's."""
    own: dict[str, Any] = {}
    theirs: dict[str, dict[str, Any]] = {stage: {} for stage in stages}
    for name, value in settings.items():
        stage = next((stage for stage in stages if name.startswith(f"{stage}_")), None)
        if stage is None:
            own[name] = value
        else:
            theirs[stage][name.removeprefix(f"{stage}_")] = value
    return own, theirs


def _import_name(build: Callable[[], nn.Module] | None) -> str:
    """`module:name`, by which a function or class can be imported again; empty where it cannot."""
    module, name = getattr(build, "__module__", ""), getattr(build, "__qualname__", "")
    return f"{module}:{name}" if module and name and "<" not in name and module != "__main__" else ""


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Every setting that differs, by its key, in a line each."""
    found: dict[str, str] = {}
    for key in sorted({*before, *now}):
        path = f"{above}{key}"
        then, here = before.get(key), now.get(key)
        if isinstance(then, Mapping) and isinstance(here, Mapping):
            found |= _differences(then, here, f"{path}.")
        elif then != here:
            found[path] = f"{path} was {json.dumps(then)} and is {json.dumps(here)}"
    return found
