"""FedRevive by hand: the share of the distillation, its teachers, its pool."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedecho.core.keys import Key
from fedecho.core.messages import Model
from fedecho.stages.compute import (
    LOGITS,
    Distillation,
    Generator,
    Loss,
    PredictionFormat,
    Synthesis,
    Synthetic,
)
from fedecho.stages.fedrevive import FedRevive, Memory, draw
from fedecho.stages.losses import CLASSES
from helpers import change, vec


@pytest.mark.parametrize(
    ("staleness", "beta"),
    [(0, 0.0), (25, 0.0669873), (50, 0.25), (75, 0.5), (100, 0.75), (150, 1.0), (151, 1.0), (300, 1.0)],
)
def test_beta_of_staleness(staleness: int, beta: float) -> None:
    assert FedRevive().beta(staleness) == pytest.approx(beta, abs=1e-7)


@dataclass
class Scripted:
    """Gives prepared answers and records the calls."""

    logits: list[Tensor]
    step: float = 1.0

    def __post_init__(self) -> None:
        self.calls: list[Any] = []

    shape = (4,)

    classes = 3

    predictions = CLASSES

    def predict(self, model: Model, inputs: Tensor | None = None, form: PredictionFormat = LOGITS) -> Tensor:
        assert inputs is not None
        self.calls.append(("predict", model, inputs))
        z = self.logits[min(len([a for a in self.calls if a[0] == "predict"]), len(self.logits)) - 1]
        return z.expand(len(inputs), -1)

    def distill(
        self, model: Model, loss: Loss, how: Distillation, key: Key, inputs: Tensor | None = None
    ) -> tuple[Tensor, float]:
        assert inputs is not None
        self.calls.append(("distill", model, how, inputs))
        return model.weights + self.step, 0.5

    def synthesize(
        self, generator: Generator | None, teachers: Any, mix: Tensor, student: Model, how: Synthesis, key: Key
    ) -> tuple[Generator, Synthetic]:
        self.calls.append(("synthesize", teachers, mix, how))
        inputs = torch.zeros(how.batch_size, 4) + len(self.calls)
        return Generator(vec(1), vec(1), vec(1), 1), Synthetic(
            inputs, torch.zeros(how.batch_size, dtype=torch.int64), 0.1
        )


EAGER = FedRevive(generate_after=0, distill_after=1, generate_every=2, teachers=3, synthesis_batch=2, pool_size=5)
MODEL = Model(60, vec(10, 20), torch.zeros(0))


def revised(stage: FedRevive, compute: Scripted, stalenesses: list[int], delta: Tensor) -> tuple[list[Tensor], Memory]:
    state, changes = stage.init(9), []
    for i, tau in enumerate(stalenesses):
        item = change(delta + i, client=i, staleness=tau, version=60)
        new, state, _ = stage.revise(state, item, MODEL, compute, Key(i))
        changes.append(new - i)
    return changes, state


def test_a_stale_change_is_mixed_with_what_distilling_changes_in_the_current_model() -> None:
    compute = Scripted([vec(0, 0)], step=1.0)
    changes, _ = revised(EAGER, compute, [50, 50, 150, 0, 75], vec(-4, 8))
    # KD is +1; at i the change is (−4 + i, 8 + i), and i is taken off the answer
    assert changes[0].tolist() == [-4, 8], "still waiting"
    assert changes[1].tolist() == pytest.approx([0.75 * -3 + 0.25 - 1, 0.75 * 9 + 0.25 - 1])
    assert changes[2].tolist() == pytest.approx([1 - 2, 1 - 2])
    assert changes[3].tolist() == [-4, 8], "a fresh change is left alone"
    assert changes[4].tolist() == pytest.approx([0.5 * 0 + 0.5 - 4, 0.5 * 12 + 0.5 - 4])
    models = [call[1] for call in compute.calls if call[0] == "distill"]
    assert models == [MODEL] * 3, "the student is the current model"
    hows = [call[2] for call in compute.calls if call[0] == "distill"]
    assert hows == [Distillation(10, batch, 1e-4, 0.0, "adam") for batch in (64, 96, 96)]


def test_the_teachers_are_the_last_returned_models_the_arriving_one_among_them() -> None:
    compute = Scripted([vec(0, 0)])
    _, state = revised(EAGER, compute, [1] * 5, vec(1, 1))
    assert [teacher.client for teacher in state.teachers] == [2, 3, 4]
    assert [teacher.model.weights.tolist() for teacher in state.teachers] == [[3, 3], [4, 4], [5, 5]]
    assert [teacher.model.version for teacher in state.teachers] == [59, 59, 59]
    models = [[m.weights.tolist() for m in a[1]] for a in compute.calls if a[0] == "synthesize"]
    assert models == [[[1, 1]], [[1, 1], [2, 2], [3, 3]], [[3, 3], [4, 4], [5, 5]]], "every second update"
    assert [a[3].adversarial for a in compute.calls if a[0] == "synthesize"] == [0.0, 0.1, 0.1]


def test_the_pool_is_bounded_and_keeps_the_newest() -> None:
    _, state = revised(EAGER, Scripted([vec(0, 0)]), [1] * 9, vec(1, 1))
    assert state.inputs is not None
    assert state.labels is not None
    assert state.inputs.shape == (5, 4)
    assert state.labels.shape == (5,)
    values = state.inputs[:, 0].tolist()
    assert values == sorted(values)
    assert values[0] < values[1] == values[2] < values[3] == values[4]


def test_a_clients_class_proportions_are_guessed_from_its_first_two_models() -> None:
    t = FedRevive().probe_temperature
    compute = Scripted([vec(t * math.log(3), 0), vec(0, t * math.log(3)), vec(50, 0)])  # .75 .25, then .25 .75
    stage, state = FedRevive(), FedRevive().init(3)
    means = []
    for i in range(3):
        state = stage.remember(state, change(vec(1, 1), client=7, staleness=1), compute, Key(i))
        means.append(state.proportions()[-1].tolist())
    assert means[0] == pytest.approx([0.75, 0.25])
    assert means[1] == pytest.approx([0.5, 0.5])
    assert means[2] == pytest.approx([0.5, 0.5]), "the third model does not count"
    probes = [inputs for _, _, inputs in compute.calls]
    assert [tuple(p.shape) for p in probes] == [(64, 4)] * 2
    assert abs(float(torch.cat(probes).mean())) < 0.15
    assert float(torch.cat(probes).std()) == pytest.approx(1, abs=0.1)


def test_pool_inputs_are_drawn_by_label() -> None:
    labels, draws = np.array([0, 2, 0, 2, 2]), Key(0).numpy()
    assert set(draw(labels, np.array([0.0, 0.0, 1.0]), 200, draws)) == {1, 3, 4}
    assert set(draw(labels, np.array([1.0, 0.0, 0.0]), 200, draws)) == {0, 2}
    assert set(draw(labels, np.array([0.0, 1.0, 0.0]), 200, draws)) == {0, 1, 2, 3, 4}, "no input has this label"
    drawn = draw(labels, np.array([0.25, 0.0, 0.75]), 4000, draws)
    assert np.isin(drawn, [0, 2]).mean() == pytest.approx(0.25, abs=0.03)
