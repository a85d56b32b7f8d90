"""Judging the server's model on all data and on the data of slow and fast clients."""

from __future__ import annotations

import math

import torch

from ..config.config import Config
from ..core.messages import Model
from ..data.federation import Federation
from ..learning.evaluation import perplexity
from ..learning.learner import Learner
from ..simulation.population import Population
from .setup import Judge


def make_judge(config: Config, data: Federation, population: Population, learner: Learner) -> Judge:
    """Accuracy and loss on the part that judges, and those of slow and of fast clients: on their own test examples
    where these are known, else under their label mixes."""
    validating = config.experiment.evaluate == "validation"
    inputs, labels = data.validation if validating else data.test
    whose = None if validating else data.test_clients
    members = {group: population.members(group) for group in ("slow", "fast")}
    if whose is not None:
        own = {group: torch.isin(whose, torch.tensor(clients)) for group, clients in members.items() if clients}
    elif not data.causal:
        mixes = {group: data.label_mix(clients) for group, clients in members.items() if clients}

    def judge(model: Model) -> dict[str, float | None]:
        found = learner.evaluate(model, inputs, labels)
        judged = {"accuracy": found.accuracy, "loss": found.loss}  # a NaN means that there was nothing to judge by
        if data.causal:
            judged["perplexity"] = perplexity(found.loss)
        if whose is not None:
            for group, rows in own.items():
                judged[f"{group}_client_accuracy"], loss = found.of(rows)
                if data.causal:
                    judged[f"{group}_client_perplexity"] = perplexity(loss)
        elif not data.causal:
            judged |= {f"{group}_client_accuracy": found.accuracy_under(mix) for group, mix in mixes.items()}
        return {name: None if math.isnan(value) else value for name, value in judged.items()}

    return judge
