"""Methods, variants and overrides; what a rule takes from the run."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fedecho import Config, ConfigError
from fedecho.algorithms.async_sgd import AsyncSGD, DelayAdaptiveASGD
from fedecho.algorithms.base import RunShape
from fedecho.algorithms.fadas import FADAS
from fedecho.algorithms.fedasync import FedAsync
from fedecho.algorithms.fedavg import FedAvg
from fedecho.algorithms.fedbuff import FedBuff
from fedecho.algorithms.fedfa import FedFa
from fedecho.config.registry import ALIASES, algorithm_classes
from fedecho.config.tables import ExperimentConfig
from fedecho.config.toml import resolve
from fedecho.core.schedules import Schedule
from fedecho.data.federation import DataConfig
from fedecho.server.settings import ServerConfig
from fedecho.simulation.settings import PopulationConfig
from fedecho.stages.central_dp import CentralDP
from fedecho.stages.echo import Echo
from fedecho.stages.fedrevive import FedRevive
from support.configs import LIMIT, chosen, faults

TUNED: dict[str, Any] = {
    "algorithm": {"name": "fedbuff", "lr": 0.7, "momentum": 0.5},
    "stages": [{"name": "echo", "steps": 3}],
    "variants": {
        "fadas": {"algorithm": {"lr": 0.003}},
        "hard": {"method": "fedecho", "stages": {"alpha_max": 0.3}, "client": {"lr": 0.01}},
        "slow": {"method": "fedasync", "population": {"name": "large"}},
    },
}


@pytest.mark.parametrize("method", [*algorithm_classes(), "fedecho", "fedasync+echo", "fadas+echo"])
def test_a_rule_never_inherits_anothers_settings(method: str) -> None:
    rule, *stages = {"fedecho": "fedbuff+echo"}.get(method, method).split("+")
    config = chosen({**TUNED, "variants": {}}, method)
    assert config.method == "+".join([rule, *stages])
    expected = {"lr": 0.7, "momentum": 0.5} if rule == "fedbuff" else {}
    names = {f.name for f in dataclasses.fields(config.algorithm)}
    shared = {
        name: value for name, value in {"buffer_size": 5, "cohort": 25, "concurrency": 25}.items() if name in names
    }
    assert config.algorithm == algorithm_classes()[rule](**shared, **expected).for_run(RunShape(1, 1, 1))
    assert config.stages == tuple(Echo(steps=3) for _ in stages)


def test_variants() -> None:
    assert chosen(TUNED, "fadas").algorithm.lr == 0.003  # type: ignore[attr-defined]
    hard = chosen(TUNED, "hard")
    assert (hard.method, hard.stages, hard.client.lr) == ("fedbuff+echo", (Echo(steps=3, alpha_max=0.3),), 0.01)
    assert chosen(TUNED, "slow").population == PopulationConfig(name="large")
    assert chosen(TUNED).method == "fedbuff+echo"  # none chosen: the file as it is
    assert chosen(TUNED, "fedbuff").stages == ()


@pytest.mark.parametrize(
    ("method", "variants", "fault"),
    [
        ("fedbuf", {}, r"method 'fedbuf' is unknown \(did you mean 'fedbuff'\?\); there are ace, .* and base\+stage"),
        ("v", {"v": {"method": "fedasync", "stages": {"lr": 1}}}, r"\[variants\.v\.stages\] needs a method with one"),
        ("v", {"v": {"method": "fedasync", "lr": 1}}, r"variants\.v\.lr is 1; a variant holds `method` and tables"),
        ("v", {"v": {"method": "fedasync", "algoritm": {}}}, r"\[algoritm\] is not a table .*did you mean 'algorithm'"),
        ("fedbuff+ekho", {}, r"stages 'ekho' is unknown \(did you mean 'echo'\?\); there are .*echo"),
        ("fedbuff", {"v": 3}, r"variants is \{'v': 3\}; it must be a table of tables"),
    ],
)  # fmt: skip
def test_faults_of_methods(method: str, variants: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        chosen({"variants": variants}, method)


def test_overrides() -> None:
    config = chosen(
        TUNED,
        "hard",
        "client.lr=0.5",
        "client.epochs = 4",
        "stages.steps=9",
        "server.schedule.name=cosine",
        "data.dataset='mnist'",
        "experiment.name=a b=c",
        "population.class_counts=[50,0,0]",
        "population.sigma=0.5",
        "model.hidden=[3, 4]",
    )
    assert (config.client.lr, config.client.epochs) == (0.5, 4)  # over the variant's
    assert config.stages == (Echo(steps=9, alpha_max=0.3),)
    assert config.server.schedule == Schedule("cosine")
    assert (config.data.dataset, config.experiment.name) == ("mnist", "a b=c")
    assert config.population == PopulationConfig(class_counts=(50, 0, 0), sigma=0.5)
    assert config.model.options == {"hidden": [3, 4]}


def test_overrides_of_a_variant_count_before_it_is_chosen() -> None:
    tables = {**LIMIT, "variants": {"mine": {"method": "fedbuff", "algorithm": {"lr": 0.2}}}}
    given = ["variants.mine.algorithm.lr=0.5", "variants.other.method=fadas", "variants.other.algorithm.lr=0.03"]
    mine, other = (Config.from_dict(resolve(tables, method, given)).algorithm for method in ("mine", "other"))
    assert (mine, other) == (FedBuff(buffer_size=5, lr=0.5), FADAS(buffer_size=5, lr=0.03))
    assert tables["variants"] == {"mine": {"method": "fedbuff", "algorithm": {"lr": 0.2}}}
    with pytest.raises(ConfigError, match=r"^--set 'variants\.mine\.method\.x=1': method is not one table$"):
        resolve(tables, "mine", ["variants.mine.method.x=1"])
    with pytest.raises(ConfigError, match=r"^variants is .*; it must be a table of tables$"):
        resolve(tables, "mine", ["variants.mine=3"])


def test_overrides_leave_the_tables_alone() -> None:
    tables = {**LIMIT, "client": {"lr": 0.1}, "stages": [{"name": "echo"}]}
    resolve(tables, None, ["client.lr=1", "stages.lr=1", "experiment.updates=2"])
    assert tables == {"experiment": {"updates": 10}, "client": {"lr": 0.1}, "stages": [{"name": "echo"}]}


def test_faults_of_overrides() -> None:
    with pytest.raises(ConfigError) as caught:
        chosen({"stages": [{"name": "echo"}] * 2}, None, "lr=1", "client.lr", "stages.lr=1", "experiment.updates.x=1")
    assert caught.value.faults == (
        "--set 'lr=1' is not `table.key=value`, for example client.lr=0.05",
        "--set 'client.lr' is not `table.key=value`, for example client.lr=0.05",
        "--set 'stages.lr=1': stages is not one table",
        "--set 'experiment.updates.x=1': updates is not one table",
    )
    with pytest.raises(ConfigError, match=r"client\.lrr is not a setting \(did you mean 'lr'\?\)"):
        chosen({}, None, "client.lrr=1")


def test_another_rule_set_by_hand_does_not_inherit_a_step_size() -> None:
    tables = {"experiment": {"updates": 10}, "algorithm": {"name": "fedbuff", "lr": 0.3}}
    other = Config.from_dict(resolve(tables, None, ["algorithm.name=fadas"]))
    assert other.algorithm == FADAS(buffer_size=5)
    same = Config.from_dict(resolve(tables, None, ["algorithm.name=fedbuff", "algorithm.momentum=0.5"]))
    assert same.algorithm == FedBuff(buffer_size=5, lr=0.3, momentum=0.5)


# ------------------------------------------------------------------------------------------- what the run decides


@pytest.mark.parametrize(
    ("name", "setting"), [("fedbuff", "buffer_size"), ("fedavg", "cohort"), ("da_asgd", "concurrency")]
)
def test_a_rule_takes_the_servers_sizes_where_it_is_not_given_its_own(name: str, setting: str) -> None:
    server = {"concurrency": 7, "buffer_size": 6}
    wanted = 6 if setting == "buffer_size" else 7
    assert getattr(chosen({"server": server, "algorithm": {"name": name}}).algorithm, setting) == wanted
    assert getattr(chosen({"server": server, "algorithm": {"name": name, setting: 3}}).algorithm, setting) == 3


def test_one_default_for_m_and_the_window_of_fedfa_is_not_m() -> None:
    buffered = [name for name, cls in algorithm_classes().items() if hasattr(cls, "buffer_size")]
    assert buffered == ["ca2fl", "fadas", "fadas_da", "fedac", "fedbuff", "port"]
    for name in buffered:
        assert algorithm_classes()[name]().M == 5 == ServerConfig().buffer_size  # type: ignore[attr-defined]
        from_python = Config(
            ExperimentConfig(updates=1), server=ServerConfig(buffer_size=7), algorithm=algorithm_classes()[name]()
        )
        assert from_python.algorithm.buffer_size == 7  # type: ignore[attr-defined]
        assert from_python.algorithm.updates_per_step == 7
    assert chosen({"server": {"buffer_size": 7}}, "fedfa").algorithm == FedFa(window=5)


def test_a_stage_takes_the_size_of_a_release_from_the_rule() -> None:
    for rule, size in ((FedBuff(buffer_size=3), 3), (FedBuff(), 7), (AsyncSGD(), 1)):
        config = Config(
            ExperimentConfig(updates=1), server=ServerConfig(buffer_size=7), algorithm=rule, stages=(CentralDP(),)
        )
        assert config.stages == (CentralDP(buffer_size=size),)


@pytest.mark.parametrize(
    ("settings", "a", "b"),
    [
        ({}, 0.5, None),
        ({"staleness": "hinge"}, 10.0, 4.0),
        ({"staleness": "hinge", "b": 2}, 10.0, 2.0),
        ({"staleness": "hinge", "a": 0.5}, 0.5, 4.0),
        ({"staleness": "polynomial", "a": 2}, 2.0, None),
        ({"staleness": "constant"}, None, None),
    ],
)
def test_fedasync_takes_the_papers_constants_unless_they_are_set(
    settings: dict[str, Any], a: float | None, b: float | None
) -> None:
    rule = chosen({"algorithm": {"name": "fedasync", **settings}}).algorithm
    assert isinstance(rule, FedAsync)
    assert (rule.a, rule.b) == (a, b)
    assert [FedAsync(**settings).alpha(tau) for tau in range(9)] == [rule.alpha(tau) for tau in range(9)]


def test_concurrency_is_by_default_no_more_than_there_are_clients() -> None:
    assert chosen({"data": {"clients": 10}}).server.concurrency == 10
    assert chosen({"data": {"clients": 100}}).server.concurrency == 25
    assert chosen({"data": {"clients": 10}}, "fedavg").algorithm == FedAvg(cohort=10)
    assert chosen({"data": {"clients": 10}}, "da_asgd").algorithm == DelayAdaptiveASGD(concurrency=10)
    assert Config(ExperimentConfig(updates=1), data=DataConfig(clients=10)).server.concurrency == 10
    (line,) = faults({"data": {"clients": 10}, "server": {"concurrency": 25}})
    assert line.startswith("server.concurrency (25) exceeds data.clients (10)")


# ------------------------------------------------------------------------------------------ a method in algorithm.name


@pytest.mark.parametrize("alias", ALIASES)
def test_a_methods_alias_is_an_algorithms_name(alias: str) -> None:
    config = chosen({"algorithm": {"name": alias, "lr": 0.3}})
    assert config.method == ALIASES[alias]
    assert config.algorithm.lr == 0.3  # type: ignore[attr-defined]
    assert chosen({}, None, f"algorithm.name={alias}").method == ALIASES[alias]
    assert chosen({"algorithm": {"name": alias}}, alias) == chosen({}, alias)


def test_an_alias_takes_its_stages_settings_and_refuses_other_stages() -> None:
    echo = {"name": "echo", "lr": 0.1}
    assert chosen({"algorithm": {"name": "fedecho"}, "stages": [echo]}).stages == (Echo(lr=0.1),)
    assert chosen({"algorithm": {"name": "fedecho"}, "stages": {"lr": 0.1}}).stages == (Echo(lr=0.1),)
    assert chosen({"algorithm": {"name": "fedecho"}}, None, "stages.lr=0.1").stages == (Echo(lr=0.1),)
    assert chosen({"algorithm": {"name": "fadas+echo"}}).method == "fadas+echo"
    assert chosen({"algorithm": {"name": "fedecho"}, "stages": [echo]}, "fedrevive").stages == (FedRevive(),)
    assert faults({"algorithm": {"name": "fedecho"}, "stages": [{"name": "feddf"}]}) == (
        "algorithm.name 'fedecho' is fedbuff with echo, and [[stages]] names feddf; take algorithm.name 'fedbuff' with "
        "stages of your own, or leave these out",
    )
