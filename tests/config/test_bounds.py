"""The numbers that settings may take, from a file and in a dataclass alike, of shipped and of users' own parts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from annotated_types import Ge, Gt, Interval, Le, Lt

from fedecho import Config, ConfigError
from fedecho.algorithms.base import RunShape
from fedecho.algorithms.fedavg import FedAvg
from fedecho.algorithms.fedbuff import FedBuff
from fedecho.config.registry import algorithm_classes, stage_classes
from fedecho.config.tables import ExperimentConfig
from fedecho.core.bounds import AllowInf, field_types, settings_faults, value_faults
from fedecho.core.schedules import Schedule
from fedecho.data.federation import DataConfig
from fedecho.learning.settings import ClientConfig
from fedecho.server.settings import ServerConfig
from fedecho.stages.echo import Echo
from support.configs import LIMIT, faults

OUT_OF_RANGE = {
    "fedbuff": {"buffer_size": [0, -1], "lr": [0.0, -1.0, math.inf], "momentum": [1.0, -0.1], "max_staleness": [-1]},
    "fedasync": {"mixing": [0.0, 2.0], "a": [-1.0], "b": [-1.0], "mu": [-0.1, math.inf]},
    "fedavg": {"cohort": [0], "lr": [0.0], "over_selection": [-0.1], "round_deadline_s": [-1.0]},
    "ca2fl": {"buffer_size": [0], "lr": [0.0]},
    "fadas": {"buffer_size": [0], "lr": [0.0], "beta1": [1.0, -0.1], "beta2": [1.0], "eps": [0.0]},
    "fadas_da": {"buffer_size": [0], "lr": [0.0], "beta1": [1.0], "beta2": [1.0], "eps": [0.0], "tau_c": [-1]},
    "da_asgd": {"lr": [0.0], "concurrency": [0]},
    "asyncfeded": {"lr": [0.0], "eps": [0.0]},
    "fedfa": {"window": [0]},
    "port": {
        "buffer_size": [0], "lr": [0.0], "staleness_bound": [0], "staleness_weight": [0.0], "similarity_weight": [-1.0],
    },
    "fedasmu": {"mu_alpha": [0.0], "lam": [-1.0], "sigma": [-1.0], "iota": [-0.1], "max_staleness": [-1]},
    "fedac": {"buffer_size": [0], "lr": [0.0], "beta1": [1.0], "beta2": [1.0], "eps": [0.0]},
    "ace": {"lr": [0.0], "warm_up": [0]},
    "aced": {"lr": [0.0], "tau_algo": [-1]},
    "echo": {
        "lr": [0.0], "steps": [-1], "batch_size": [0], "clip": [-1.0], "alpha_min": [-0.1], "alpha_max": [1.1],
        "temperature": [0.0, -1.0], "staleness_power": [-1.0], "every": [0], "max_rows": [0], "max_passes": [-0.5],
    },
    "client": {
        "epochs": [0], "steps": [0], "batch_size": [0], "lr": [0.0], "momentum": [1.0], "weight_decay": [-0.1],
        "clip": [-1.0],
    },
    "server": {
        "concurrency": [0], "buffer_size": [0], "ema": [1.0, -0.1], "max_change_norm": [0.0], "max_change_ratio": [0.0],
        "aggregate_s": [-1.0],
        "predict_s": [-1.0], "stage_s": [-1.0],
    },
    "server.schedule": {"final": [-0.1], "milestones": [(0.5, 1.5)], "gamma": [0.0], "warmup": [1.5]},
    "data": {
        "clients": [0], "alpha": [0.0, math.inf], "classes_per_client": [0], "min_examples": [-1], "max_examples": [0],
        "slow_classes": [-1], "coupling": [1.1], "unlabeled_size": [0], "held_out": [-1], "validation": [-1],
    },
    "experiment": {"updates": [0], "versions": [0], "virtual_time_s": [0.0, math.inf], "eval_every": [0]},
    "executor": {"threads": [0]},
    "records": {"checkpoint_every_s": [0.0]},
}  # fmt: skip


@pytest.mark.parametrize("where", OUT_OF_RANGE)
def test_ranges(where: str) -> None:
    """One line for each number that cannot be, from a file and in a dataclass alike."""
    for name, values in OUT_OF_RANGE[where].items():
        for value in values:
            tables: dict[str, Any] = {"experiment": {"updates": 10}}
            path = where
            if where in algorithm_classes():
                path, tables["algorithm"] = "algorithm", {"name": where, name: value}
            elif where in stage_classes():
                path, tables["stages"] = "stages", {"name": where, name: value}
            elif where == "server.schedule":
                tables["server"] = {"schedule": {name: value}}
            else:
                tables[where] = {**tables.get(where, {}), name: value}
            (line,) = faults(tables)
            shown = 1.5 if isinstance(value, tuple) else value
            assert line.startswith(f"{path}.{name} is {shown}; it must be "), line


def test_ranges_of_dataclasses() -> None:
    with pytest.raises(ConfigError) as caught:
        Config(
            ExperimentConfig(),
            client=ClientConfig(lr=0.0),
            algorithm=FedBuff(buffer_size=0),
            stages=(Echo(alpha_min=0.5, alpha_max=1.4), Echo(lr=-1.0)),
        )
    assert caught.value.faults == (
        "client.lr is 0.0; it must be above 0 and finite",
        "algorithm.buffer_size is 0; it must be at least 1",
        "stages.alpha_max is 1.4; it must be from 0 to 1",
        "stages.lr is -1.0; it must be above 0 and finite",
        "[experiment] has no limit; set updates, versions or virtual_time_s",
    )


SETTINGS = [*algorithm_classes().values(), *stage_classes().values(), ClientConfig, ServerConfig, Schedule, DataConfig]


@pytest.mark.parametrize("cls", SETTINGS, ids=lambda cls: cls.__name__)
def test_every_number_has_its_bounds_beside_it(cls: type) -> None:
    for name, hint in field_types(cls).items():
        if "int" in str(hint) or "float" in str(hint):
            value = (-1,) if "tuple" in str(hint) else -1
            assert "Literal" in str(hint) or value_faults(name, hint, value), f"{cls.__name__}.{name} takes any number"


def test_the_edges_are_in() -> None:
    config = Config(
        ExperimentConfig(versions=1, eval_every=1),
        data=DataConfig(clients=1, validation=0, min_examples=0, coupling=1.0),
        server=ServerConfig(concurrency=1, buffer_size=1, ema=0.0, max_change_norm=math.inf),
        algorithm=FedAvg(cohort=1),
        stages=(Echo(steps=0, alpha_min=1.0, alpha_max=1.0, clip=0.0, max_rows=1), Echo(alpha_min=0.0, alpha_max=0.0)),
    )
    assert Config.from_dict(config.to_dict()) == config


@dataclass(frozen=True)
class Scaled(FedBuff):
    """A user's rule whose settings have names that other rules bound otherwise."""

    name = "scaled"
    b: Annotated[float, Gt(-2)] = 0.0
    own: float = 0.5
    share: Annotated[float, Interval(gt=0, lt=1)] = 0.5
    pair: tuple[Annotated[int, Ge(1)], Annotated[float, Le(9), AllowInf()]] = (1, 2.0)
    rate: Annotated[float | None, Gt(0)] = None

    def check(self, shape: RunShape) -> list[str]:
        return ["algorithm.own exceeds algorithm.b; lower it"] if self.own > self.b + 3 else []


