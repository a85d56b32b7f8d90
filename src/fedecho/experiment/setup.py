"""The parts of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..config.config import Config
from ..core.messages import Model
from ..data.federation import Federation
from ..executors.base import Executor
from ..learning.learner import Learner
from ..objectives.base import Metric
from ..runs.environment import environment
from ..server.server import Server
from ..server.stage_runner import common_format
from ..simulation.population import Population

Judge = Callable[[Model], Mapping[str, float | None]]
"""Judges a model: for each metric its NAME, slow_client_NAME and fast_client_NAME; None or missing where unknown."""


@dataclass(frozen=True)
class Setup:
    """The parts that every run has.

    Attributes:
        config: what is run.
        server: with the initial model.
        judge: judges the server's model when it is time.
        export: the model as a plain state_dict, contiguous CPU tensors.
        learner: the server's own learning; None on a live federation whose server only aggregates.
        continue_prompts: of a language model, where asked for: a few prompts and how the model continues them.
        objective: name of the objective.
        metrics: what the judge tells; the run is judged by the first.
    """

    config: Config
    server: Server
    judge: Judge
    export: Callable[[Model], dict[str, Tensor]]
    learner: Learner | None
    continue_prompts: Callable[[Model], list[tuple[str, str]]] | None
    objective: str
    metrics: tuple[Metric, ...]

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of learning so far, by kind."""
        return {"train_s": 0.0, "infer_s": 0.0, "distill_s": 0.0} if self.learner is None else self.learner.seconds

    @property
    def worker_seconds(self) -> Mapping[str, float]:
        """Seconds of learning in other processes, by kind; `wait_s`: for them; `setup_s`: to build the parts."""
        return {}

    def environment(self) -> dict[str, Any]:
        """What decides the bits of the run."""
        channels_last = self.learner is not None and self.learner.channels_last
        memory_format = "channels_last" if channels_last else "contiguous"
        return environment(self.config.experiment.device, self.config.executor.threads, memory_format)

    def close(self) -> None:
        """End what the parts keep running."""


@dataclass(frozen=True)
class Sizes:
    """What a run moves and keeps.

    Attributes:
        trained: weights that are trained, and travel.
        frozen: those that are not, and stay where they are.
        down_bytes: the model, from the server to a client.
        up_bytes: from a client to the server: the model, and its predictions on U where a stage wants them.
        predictions_bytes: of these, the predictions.
        bank_bytes: the most that the stages come to hold of clients' predictions.
    """

    trained: int
    frozen: int
    down_bytes: int
    up_bytes: int
    predictions_bytes: int
    bank_bytes: int


@dataclass(frozen=True)
class Simulation(Setup):
    """The parts of a simulated run."""

    data: Federation
    population: Population
    learner: Learner
    executor: Executor
    set_up_s: float

    @property
    def worker_seconds(self) -> Mapping[str, float]:
        return {**self.executor.seconds, "setup_s": self.set_up_s}

    @property
    def sizes(self) -> Sizes:
        """What the run moves and keeps."""
        learner, stages, model = self.learner, self.config.stages, self.learner.initial()
        number, classes = learner.prediction_count, learner.classes
        down = model.weights.nbytes + model.buffers.nbytes
        predicting = any(stage.needs_predictions for stage in stages)
        predictions = number * common_format(stages).bytes(classes) if predicting else 0
        bank = sum(stage.memory_bytes(self.config.data.clients, number, classes) for stage in stages)
        frozen = sum(p.numel() for p in learner.module.parameters() if not p.requires_grad)
        return Sizes(model.weights.numel(), frozen, down, down + predictions, predictions, bank)

    def close(self) -> None:
        self.executor.close()
