"""Delay models: each is found by its name, says what it uses, and anybody can bring one."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from statistics import fmean

import pytest

from fedecho.core.errors import ConfigError
from fedecho.core.keys import Key
from fedecho.simulation.build import build
from fedecho.simulation.delay_models import delay_model_classes, delay_settings, settings_used
from fedecho.simulation.population import Population
from fedecho.simulation.settings import PopulationConfig

OWN = '''
from dataclasses import dataclass

from fedecho.simulation.delay_models import ClientDelays, DelayModel
from fedecho.simulation.job_times import Exponential


@dataclass(frozen=True)
class OneSlowClient(DelayModel):
    """Client 0 takes `factor` times as long as the others, whose jobs take a second on average."""

    factor: float = 10.0

    def delays(self, clients, key):
        means_s = [self.factor, *[1.0] * (clients - 1)]
        return ClientDelays([Exponential(mean_s) for mean_s in means_s])


@dataclass(frozen=True)
class TooFew(DelayModel):
    def delays(self, clients, key):
        return ClientDelays([Exponential(1.0)])


@dataclass(frozen=True)
class Numbers(DelayModel):
    def delays(self, clients, key):
        return [1.0] * clients


class Stranger:
    pass
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_delays.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_delays", raising=False)
    return "own_delays"


def job_s(people: Population, client: int, task: int) -> float:
    return people.plan(client, task, 0.0, 0, 0).ends_at_s


@pytest.mark.parametrize("name", delay_model_classes())
def test_a_delay_model_is_documented_and_its_settings_are_those_of_the_table(name: str) -> None:
    cls = delay_model_classes()[name]
    assert cls.name == name
    assert (cls.__doc__ or "").strip()
    own = [field.name for field in dataclasses.fields(cls)]
    documenting = next(base for base in cls.__mro__ if set(own) <= set(getattr(base, "__annotations__", {})) or not own)
    attributes = (documenting.__doc__ or "").partition("Attributes:")[2]
    assert re.findall(r"^ {8}(\w+):", attributes, flags=re.MULTILINE) == own
    settings = {field.name for field in dataclasses.fields(PopulationConfig)}
    assert settings_used(f"{name}:{cls.argument}" if cls.argument else name) <= settings
    assert {*own} - {"path"} <= settings
    assert cls.__dataclass_params__.frozen
    cls()  # every field has a default


def test_what_has_no_effect_is_told() -> None:
    assert settings_used("none") == frozenset()
    assert settings_used("large") == {"class_counts", "assignment", "slow_s"}
    assert settings_used("trace:x.csv") == {"class_counts", "client_column", "seconds_column", "unit"}
    assert settings_used("run:folder") == {"class_counts"}
    assert settings_used("anybodys:Class") is None
    assert {"mean_s", "sigma", "job_sigma", "slow_s", "unit"} <= delay_settings()
    assert "dropout" not in delay_settings()
    unused = PopulationConfig(name="large").unused_settings()
    assert unused["mean_s"] == "population.name is 'large'"
    assert not {"class_counts", "assignment", "slow_s", "dropout"} & unused.keys()
    assert "class_counts" in PopulationConfig().unused_settings()
    lognormal = PopulationConfig(name="lognormal", down_mbps=1.0, available_fraction=0.5).unused_settings()
    assert lognormal.keys() == {"assignment", "slow_s", "client_column", "seconds_column", "unit", "options"}
    assert PopulationConfig(name="anybodys:Class").unused_settings().keys() == {"network_sigma", "day_s"}


def test_a_users_own_delay_model(own: str) -> None:
    people = build(20, Key(0), name=f"{own}:OneSlowClient")
    assert [people.expected_time_s(client) for client in range(3)] == [10, 1, 1]
    assert 0 in people.members("slow")
    assert fmean(job_s(people, 0, task) for task in range(4000)) == pytest.approx(10, rel=0.1)
    slower = build(20, Key(0), name=f"{own}:OneSlowClient", options={"factor": 70.0}, class_counts=(19, 0, 1))
    assert slower.expected_time_s(0) == 70
    assert slower.members("slow") == (0,)
    assert job_s(slower, 0, 5) == pytest.approx(7 * job_s(people, 0, 5))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "own_delays:Nobody"}, "population.name 'own_delays:Nobody' cannot be imported"),
        ({"name": "own_delays:Stranger"}, "not a dataclass derived from fedecho.simulation.delay_models.DelayModel"),
        (
            {"name": "own_delays:OneSlowClient", "options": {"facter": 3}},
            "`facter` is no setting of own_delays:OneSlowClient: did you mean `factor`?",
        ),
        ({"name": "own_delays:TooFew"}, "returned job_times of 1 clients; there are 4"),
        ({"name": "own_delays:Numbers"}, "returned a list; return ClientDelays"),
        ({"name": "large", "options": {"factor": 3}}, "for a delay model of your own, and `name` is 'large'"),
    ],
)
def test_a_users_own_delay_model_that_does_not_fit(own: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(4, Key(0), **settings)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_trace_with_names_columns_and_a_unit_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "times.csv"
    path.write_text("site,duration_ms\nberlin,1500\namsterdam,250\nberlin,2500\ncairo,1\n", encoding="utf-8")
    columns = {"client_column": "site", "seconds_column": "duration_ms", "unit": "ms"}
    people = build(2, Key(0), name=f"trace:{path}", **columns)
    assert people.expected_time_s(0) == 0.25  # in the order of their names
    assert {round(job_s(people, 1, task), 9) for task in range(40)} == {1.5, 2.5}
    path.write_text("device,seconds\n0,1\n1,2\n", encoding="utf-8")
    named = build(2, Key(0), name=f"trace:{path}", client_column="device")
    assert [named.expected_time_s(client) for client in range(2)] == [1, 2]
