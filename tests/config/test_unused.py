"""Settings without effect are told in a line each, when the user chose them."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import pytest

from fedecho import Config
from fedecho.algorithms.fedasync import FedAsync
from fedecho.config.tables import ExecutorConfig, ExperimentConfig
from fedecho.core.errors import UnusedSettingWarning
from fedecho.core.schedules import Schedule
from fedecho.learning.settings import ClientConfig
from fedecho.server.settings import ServerConfig
from fedecho.simulation.settings import PopulationConfig
from support.configs import LIMIT, chosen


def warned(make: Any) -> list[str]:
    """The lines of the warnings while `make()` runs."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make()
    assert all(warning.category is UnusedSettingWarning for warning in caught)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    ("tables", "line"),
    [
        (
            {"population": {"name": "large", "mean_s": 2.0}},
            "population.mean_s (2.0) has no effect: population.name is 'large'; leave it out",
        ),
        (
            {"population": {"name": "mild", "sigma": 1.0}},
            "population.sigma (1.0) has no effect: population.name is 'mild'; leave it out",
        ),
        ({"executor": {"workers": 2}}, "executor.workers (2) has no effect: executor.name is 'inline'; leave it out"),
        (
            {"executor": {"name": "processes", "batch": 16}},
            "executor.batch (16) has no effect: executor.name is 'processes'; leave it out",
        ),
        ({"client": {"epochs": 2, "steps": 5}}, "client.epochs (2) has no effect: client.steps is 5; leave it out"),
        (
            {"server": {"schedule": {"name": "linear", "gamma": 0.5}}},
            "server.schedule.gamma (0.5) has no effect: the schedule is 'linear'; leave it out",
        ),
        (
            {"data": {"partition": "iid", "alpha": 0.1}},
            "data.alpha (0.1) has no effect: data.partition is 'iid'; leave it out",
        ),
        (
            {"algorithm": {"name": "fedasync", "b": 4}},
            "algorithm.b (4.0) has no effect: algorithm.staleness is 'polynomial'; leave it out",
        ),
    ],
)
def test_a_written_setting_without_effect_is_told_even_at_its_default(tables: dict[str, Any], line: str) -> None:
    assert warned(lambda: chosen(tables)) == [line]
    written = chosen(tables).to_dict()
    assert warned(lambda: Config.from_dict(written)) in ([], [line]), "what a run keeps says no more than its file"


@pytest.mark.parametrize(
    ("parts", "names"),
    [
        ({"executor": ExecutorConfig(workers=2)}, ["executor.workers"]),
        ({"client": ClientConfig(epochs=3, steps=5)}, ["client.epochs"]),
        ({"client": ClientConfig(steps=5)}, []),
        ({"population": PopulationConfig(name="large", mean_s=2.0)}, ["population.mean_s"]),
        ({"server": ServerConfig(client_schedule=Schedule(final=0.1))}, ["server.client_schedule.final"]),
        ({"algorithm": FedAsync(staleness="constant", a=1.0, b=2.0)}, ["algorithm.a", "algorithm.b"]),
        ({"algorithm": FedAsync(staleness="hinge", a=1.0, b=2.0)}, []),
    ],
)
def test_in_python_a_setting_counts_as_chosen_where_it_differs_from_its_default(
    parts: dict[str, Any], names: list[str]
) -> None:
    lines = warned(lambda: Config(ExperimentConfig(updates=1), **parts))
    assert [line.partition(" ")[0] for line in lines] == names


def test_what_a_run_keeps_is_read_without_a_warning() -> None:
    config = Config.from_dict(LIMIT)
    assert warned(lambda: Config.from_dict(config.to_dict())) == []
    assert warned(lambda: dataclasses.replace(config, variants={})) == []
    assert Config.from_dict(config.to_dict()) == config
