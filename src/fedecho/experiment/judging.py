"""Judging the server's model on all data and on the data of slow and fast clients."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..config.config import Config
from ..core.messages import Model
from ..data.federation import Federation
from ..learning.learner import Learner
from ..objectives.base import Objective
from ..simulation.population import Population
from .setup import Judge

GROUPS = ("slow", "fast")
"""Groups of clients for whom every metric is also computed."""

GroupValues = Callable[[Tensor], dict[str, float]]
"""The metrics on one group's data, of the statistics [n, r] of all judging examples."""


def make_judge(config: Config, data: Federation, population: Population, learner: Learner) -> Judge:
    """Every metric of the learner's objective on the part that judges, as NAME, and on the data of slow and of fast
    clients, as `slow_client_NAME` and `fast_client_NAME`.

    A group is judged on its clients' own test examples where these are known, else, for class labels, on all examples,
    weighted to the label distribution of the group's training data. Of other data nothing is known of a group.
    """
    objective = learner.objective
    validating = config.experiment.evaluate == "validation"
    inputs, targets = data.validation if validating else data.test
    targets = objective.prepare(targets)
    owners = None if validating else data.test_clients
    groups: dict[str, GroupValues] = {}
    for group in GROUPS:
        if (members := population.members(group)) and owners is not None:
            groups[group] = _on_rows(objective, torch.isin(owners, torch.tensor(members)))
        elif members and objective.class_labels:
            groups[group] = _on_mix(objective, data.label_mix(members))

    def judge(model: Model) -> dict[str, float | None]:
        statistics = learner.evaluate(model, inputs, targets)
        values = objective.values(statistics)
        for group, group_values in groups.items():
            values |= {f"{group}_client_{name}": value for name, value in group_values(statistics).items()}
        return {name: None if math.isnan(value) else value for name, value in values.items()}

    return judge


def _on_rows(objective: Objective, rows: Tensor) -> GroupValues:
    return lambda statistics: objective.values(statistics[rows])


def _on_mix(objective: Objective, mix: Tensor) -> GroupValues:
    return lambda statistics: objective.values(statistics, objective.mix_weights(statistics, mix))
