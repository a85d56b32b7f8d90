"""Faults in the values of a configuration.

The bounds of a setting stand beside its field. What goes together is known by the rule and the stages (`check`). Here
is what is left: settings of one table that depend on another, and names of parts that are found elsewhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..algorithms.base import Algorithm, RunShape
from ..core.bounds import settings_faults
from ..data import features, sources
from ..data import tokens as tokenizers
from ..data.federation import DataConfig
from ..data.natural import schemes as natural_schemes
from ..data.partition import schemes
from ..data.unlabeled import kinds as unlabeled_kinds
from ..executors import EXECUTORS
from ..server.settings import ServerConfig
from ..simulation.settings import PopulationConfig
from ..stages.base import Stage
from .names import suggestion
from .tables import ExecutorConfig, ExperimentConfig, TransportConfig


def table_faults(path: str, settings: Any) -> list[str]:
    """What is out of its bounds in one table, whatever the others say."""
    if isinstance(settings, PopulationConfig):  # which is checked with the number of clients
        return []
    return settings_faults(path, settings)


def run_shape(server: ServerConfig, data: DataConfig, transport: TransportConfig | None) -> RunShape:
    """What rules may know of a run."""
    live = transport is not None and transport.name != "simulated"
    return RunShape(data.clients, server.concurrency, server.buffer_size, server.refill, live)


def cross_faults(parts: Mapping[str, Any]) -> list[str]:
    """What no table can see alone. A part that could not be read is None: whatever looks at it is left for later."""
    data: DataConfig | None = parts["data"]
    server: ServerConfig | None = parts["server"]
    executor: ExecutorConfig | None = parts["executor"]
    population: PopulationConfig | None = parts["population"]
    transport: TransportConfig | None = parts["transport"]
    faults = list(_experiment_faults(parts["experiment"], data))
    if server is not None and data is not None:
        shape = run_shape(server, data, transport)
        if not shape.live and server.concurrency > data.clients:  # live clients come and go as they like
            faults.append(
                f"server.concurrency ({server.concurrency}) exceeds data.clients ({data.clients}): more jobs than "
                "workers; lower one or raise the other"
            )
        faults += parts_faults(parts["algorithm"], parts["stages"], shape)
    if data is not None:
        faults += _data_faults(data, live=transport is not None and transport.name != "simulated")
    if executor is not None:
        faults += _executor_faults(executor)
    if population is not None:
        faults += [f"[population] {fault}" for fault in population.faults(data.clients if data is not None else None)]
    return faults


def parts_faults(algorithm: Algorithm | None, stages: Sequence[Stage | None], shape: RunShape) -> list[str]:
    """What the rule and the stages say of the run and of each other."""
    if algorithm is None:
        return []
    readable = [stage for stage in stages if stage is not None]
    faults = algorithm.check(shape)
    for stage in readable:
        faults += stage.check(algorithm, [other for other in readable if other is not stage])
    return faults


def _experiment_faults(experiment: ExperimentConfig | None, data: DataConfig | None) -> Iterator[str]:
    if experiment is None:
        return
    if all(limit is None for limit in dataclasses.astuple(experiment.stop)):
        yield "[experiment] has no limit; set updates, versions or virtual_time_s"
    if data is not None and experiment.evaluate == "validation" and data.validation == 0:
        yield "experiment.evaluate is 'validation' but data.validation is 0; keep some examples for it"


def _data_faults(data: DataConfig, live: bool) -> Iterator[str]:
    datasets = sources.names()
    if not live and ":" not in data.dataset and data.dataset not in datasets:
        near = suggestion(data.dataset, datasets)
        yield (
            f"data.dataset is {data.dataset!r}{near}; there are {', '.join(datasets)}, or give `module:function` or "
            "`hf:NAME`"
        )
    splits = (*schemes(), *natural_schemes())
    if data.partition not in splits:
        yield f"data.partition is {data.partition!r}{suggestion(data.partition, splits)}; there are {', '.join(splits)}"
    if data.tokenizer is not None and (fault := tokenizers.check(data.tokenizer)):
        yield f"data.tokenizer {fault}"
    if data.features not in (None, *features.NAMES):
        yield f"data.features is {data.features!r}; there are {', '.join(features.NAMES)}"
    kinds = {kind.partition(":")[0] for kind in unlabeled_kinds()}
    if data.unlabeled.partition(":")[0] not in kinds:
        yield f"data.unlabeled is {data.unlabeled!r}; there are {', '.join(unlabeled_kinds())}"


def _executor_faults(executor: ExecutorConfig) -> Iterator[str]:
    if ":" not in executor.name and executor.name not in EXECUTORS:
        near = suggestion(executor.name, EXECUTORS)
        yield f"executor.name is {executor.name!r}{near}; there are {', '.join(EXECUTORS)}, or give `module:Class`"
    if executor.address is not None and executor.name != "ray":
        yield f"executor.address is for executor.name 'ray', not {executor.name!r}; leave it out"
