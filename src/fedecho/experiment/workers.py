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
from ..executors import executor_class
from ..executors.arena import SharedArena
from ..executors.base import Executor, ExecutorContext, Resources
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
    """The worker processes on this machine that the run's executor will use; 0 where there are none."""
    settings = config.executor
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    resources = Resources(
        workers=settings.workers or max(1, cores // settings.threads),
        device=config.experiment.device,
        concurrency=config.server.concurrency,
        in_worker=multiprocessing.parent_process() is not None,
    )
    return executor_class(settings.name).local_workers(resources)


def make_executor(config: Config, learner: Learner, server: Server, shared: SharedArena | None) -> Executor:
    limit, tables = config.experiment.updates, config.to_dict()

    def wanted() -> float:
        return math.inf if limit is None else limit - server.state.updates

    context = ExecutorContext(
        settings=config.executor,
        device=config.experiment.device,
        model_name=config.model.name,
        learner=learner,
        workers=worker_count(config),
        shared_factory=None if shared is None else _LearnerFactory(tables, shared),
        portable_factory=lambda: _RemoteLearnerFactory(tables, training_part(learner)),
        wanted=wanted,
    )
    return executor_class(config.executor.name).create(context)
