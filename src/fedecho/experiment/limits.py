"""Whether a run can be: this machine's device and memory, and an objective that all parts serve."""

from __future__ import annotations

import os

import torch

from ..config.config import Config
from ..core.errors import ConfigError
from ..objectives.base import Objective
from ..runs.schema import column_faults


def check_device(device: str) -> None:
    """See that the torch device can be used.

    Raises:
        ConfigError: when it cannot.
    """
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as fault:  # torch raises either, depending on how it was built
        reason = str(fault).splitlines()[0]
        raise ConfigError(f"experiment.device {device!r} cannot be used ({reason}); try 'cpu'") from fault


def check_objective(config: Config, objective: Objective) -> None:
    """See that the records can hold the objective's metrics, and that every stage serves it.

    Raises:
        ConfigError: with every fault.
    """
    faults = [f"objective {objective.name!r}: {fault}" for fault in column_faults(objective.metrics)]
    faults += [
        f"stages.name {stage.name!r} learns from predicted probabilities, and objective {objective.name!r} has none; "
        "leave the stage out, or take classification or multilabel"
        for stage in config.stages
        if objective.predictions is None and (stage.needs_predictions or stage.needs_compute)
    ]
    if faults:
        raise ConfigError(faults)


def check_memory(config: Config, d: int, outputs: tuple[int, int]) -> None:
    """Refuse a rule or a stage whose state cannot fit into the machine's memory."""
    if config.experiment.device != "cpu" or not hasattr(os, "sysconf"):
        return
    clients = config.data.clients
    vectors = config.algorithm.memory(clients)
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    needs = {
        f"algorithm.name {config.algorithm.name!r} keeps up to {vectors} vectors of the model's {d:,} weights": (
            vectors * d * 4,
            "take fewer clients, a smaller model, or a rule that keeps less",
        )
    }
    for stage in config.stages if config.records.bank == "memory" else ():
        number, classes = outputs
        about = f"stages.name {stage.name!r} keeps the predictions of every client, {number:,} of {classes:,} classes,"
        remedy = (
            "set stages.max_rows, or take stages.row_dtype = 'float16', stages.top_k where there are many classes, "
            "records.bank = 'mapped', or a smaller data.unlabeled_size"
        )
        needs[about] = (stage.memory_bytes(clients, number, classes), remedy)
    if sum(needed for needed, _ in needs.values()) > available:
        raise ConfigError(
            [
                f"{about} for {clients} clients, {needed / 1e9:.1f} GB; this machine has {available / 1e9:.1f} GB: "
                f"{remedy}"
                for about, (needed, remedy) in needs.items()
                if needed > available / 10
            ]
        )
