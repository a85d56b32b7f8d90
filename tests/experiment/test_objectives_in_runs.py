"""Whole runs on every kind of target, from a user's own data function to the summary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedecho import Config, ConfigError, DataError, Result, run
from fedecho.experiment.build import prepare
from fedecho.objectives.regression import Regression
from fedecho.runs.folder import RunFolder

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def diabetes() -> Arrays:
    """Ten measurements of a patient and how the disease went on, standardised."""
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    x, y = (x / x.std(0)).astype(np.float32), (y - y.mean()) / y.std()
    return x[:350], y[:350], x[350:], y[350:]


def two_columns() -> Arrays:
    x, y, test_x, test_y = diabetes()
    return x, np.stack([y, -2 * y], 1), test_x, np.stack([test_y, -2 * test_y], 1)


def labels() -> Arrays:
    """Five labels, each of which holds or does not."""
    from sklearn.datasets import make_multilabel_classification

    x, y = make_multilabel_classification(1200, 20, n_classes=5, n_labels=2, random_state=1)
    x = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
    return x[:900], y[:900], x[900:], y[900:]


def holes() -> Arrays:
    x, y, test_x, test_y = diabetes()
    return x, np.where(np.arange(len(y)) == 7, np.nan, y), test_x, test_y


def unlike() -> Arrays:
    x, y, test_x, _ = diabetes()
    return x, y, test_x, np.zeros((len(test_x), 2))


class Wide(nn.Module):
    """A head with one output too many."""

    def __init__(self, shape: Any, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(10, classes + 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x)
        return logits


class Weighted(Regression):
    """Anybody's own objective."""

    name = "weighted"

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return 3 * super().loss(outputs, targets)


def configuration(dataset: str, **tables: Any) -> Config:
    return Config.from_dict(
        {
            "experiment": {"updates": 120, "eval_every": 20},
            "data": {
                "dataset": f"test_objectives_in_runs:{dataset}", "partition": "iid", "clients": 12,
                "unlabeled_size": 60,
            },
            "client": {"epochs": 2, "batch_size": 10, "lr": 0.05},
            "server": {"concurrency": 6, "buffer_size": 3},
            "model": {"hidden": [16]},
            "population": {"name": "mild"},
            **tables,
        }
    )  # fmt: skip


def judged(result: Result) -> float:
    assert result.judged is not None
    assert result.judged.last_5_mean is not None
    return result.judged.last_5_mean


def test_regression(tmp_path: Path) -> None:
    result = run(configuration("diabetes"), tmp_path / "run")
    assert result.objective == "regression"
    assert list(result.metrics) == ["rmse", "mae", "r2", "loss"]
    assert judged(result) < 0.9, "predicting the mean has RMSE 1"
    r2 = result.metrics["r2"]
    assert r2.last_5_mean is not None
    assert r2.last_5_mean > 0.3
    assert r2.averaged == 5
    assert r2.slow_clients is None, "there are neither labels nor owners by which slow clients could be judged"
    folder = RunFolder.open(tmp_path / "run")
    rows, info, objective = folder.metrics(), folder.metric_info(), folder.noted("objective")
    folder.close()
    assert objective == "regression"
    assert info == result.metric_info
    assert rows[-1]["rmse"] == result.metrics["rmse"].last
    assert {"slow_client_r2", "fast_client_mae", "train_loss", "refused"} <= set(rows[0])
    assert "accuracy" not in rows[0]


def test_several_target_columns_and_an_objective_of_ones_own() -> None:
    small = {"experiment": {"updates": 6, "eval_every": 3}, "objective": {"name": "test_objectives_in_runs:Weighted"}}
    config = configuration("two_columns", **small)
    assert Config.from_dict(config.to_dict()) == config, "the objective is found again by its name"
    setup = prepare(config)
    assert setup.learner.predict(setup.learner.initial()).shape == (60, 2)
    result = run(config)
    assert result.objective == "weighted"
    assert judged(result) > 0


@pytest.mark.parametrize("method", ["fedbuff", "fedecho"])
def test_several_labels(method: str) -> None:
    stages = {} if method == "fedbuff" else {"stages": {"name": "echo"}}
    client = {"epochs": 2, "batch_size": 10, "lr": 1.0}
    result = run(configuration("labels", client=client, **stages))
    assert result.objective == "multilabel"
    assert list(result.metrics) == ["micro_f1", "macro_f1", "loss"]
    assert judged(result) > 0.7


def test_what_does_not_fit_is_refused_in_a_line() -> None:
    def fails(dataset: str, message: str, kind: type[Exception] = ConfigError, **tables: Any) -> None:
        with pytest.raises(kind, match=message):
            prepare(configuration(dataset, **tables))

    by_label = {"dataset": "test_objectives_in_runs:diabetes", "clients": 12, "unlabeled_size": 20}
    fails(
        "diabetes",
        "'dirichlet_mix' deals by label, .*has no class label per example; take iid, quantity$",
        data=by_label,
    )
    fails("diabetes", "'echo' needs .*'regression'", stages={"name": "echo"})
    fails("diabetes", "classification needs integer labels", objective={"name": "classification"})
    fails("holes", "targets hold NaN", DataError)
    fails("unlike", "a train target is .*, a test target", DataError)
    fails(
        "diabetes",
        r"returns \[2\] per example, and the targets have 1 value",
        model={"name": "test_objectives_in_runs:Wide"},
    )
    with pytest.raises(ConfigError, match="ranking"):
        configuration("diabetes", objective={"name": "ranking"})


def test_language_and_classes_follow_from_the_targets() -> None:
    assert configuration("labels").objective is None
    assert configuration("labels", objective={"name": "auto"}).to_dict().get("objective") is None
    assert torch.equal(prepare(configuration("labels")).data.labels.unique(), torch.tensor([0.0, 1.0]))
