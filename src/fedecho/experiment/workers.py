"""Learners and executors, in this process and in others."""

from __future__ import annotations

import math
import multiprocessing
import os
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ..config.config import Config
from ..core.errors import ConfigError
from ..core.keys import Key
from ..data.federation import Federation
from ..executors.arena import SharedArena
from ..executors.auto import Auto
from ..executors.base import Executor
from ..executors.inline import Inline
from ..executors.processes import Processes
from ..executors.ray import Ray
from ..executors.vectorized import Vectorized
from ..learning import models
from ..learning.learner import Learner
from ..server.server import Server


def make_learner(config: Config, data: Federation) -> Learner:
    """The learner, here or in a worker; it works on as many threads as the configuration says."""
    torch.set_num_threads(config.executor.threads)
    shape = tuple(data.inputs.shape[1:])
    model = config.model

    def make() -> nn.Module:
        try:
            module = models.build(model.name, shape, data.classes, data.causal, data.pad, dict(model.options))
        except TypeError as fault:
            raise ConfigError(f"[model] {model.name} cannot be built: {fault}; check the keys of the table") from fault
        if not isinstance(module, nn.Module):
            raise ConfigError(f"[model] {model.name} gave a {type(module).__name__}; it must give an nn.Module")
        return module

    key, rule, device = Key(config.experiment.seed), config.algorithm.client_rule, config.experiment.device
    return Learner(make, data, config.client, key, rule, device, model.memory_format, config.objective)


def training_part(learner: Learner) -> Federation:
    """What workers need of the data."""
    none = (torch.zeros(0), torch.zeros(0))
    return replace(learner.laid_out(), validation=none, test=none)


@dataclass(frozen=True)
class _LearnerFactory:
    """Makes a worker's learner. A user's own rule and model travel by name, the data as shared memory."""

    tables: dict[str, Any]
    data: SharedArena

    def __call__(self) -> Learner:
        return make_learner(Config.from_dict(self.tables), self.data.read(0, copy=False))


@dataclass(frozen=True)
class _RemoteLearnerFactory:
    """Likewise, with the data themselves: for workers that may be on another machine."""

    tables: dict[str, Any]
    data: Federation

    def __call__(self) -> Learner:
        return make_learner(Config.from_dict(self.tables), self.data)


def worker_count(config: Config) -> int:
    """The worker processes on this machine's shared memory that a run may use; 0 where there is none.

    `auto` stays there where nothing is gained: on a GPU, with one job at a time or one core to use, and in a process
    that was itself started beside others, as those of `compare --jobs` are.
    """
    how = config.executor
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = how.workers or max(1, cores // how.threads)
    if how.name == "processes":
        return workers
    alone = config.experiment.device != "cpu" or config.server.concurrency == 1
    if (
        how.name in ("inline", "ray", "vectorized")
        or alone
        or workers == 1
        or multiprocessing.parent_process() is not None
    ):
        return 0
    return workers


def make_executor(config: Config, learner: Learner, server: Server, shared: SharedArena | None) -> Executor:
    how, limit = config.executor, config.experiment.updates

    def wanted() -> float:
        return math.inf if limit is None else limit - server.state.updates

    if how.name == "ray":
        gpu, kit = config.experiment.device != "cpu", _RemoteLearnerFactory(config.to_dict(), training_part(learner))
        return Ray(kit, how.workers, wanted, how.address, how.threads, gpu)
    gpu = torch.device(config.experiment.device).type == "cuda"
    if how.name == "vectorized" or (how.name == "auto" and gpu):
        reason = learner.batching_unsupported_reason
        if reason is None:
            return Vectorized(learner, how.batch, wanted)
        if how.name == "vectorized":
            raise ConfigError(
                f"executor.name is 'vectorized', and model.name {config.model.name!r} {reason}: change the model, or "
                "take another executor"
            )
    if shared is None:
        return Inline(learner)
    make = _LearnerFactory(config.to_dict(), shared)

    def workers() -> Executor:
        return Processes(make, worker_count(config), wanted)

    return workers() if config.executor.name == "processes" else Auto(learner, workers)
