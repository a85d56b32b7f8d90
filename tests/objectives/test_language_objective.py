"""Language modeling: by hand, and against the formulas of plain PyTorch."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from fedecho.learning.evaluation import perplexity
from torch import Tensor

from fedecho.core.errors import ConfigError
from fedecho.objectives.language import Language

OBJECTIVE = Language()


def drawn(n: int, length: int, vocabulary: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    labels = torch.randint(vocabulary, (n, length), generator=generator)
    labels[torch.rand(n, length, generator=generator) < 0.2] = -100
    return 2 * torch.randn(n, length, vocabulary, generator=generator), labels


def rows(logits: Tensor, labels: Tensor) -> Tensor:
    """The rows `by_example` of `Learner.evaluate`, step by step."""
    scores, flat = logits.flatten(0, 1), labels.flatten()
    asked = flat >= 0
    right = (scores.argmax(-1) == flat) & asked
    losses = F.cross_entropy(scores, flat, reduction="none")
    each = torch.stack([right.double(), asked.double(), losses.double()], -1)
    return each.view(len(labels), -1, 3).sum(1)


def test_by_hand() -> None:
    """Two texts; the second asks for one token only."""
    p = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], [[0.2, 0.6, 0.2], [1 / 3, 1 / 3, 1 / 3]]])
    statistics = OBJECTIVE.statistics(p.log(), torch.tensor([[0, 1], [1, -100]]))
    assert statistics[:, :2].tolist() == [[1, 2], [1, 1]]
    values = OBJECTIVE.values(statistics)
    loss = -(math.log(0.5) + math.log(0.1) + math.log(0.6)) / 3
    assert values["loss"] == pytest.approx(loss, rel=1e-6)
    assert values["accuracy"] == 2 / 3
    assert values["perplexity"] == pytest.approx((0.5 * 0.1 * 0.6) ** (-1 / 3), rel=1e-6)


def test_perplexity_is_judged() -> None:
    judged = OBJECTIVE.metrics[0]
    assert (judged.name, judged.higher_is_better, judged.axis) == ("perplexity", False, "log")


@pytest.mark.parametrize(("n", "length"), [(1, 1), (3, 7), (100, 16), (797, 12), (2503, 9)])
def test_the_bits_of_the_evaluation(n: int, length: int) -> None:
    logits, labels = drawn(n, length, 11)
    labels[0, 0] = 3
    expected, statistics = rows(logits, labels), OBJECTIVE.statistics(logits, labels)
    assert torch.equal(statistics, expected)
    loss = float(expected[:, 2].sum() / expected[:, 1].sum())
    accuracy = float(expected[:, 0].sum() / expected[:, 1].sum())
    assert OBJECTIVE.values(statistics) == {"perplexity": perplexity(loss), "accuracy": accuracy, "loss": loss}
    some = torch.arange(n) % 3 == 0
    right, asked, total = expected[some].sum(0).tolist()
    values = OBJECTIVE.values(statistics[some])
    assert (values["accuracy"], values["loss"]) == (right / asked, total / asked)


def test_the_training_loss_is_that_of_all_tokens_in_a_row() -> None:
    logits, labels = drawn(6, 8, 20)
    assert torch.equal(OBJECTIVE.loss(logits, labels), F.cross_entropy(logits.flatten(0, 1), labels.flatten()))


def test_three_numbers_a_text_whatever_the_vocabulary() -> None:
    assert OBJECTIVE.statistics(*drawn(2, 4, 32_000)).shape == (2, 3)


def test_a_loss_too_large_for_exp() -> None:
    statistics = torch.tensor([[0.0, 1.0, 5000.0]], dtype=torch.float64)
    assert OBJECTIVE.values(statistics)["perplexity"] == math.exp(700)


def test_texts_that_ask_nothing() -> None:
    statistics = OBJECTIVE.statistics(torch.zeros(2, 3, 5), torch.full((2, 3), -100))
    assert all(math.isnan(value) for value in OBJECTIVE.values(statistics).values())


def test_labels_become_int64() -> None:
    labels = OBJECTIVE.prepare(torch.tensor([[3, -100]], dtype=torch.int32))
    assert labels.dtype == torch.int64
    assert OBJECTIVE.outputs(labels) == 4
    assert OBJECTIVE.outputs(torch.full((2, 3), -100)) == 0
    OBJECTIVE.check((2, 4), labels)
    OBJECTIVE.check((2, 50_000), labels)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.zeros(2, 3), "language needs token ids as labels, and got torch.float32; give them as int64"),
        (
            torch.tensor([1, 2]),
            "language needs labels [n, L], the next token at each place, and got [2]; for one class per text choose "
            "the objective classification",
        ),
        (
            torch.tensor([[1, -1]]),
            "a label is -1, and token ids are counted from 0; mark places where nothing is to be predicted by -100",
        ),
    ],
)
def test_targets_that_are_no_tokens(targets: Tensor, message: str) -> None:
    with pytest.raises(ConfigError) as fault:
        OBJECTIVE.prepare(targets)
    assert str(fault.value) == message


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (50,),
            "the model returns [50] per text, and language needs [2, V], a logit per token of the vocabulary at each "
            "place; let the model return logits at every place",
        ),
        (
            (1, 50),
            "the model returns [1, 50] per text, and language needs [2, V], a logit per token of the vocabulary at "
            "each place; let the model return logits at every place",
        ),
        (
            (2, 9),
            "the model knows 9 tokens, and a label is 9; use the tokenizer of the model, or give the model at least 10 "
            "tokens",
        ),
    ],
)
def test_a_model_that_does_not_fit(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError) as fault:
        OBJECTIVE.check(shape, torch.tensor([[9, -100]]))
    assert str(fault.value) == message
