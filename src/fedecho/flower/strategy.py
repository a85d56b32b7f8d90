"""Strategies that do not wait: Flower's `start`, fedecho's server behind it."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result as FlowerResult
from flwr.serverapp.strategy import Strategy
from torch import Tensor, nn

from .. import __version__
from ..config.config import Config
from ..config.registry import ALIASES
from ..config.toml import resolve
from ..core.errors import ConfigError
from ..core.messages import Model
from ..experiment.live import prepare_live
from ..experiment.run import drive
from ..experiment.setup import Setup
from ..learning.learner import Learner
from ..runs.folder import RunFolder
from ..server.stage_runner import common_format
from .arguments import argument_faults, concurrency_setting, import_name, raise_faults, range_faults, split_settings
from .arrays import LEGACY_KEYS, Arrays, both_ways
from .codec import RecordCodec
from .journal import Journal, Story, numbers
from .state import note_stop, open_folder, restore
from .transport import FlowerTransport

log = logging.getLogger("flwr")


LONGEST_TASK_S = 43_200.0
"""Seconds after which a task is lost unless `timeout` says otherwise."""


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
        patience: a task is lost when it takes this many times as long as the longest of its node's last twenty, once
            the node has answered three; None waits `timeout` for every node.
        choose_nodes: which of the nodes that are there may get work: ids to ids; None: all.
        stop_when: called with (version, metrics of `evaluate_fn`) after each evaluation on the server; True ends the
            run there, as if `num_rounds` were reached.
        seed: of the server's draws (who works next, mini-batches of U, noise); None draws one, and records it.
        device: where the server learns.
        threads: torch threads of the server.
        legacy: the clients' app has a `client_fn` (a `Client` or `NumPyClient`), whose records have other names; the
            three keys below are then not looked at.
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
        patience: float | None = None,
        choose_nodes: Callable[[Sequence[int]], Iterable[int]] | None = None,
        stop_when: Callable[[int, Mapping[str, float]], bool] | None = None,
        seed: int | None = None,
        device: str = "cpu",
        threads: int = 1,
        legacy: bool = False,
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
        in_range = (predictions, fraction_evaluate, refresh_s, min_available_nodes, patience)
        raise_faults(argument_faults(settings) + range_faults(*in_range))
        self._model, self._unlabeled, self._predictions = model, unlabeled, predictions
        self._run_dir = None if run_dir is None else Path(run_dir)
        self._seed, self._least, self._fraction = seed, min_available_nodes, fraction_evaluate
        self._refresh_s, self._patience = refresh_s, patience
        self._choose_nodes, self._stop_when = choose_nodes, stop_when
        self._keys = LEGACY_KEYS if legacy else both_ways(arrayrecord_key, configrecord_key, weighted_by_key)
        self._judged_by = {"accuracy": accuracy_key, "loss": loss_key}
        called = self.method or method or "fedbuff"
        rule, *stages = ALIASES.get(called, called).split("+")
        own, of_stages = split_settings(settings, stages)
        if concurrency is None and (needed := concurrency_setting(rule, own)):
            raise ConfigError(f"{rule} needs to know how many nodes work at once: give `concurrency`, or `{needed}`")
        tables: dict[str, Any] = {
            "experiment": {"name": name, "versions": 1, "device": device},
            "data": {"dataset": "flower"},
            "server": {"concurrency": EVERYONE if concurrency is None else concurrency, **(server or {})},
            "algorithm": {"name": rule, **own},
            "stages": [{"name": stage, **of_stages[stage]} for stage in stages],
            "transport": {"name": "flower", "evaluate_every": evaluate_every},
            "executor": {"threads": threads},
            "records": {"checkpoint_every_s": checkpoint_every_s, "keep": keep},
        }
        self._tables = resolve(tables)
        self._config = Config.from_dict(self._tables)  # raises every fault now, not when the federation waits

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
        timeout: float | None = None,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> FlowerResult:
        """Train until `num_rounds` model versions are made.

        Args:
            grid: Flower's.
            initial_arrays: version 0.
            num_rounds: versions to make. A run that ended can be started again with more.
            timeout: seconds after which a task without an answer is lost; None is 12 hours. Be generous: lateness is no
                loss here.
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
        folder, config = open_folder(
            self._run_dir, self._tables_of(num_rounds), self._seed is not None, lambda: len(self._wait(grid))
        )
        story, threads = Story(), torch.get_num_threads()
        arrays: list[Arrays] = []
        stop: list[Callable[[int], None]] = []  # known once the server is

        def read(learner: Learner | None) -> Model:
            arrays.append(Arrays(initial_arrays, learner))
            return arrays[0].initial

        def judge(model: Model) -> dict[str, float | None]:
            record = None if evaluate_fn is None else evaluate_fn(model.version, arrays[0].record(model))
            metrics = story.judged[model.version] = numbers(record or {})
            if self._stop_when is not None and stop and self._stop_when(model.version, metrics):
                stop[0](model.version)
            return {name: metrics.get(key) for name, key in self._judged_by.items()}

        try:
            setup = prepare_live(config, read, self._model, self._unlabeled, judge, lambda _, m: arrays[0].tensors(m))
            stop.append(lambda version: end_at(setup, folder, max(1, version)))
            codec = self._codec(setup, arrays[0], train_config or ConfigRecord())
            timeout_s = LONGEST_TASK_S if timeout is None else timeout
            return self._serve(setup, folder, story, codec, grid, timeout_s, evaluate_config or ConfigRecord())
        finally:
            torch.set_num_threads(threads)
            if folder is not None:
                folder.close()

    # -- inside

    def _codec(self, setup: Setup, arrays: Arrays, train_config: ConfigRecord) -> RecordCodec:
        """Writes this run's messages and reads their answers."""
        config, learner, rule = setup.config, setup.learner, setup.config.algorithm
        unlabeled, predictions = None, None
        wanted = any(stage.needs_predictions for stage in config.stages)
        if self._predictions == "client" and config.stages:
            unlabeled = self._unlabeled
        if unlabeled is not None and wanted and learner is not None:
            form = common_format(config.stages)
            predictions = (learner.prediction_count, form.width(learner.classes)), not form.top_k
        return RecordCodec(
            arrays,
            self._keys,
            train_config,
            config.to_dict()["algorithm"] if rule.client_rule is not None else None,
            rule.reports,
            unlabeled,
            predictions,
        )

    def _serve(
        self,
        setup: Setup,
        folder: RunFolder | None,
        story: Story,
        codec: RecordCodec,
        grid: Grid,
        timeout_s: float,
        evaluate_config: ConfigRecord,
    ) -> FlowerResult:
        server, arrays = setup.server, codec.arrays
        transport: FlowerTransport

        def ask(version: int) -> None:
            if not transport.live:  # they were asked when the last server made it
                return
            nodes = transport.idle
            asked_nodes = nodes[: math.ceil(self._fraction * len(nodes))]
            config = codec.config(dict(evaluate_config), version)
            keys = self._keys
            content = RecordDict({keys.evaluated_arrays: codec.record(server.model), keys.evaluated_config: config})
            transport.evaluate(version, content, asked_nodes)

        def judged(client: int, refused: str | None) -> None:
            transport.judged(client, refused)

        journal = Journal(setup, folder, story, ask if self._fraction else None, judged)
        began_at, backlog = time.time(), None
        if folder is not None:
            start = {"weights": server.model.weights, "buffers": server.model.buffers}
            if self._unlabeled is not None and setup.config.stages:
                start["unlabeled"] = self._unlabeled
            began_at, backlog = restore(folder, setup, journal, start)
        away = set(server.state.away)
        transport = FlowerTransport(
            grid,
            codec,
            began_at,
            after_s=server.state.event_s,
            names=folder.names() if folder is not None else {},
            here=[client for client in range(server.clients) if client not in away],
            backlog=backlog,
            timeout_s=timeout_s,
            ttl_s=max(timeout_s, LONGEST_TASK_S),
            refresh_s=self._refresh_s,
            evaluated=journal.evaluated,
            patience=self._patience,
            choose=self._choose_nodes,
        )
        try:
            result = drive(setup, journal, transport)
        finally:
            transport.close()
        log.info("Done: %s versions from %s updates in %.1f s", result.versions, result.updates, result.virtual_time_s)
        return story.result(arrays.record(server.output))

    def _tables_of(self, num_rounds: int) -> dict[str, Any]:
        """The configuration's tables of a run of so many versions."""
        tables = {name: dict(table) if isinstance(table, Mapping) else table for name, table in self._tables.items()}
        tables["experiment"]["versions"] = num_rounds
        if name := import_name(self._model):
            tables["model"] = {"name": name}
        drawn = int.from_bytes(os.urandom(8), "big") >> 1  # as many bits as TOML's integers have
        tables["experiment"]["seed"] = drawn if self._seed is None else self._seed
        return tables

    def _wait(self, grid: Grid) -> Sequence[int]:
        """The nodes that are there, once they are enough."""
        logged_s = 0.0
        while True:
            nodes = list(grid.get_node_ids())
            if len(nodes) >= self._least:
                return nodes
            if time.monotonic() - logged_s > 30:
                log.info("Waiting for nodes: %s connected, %s wanted", len(nodes), self._least)
                logged_s = time.monotonic()
            time.sleep(1)


def end_at(setup: Setup, folder: RunFolder | None, version: int) -> None:
    """Let the run end with this version, which was just made."""
    setup.server.stop = dataclasses.replace(setup.server.stop, versions=version)
    if folder is not None:
        note_stop(folder, setup.config, version)