RULE = f"{__name__}:Scaled"


def test_a_users_rule_has_bounds_of_its_own() -> None:
    config = Config.from_dict({**LIMIT, "algorithm": {"name": RULE, "b": -1, "own": 2.0, "pair": [1, -math.inf]}})
    assert config.algorithm == Scaled(buffer_size=5, lr=1.0, b=-1.0, own=2.0, pair=(1, -math.inf))
    assert Config(ExperimentConfig(updates=1), algorithm=Scaled(b=-1, own=2.0)).algorithm.M == 5  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        ({"b": -2}, ["algorithm.b is -2.0; it must be above -2 and finite"]),
        ({"own": math.inf}, ["algorithm.own is inf; it must be finite"]),
        ({"share": 1.0}, ["algorithm.share is 1.0; it must be above 0 and below 1"]),
        (
            {"pair": [0, 10]},
            ["algorithm.pair is 0; it must be at least 1", "algorithm.pair is 10.0; it must be at most 9"],
        ),
        (
            {"rate": 0, "b": -3},
            [
                "algorithm.b is -3.0; it must be above -2 and finite",
                "algorithm.rate is 0.0; it must be above 0 and finite",
            ],
        ),
        ({"own": 4.0}, ["algorithm.own exceeds algorithm.b; lower it"]),
    ],
)
def test_a_users_rule_is_refused_by_its_own_bounds_from_a_file_and_in_python(
    settings: dict[str, Any], lines: list[str]
) -> None:
    assert list(faults({"algorithm": {"name": RULE, **settings}})) == lines
    with pytest.raises(ConfigError) as caught:
        Config(ExperimentConfig(updates=1), algorithm=Scaled(**settings))
    assert [line.replace(".0;", ";") for line in caught.value.faults] == [line.replace(".0;", ";") for line in lines]


def test_a_type_that_cannot_be_evaluated_is_named() -> None:
    @dataclass(frozen=True)
    class Local:
        lr: Nowhere = 0.1  # type: ignore[name-defined] # noqa: F821

    with pytest.raises(
        ConfigError, match=r"^the settings of Local have a type that cannot be evaluated \(name 'Nowhere'"
    ):
        settings_faults("algorithm", Local())


@pytest.mark.parametrize(
    ("marks", "words"),
    [
        ((Gt(0),), "above 0 and finite"),
        ((Ge(0),), "at least 0 and finite"),
        ((Gt(0), AllowInf()), "above 0"),
        ((Interval(ge=0, le=1),), "from 0 to 1"),
        ((Interval(ge=0, lt=1),), "at least 0 and below 1"),
        ((Ge(0), Le(1)), "from 0 to 1"),
        ((Interval(gt=0, le=1),), "above 0 and at most 1"),
        ((Lt(0),), "below 0 and finite"),
    ],
)
def test_bounds_in_words(marks: tuple[Any, ...], words: str) -> None:
    for value in (math.nan, -3.0 if "below 0" not in words else 3.0):
        assert value_faults("x", Annotated[(float, *marks)], value) == [f"x is {value}; it must be {words}"]
    assert value_faults("x", Annotated[(int, *marks)], True) == []
