"""From a configuration to the parts of a run."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import os
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from . import population as populations
from .config import Config
from .data.federation import Federation, federation
from .errors import ConfigError
from .learning.learner import Learner
from .learning.models import MODELS
from .registry import import_object
from .rng import Key
from .server import Server
from .transports.executors import Auto, Executor, Inline, Processes, processes
from .transports.executors.memory import Memory


@dataclass(frozen=True)
class Setup:
    """The parts of a run."""

    config: Config
    data: Federation
    population: populations.Population
    learner: Learner
    server: Server
    executor: Executor
    seconds: float
    """What it took to build them."""


def prepare(config: Config) -> Setup:
    """Build every part of a run.

    Raises:
        ConfigError, DataError, MissingExtra: for what cannot be built, with the remedy.
    """
    began = time.perf_counter()
    parallel = _workers(config) > 0
    if parallel:
        processes.prepare()
    key = Key(config.experiment.seed)
    settings = {f.name: getattr(config.population, f.name) for f in dataclasses.fields(config.population)}
    population = populations.build(config.data.clients, key, **settings)
    data = federation(config.data, key.fold("data"), population.members("slow"))
    try:
        torch.zeros(1, device=config.experiment.device)
    except (RuntimeError, AssertionError) as fault:  # torch raises either, depending on how it was built
        why = str(fault).splitlines()[0]
        raise ConfigError(f"experiment.device {config.experiment.device!r} cannot be used ({why}); try 'cpu'") from None
    learner = _learner(config, data)
    _check_memory(config, len(learner.initial().weights), len(data.unlabeled) * data.classes)
    shared = None
    if parallel:  # everybody trains on the same copy of the data, this process too
        shared = Memory(1)
        none = (torch.zeros(0), torch.zeros(0))
        shared.write(0, replace(learner.laid_out(), validation=none, test=none))
        data = replace(shared.read(0, copy=False), validation=data.validation, test=data.test)
        learner = _learner(config, data)
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
    executor = _executor(config, learner, server, shared)
    return Setup(config, data, population, learner, server, executor, time.perf_counter() - began)


def _learner(config: Config, data: Federation) -> Learner:
    """The learner, here or in a worker; it works on as many threads as the configuration says."""
    torch.set_num_threads(config.executor.threads)
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

    key, rule, device = Key(config.experiment.seed), config.algorithm.client_rule, config.experiment.device
    return Learner(make, data, config.client, key, rule, device, model.memory_format)


@dataclass(frozen=True)
class _Workshop:
    """Makes a worker's learner. A user's own rule and model travel by name, the data as shared memory."""

    tables: dict[str, Any]
    data: Memory

    def __call__(self) -> Learner:
        return _learner(Config.from_dict(self.tables), self.data.read(0, copy=False))


def _workers(config: Config) -> int:
    """The worker processes that a run may use; 0 where it trains in its own.

    `auto` stays there where nothing is gained: on a GPU, with one job at a time or one core to use, and in a process
    that was itself started beside others, as those of `compare --jobs` are.
    """
    how = config.executor
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = how.workers or max(1, cores // how.threads)
    if how.name == "processes":
        return workers
    alone = config.experiment.device != "cpu" or config.server.concurrency == 1
    if how.name == "inline" or alone or workers == 1 or multiprocessing.parent_process() is not None:
        return 0
    return workers


def _executor(config: Config, learner: Learner, server: Server, shared: Memory | None) -> Executor:
    if shared is None:
        return Inline(learner)
    make, limit = _Workshop(config.to_dict(), shared), config.experiment.updates

    def wanted() -> float:
        return math.inf if limit is None else limit - server.ledger.updates

    def workers() -> Executor:
        return Processes(make, _workers(config), wanted)

    return workers() if config.executor.name == "processes" else Auto(learner, workers)


def _check_memory(config: Config, d: int, outputs: int) -> None:
    """Refuse a rule or a stage whose state cannot fit into the machine's memory."""
    if config.experiment.device != "cpu" or not hasattr(os, "sysconf"):
        return
    clients = config.data.clients
    vectors = config.algorithm.memory(clients)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    needs = {
        f"algorithm.name {config.algorithm.name!r} keeps up to {vectors} vectors of the model's {d:,} weights": (
            vectors * d * 4,
            "take fewer clients, a smaller model, or a rule that keeps less",
        )
    }
    for stage in config.refine:
        about = f"refine.name {stage.name!r} keeps the predictions of every client, {outputs:,} numbers each,"
        remedy = "set refine.max_rows, or take refine.row_dtype = 'float16' or a smaller data.unlabeled_size"
        needs[about] = (stage.memory_bytes(clients, outputs), remedy)
    if sum(needed for needed, _ in needs.values()) > there:
        raise ConfigError(
            [
                f"{about} for {clients} clients, {needed / 1e9:.1f} GB; this machine has {there / 1e9:.1f} GB: {remedy}"
                for about, (needed, remedy) in needs.items()
                if needed > there / 10
            ]
        )
