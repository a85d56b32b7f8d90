"""Configurations: every fault at once with its key and remedy, methods and variants, and TOML there and back."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from fedecho import Config, ConfigError
from fedecho.algorithms.fadas import FADAS
from fedecho.algorithms.fedavg import FedAvg
from fedecho.algorithms.fedbuff import FedBuff
from fedecho.config.registry import algorithm_classes, stage_classes
from fedecho.config.tables import ExperimentConfig
from fedecho.config.toml import read_toml, resolve
from fedecho.core.bounds import field_types, value_faults
from fedecho.core.schedules import Schedule
from fedecho.data.federation import DataConfig
from fedecho.executors import EXECUTORS
from fedecho.learning.models import MODELS
from fedecho.learning.settings import ClientConfig
from fedecho.server.settings import ServerConfig
from fedecho.simulation.settings import PopulationConfig
from fedecho.stages.echo import Echo

STAGES = ", ".join(stage_classes())
CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))
LIMIT = {"experiment": {"updates": 10}}


def faults(tables: dict[str, Any], **more: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        Config.from_dict({**LIMIT, **tables, **more})
    return caught.value.faults


def chosen(tables: dict[str, Any], method: str | None = None, *overrides: str) -> Config:
    return Config.from_dict(resolve({**LIMIT, **tables}, method, overrides))


# ------------------------------------------------------------------------------------------------------------- faults


def test_every_fault_at_once() -> None:
    found = faults(
        {
            "experiment": {"updates": 0, "sed": 1, "evaluate": "train"},
            "data": {"clients": 10, "alpha": "small"},
            "client": {"lr": True, "steps": 2.5},
            "server": {"concurrency": 20, "schedule": {"name": "cosin", "warmup": 2}},
            "algorithm": {"name": "fedbuff", "lr": -1, "momentum": 1.0},
            "stages": [{"name": "echo", "alpha_min": 0.9, "alpha_max": 0.1}, {"name": "ekho"}],
            "population": {"dropout": 2.0},
            "executor": {"name": "rya"},
            "polulation": {},
        }
    )
    assert found == (
        "[polulation] is not a table of a configuration (did you mean 'population'?); there are experiment, data, "
        "model, client, server, algorithm, stages, population, transport, executor, records, variants",
        "experiment.sed is not a setting (did you mean 'seed'?); there are name, seed, updates, versions, "
        "virtual_time_s, eval_every, evaluate, device, continuations",
        "experiment.evaluate is 'train'; it must be one of 'test', 'validation'",
        "experiment.updates is 0; it must be at least 1",
        "data.alpha is 'small'; it must be a number",
        "client.lr is True; it must be a number",
        "client.steps is 2.5; it must be a whole number",
        "server.schedule.name is 'cosin'; it must be one of 'constant', 'linear', 'cosine', 'step'",
        "server.schedule.warmup is 2.0; it must be from 0 to 1",
        "algorithm.lr is -1.0; it must be above 0 and finite",
        "algorithm.momentum is 1.0; it must be at least 0 and below 1",
        "stages.alpha_min (0.9) exceeds stages.alpha_max (0.1); lower one or raise the other",
        f"stages 'ekho' is unknown; there are {STAGES}, or give `module:Class`",
        f"executor.name is 'rya'; there are {', '.join(EXECUTORS)}",
        "[population] `dropout` must be a number from 0 to below 1, got 2.0: at 1 no result would ever arrive",
    )


@pytest.mark.parametrize(
    ("tables", "fault"),
    [
        ({"client": 3}, "client is 3; it must be a table"),
        ({"stages": "echo"}, "stages is 'echo'; it must be a table, or a list of tables"),
        ({"stages": ["echo"]}, "stages is ['echo']; it must be a table, or a list of tables"),
        ({"variants": {"a": 1}}, "variants is {'a': 1}; it must be a table of tables"),
        ({"seed": 3}, "seed is 3; it must be a table"),
        ({"stages": {"lr": 0.1}}, f"stages.name is missing or not a string; there are {STAGES}"),
        ({"model": {"name": "mpl"}}, f"model.name is 'mpl'; there are {', '.join(MODELS)}, or"),
        ({"server": {"schedule": "cosine"}}, "server.schedule is 'cosine'; it must be a table"),
        ({"server": {"schedule": {"milestones": [0.1, "b"]}}}, "server.schedule.milestones[1] is 'b'; it must be"),
        ({"population": {"class_counts": [1, 2]}}, "population.class_counts is [1, 2]; it must be a list of 3 numbers"),
        ({"client": {"lr": math.nan}}, "client.lr is nan; it must be a number"),
        ({"algorithm": {"name": "fedbuf"}}, "algorithm 'fedbuf' is unknown; there are "),
        ({"algorithm": {"name": "nowhere:Rule"}}, "algorithm 'nowhere:Rule' cannot be imported (ModuleNotFoundError: "),
        ({"algorithm": {"name": ":Rule"}}, "algorithm ':Rule' cannot be imported (ValueError: "),
        ({"algorithm": {"name": "math:Rule"}}, "algorithm 'math:Rule' cannot be imported (AttributeError: "),
        (
            {"algorithm": {"name": "pathlib:Path"}},
            "algorithm.name 'pathlib:Path' is not a dataclass derived from Algorithm",
        ),
    ],
)  # fmt: skip
def test_one_fault(tables: dict[str, Any], fault: str) -> None:
    (found,) = faults(tables)
    assert found.startswith(fault)


@pytest.mark.parametrize(
    ("tables", "fault"),
    [
        ({"experiment": {"eval_every": 5}}, "[experiment] has no limit; set updates, versions or virtual_time_s"),
        (
            {"server": {"concurrency": 60}},
            "server.concurrency (60) exceeds data.clients (50): more jobs than workers; lower one or raise the other",
        ),
        (
            {"server": {"concurrency": 10, "refill": "batch"}, "algorithm": {"buffer_size": 11}},
            "algorithm.buffer_size (11) exceeds server.concurrency (10) with batch refill: no aggregation could ever "
            "happen; lower one or raise the other",
        ),
        (
            {"experiment": {"updates": 10, "evaluate": "validation"}},
            "experiment.evaluate is 'validation' but data.validation is 0; keep some examples for it",
        ),
        (
            {"algorithm": {"name": "fedavg", "cohort": 51}},
            "algorithm.cohort (51) with over-selection asks 51 clients, more than server.concurrency (25); lower one "
            "or raise the other",
        ),
        (
            {"algorithm": {"name": "ace", "warm_up": 51}},
            "algorithm.warm_up (51) exceeds the 50 clients that can be heard before the first step: no aggregation "
            "could ever happen; lower it",
        ),
        (
            {"server": {"refill": "batch"}, "algorithm": {"name": "ace", "warm_up": 26}},
            "algorithm.warm_up (26) exceeds the 25 clients that can be heard before the first step: no aggregation "
            "could ever happen; lower it",
        ),
        (
            {"population": {"class_counts": [1, 2, 3]}},
            "[population] `class_counts` [1, 2, 3] add up to 6, but there are 50 clients: change the counts, or leave "
            "them out for [29, 14, 7]",
        ),
    ],
)
def test_across_tables(tables: dict[str, Any], fault: str) -> None:
    assert faults(tables) == (fault,)


@pytest.mark.parametrize(
    ("name", "setting"), [("fedbuff", "buffer_size"), ("fedavg", "cohort"), ("da_asgd", "concurrency")]
)
def test_a_rule_takes_the_servers_sizes_where_it_is_not_given_its_own(name: str, setting: str) -> None:
    server = {"concurrency": 7, "buffer_size": 6}
    wanted = 6 if setting == "buffer_size" else 7
    assert getattr(chosen({"server": server, "algorithm": {"name": name}}).algorithm, setting) == wanted
    assert getattr(chosen({"server": server, "algorithm": {"name": name, setting: 3}}).algorithm, setting) == 3


OUT_OF_RANGE = {
    "fedbuff": {"buffer_size": [0, -1], "lr": [0.0, -1.0, math.inf], "momentum": [1.0, -0.1], "max_staleness": [-1]},
    "fedasync": {"mixing": [0.0, 2.0], "a": [-1.0], "b": [-1.0], "mu": [-0.1, math.inf]},
    "fedavg": {"cohort": [0], "lr": [0.0], "over_selection": [-0.1], "round_deadline_s": [-1.0]},
    "ca2fl": {"buffer_size": [0], "lr": [0.0]},
    "fadas": {"buffer_size": [0], "lr": [0.0], "beta1": [1.0, -0.1], "beta2": [1.0], "eps": [0.0]},
    "fadas_da": {"buffer_size": [0], "lr": [0.0], "beta1": [1.0], "beta2": [1.0], "eps": [0.0], "tau_c": [-1]},
    "da_asgd": {"lr": [0.0], "concurrency": [0]},
    "asyncfeded": {"lr": [0.0], "eps": [0.0]},
    "fedfa": {"buffer_size": [0]},
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
            (found,) = faults(tables)
            shown = 1.5 if isinstance(value, tuple) else value
            assert found.startswith(f"{path}.{name} is {shown}; it must be "), found


def test_ranges_of_dataclasses() -> None:
    with pytest.raises(ConfigError) as caught:
        Config(
            ExperimentConfig(),
            client=ClientConfig(lr=0.0),
            algorithm=FedBuff(buffer_size=0),
            stages=(Echo(alpha_min=0.5, alpha_max=0.4), Echo(lr=-1.0)),
        )
    assert caught.value.faults == (
        "client.lr is 0.0; it must be above 0 and finite",
        "algorithm.buffer_size is 0; it must be at least 1",
        "stages.lr is -1.0; it must be above 0 and finite",
        "[experiment] has no limit; set updates, versions or virtual_time_s",
        "stages.alpha_min (0.5) exceeds stages.alpha_max (0.4); lower one or raise the other",
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


# ---------------------------------------------------------------------------------------------------- there and back


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("method", [None, "fedasync", "fedavg", "fadas_da+echo", "fedecho"])
def test_round_trip(path: Path, method: str | None, tmp_path: Path) -> None:
    config = Config.load(path, method)
    (tmp_path / "again.toml").write_text(config.to_toml(), encoding="utf-8")
    assert Config.load(tmp_path / "again.toml") == config
    assert path.read_text(encoding="utf-8").startswith(f"# fedecho run configs/{path.name}\n")


def test_round_trip_of_everything(tmp_path: Path) -> None:
    """Each setting of each table other than its default."""
    text = """
    [experiment]
    name = 'größer "x"'
    seed = 7
    updates = 10
    versions = 4
    virtual_time_s = 9
    eval_every = 3
    evaluate = "validation"
    device = "cuda:1"
    continuations = 2
    [data]
    dataset = "mnist"
    tokenizer = "minilm"
    length = 32
    features = "minilm"
    test_size = 100
    clients = 9
    partition = "coupled"
    alpha = 0.5
    classes_per_client = 3
    min_examples = 2
    max_examples = 30
    slow_classes = 1
    coupling = 0.5
    unlabeled = "noise"
    unlabeled_size = 40
    held_out = 5
    validation = 6
    [model]
    name = "resnet18"
    memory_format = "contiguous"
    width = 8
    anything = [1, [2, 3], {a = "b"}]
    [client]
    epochs = 3
    steps = 4
    batch_size = 5
    lr = 1e-5
    momentum = 0.9
    weight_decay = 1e-4
    clip = 2
    [server]
    concurrency = 4
    buffer_size = 3
    refill = "batch"
    schedule = {name = "step", final = 0.1, milestones = [0.25, 1], gamma = 0.3, warmup = 0.2}
    client_schedule = {name = "cosine", final = 0.1, milestones = [], gamma = 0.2, warmup = 0.1}
    ema = 0.9
    max_change_norm = inf
    max_change_ratio = 5.0
    aggregate_s = 0.1
    predict_s = 0.2
    stage_s = 0.3
    [algorithm]
    name = "fedbuff"
    buffer_size = 2
    lr = 0.5
    weighting = "polynomial"
    momentum = 0.3
    max_staleness = 10
    [[stages]]
    name = "echo"
    lr = 0.1
    steps = 3
    top_k = 8
    batch_size = 7
    max_passes = 0.5
    clip = 0
    alpha_min = 0.1
    alpha_max = 0.9
    alpha = "batch"
    average = "probabilities"
    temperature = 2
    teacher_weights = "staleness"
    staleness_power = 1
    optimizer = "adam"
    every = 4
    max_rows = 5
    row_dtype = "float16"
    [[stages]]
    name = "echo"
    [population]
    name = "lognormal"
    class_counts = [5, 3, 1]
    mean_s = 2
    sigma = 0.5
    job_sigma = 0.1
    down_mbps = 10
    up_mbps = 1
    network_sigma = 0.3
    latency_s = 0.1
    dropout = 0.1
    timeout_s = 5
    available_fraction = 0.5
    day_s = 100
    [transport]
    evaluate_every = 2
    [executor]
    workers = 3
    threads = 2
    batch = 4
    [records]
    checkpoint_every_s = 5
    tensorboard = true
    keep = "all"
    bank = "mapped"
    [variants.mine]
    method = "fadas"
    algorithm.lr = 0.1
    """
    (tmp_path / "all.toml").write_text(text, encoding="utf-8")
    config = Config.load(tmp_path / "all.toml")
    given = read_toml(tmp_path / "all.toml")
    for name, table in given.items():
        if name in ("stages", "variants", "model"):
            continue
        part = getattr(config, name)
        defaults = type(part)()
        for f in dataclasses.fields(part):
            alone = (name, f.name) in {
                ("executor", "name"),
                ("executor", "address"),
                ("transport", "name"),
                ("population", "assignment"),
                ("population", "slow_s"),
                ("population", "availability"),
            }  # one choice; asks for it; leaves tables out; excludes counts; asks for a regime; excludes a fraction
            assert f.name in table or alone, f"{name}.{f.name} is not in this test"
            assert alone or getattr(part, f.name) != getattr(defaults, f.name), f"{name}.{f.name} is the default here"
    stage = given["stages"][0]
    assert all(stage[f.name] != getattr(Echo(), f.name) for f in dataclasses.fields(Echo))
    assert dict(config.model.options) == {"width": 8, "anything": [1, [2, 3], {"a": "b"}]}
    (tmp_path / "again.toml").write_text(config.to_toml(), encoding="utf-8")
    assert Config.load(tmp_path / "again.toml") == config
    assert Config.from_dict(config.to_dict()) == config


def test_round_trip_of_a_live_run() -> None:
    """Its clients' training, data and delays are their own: nothing is said of them."""
    tables = {
        "experiment": {"versions": 5},
        "data": {"dataset": "flower", "clients": 3},
        "server": {"concurrency": 2**31},
        "transport": {"name": "flower"},
        "model": {"name": "task:Net"},
    }
    config = Config.from_dict(tables)
    told = config.to_dict()
    assert told["data"] == tables["data"]
    assert not {"client", "population"} & told.keys()
    assert Config.from_dict(told) == config
    nameless = dataclasses.replace(config, model=dataclasses.replace(config.model, name=""))
    assert "model" not in nameless.to_dict()


def test_defaults() -> None:
    """The least a file can say; buffer and cohort are the server's, so that all methods of a comparison share them."""
    config = Config.from_dict(LIMIT)
    assert config == Config(ExperimentConfig(updates=10))
    assert config.method == "fedbuff"
    sized = {"server": {"concurrency": 8, "buffer_size": 3}}
    assert chosen(sized, "fedbuff").algorithm == FedBuff(buffer_size=3)
    assert chosen(sized, "fedavg").algorithm == FedAvg(cohort=8)
    assert chosen({**sized, "algorithm": {"name": "fedavg", "cohort": 2}}).algorithm == FedAvg(cohort=2)


@pytest.mark.parametrize("content", [b"[experiment\n", b"a = \xff"])
def test_not_toml(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.toml is not TOML"):
        Config.load(tmp_path / "x.toml")
    with pytest.raises(ConfigError, match=r"y\.toml cannot be read \(No such file or directory\); give the path"):
        Config.load(tmp_path / "y.toml")


# -------------------------------------------------------------------------------------------------- methods, overrides

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
    shared = {name: value for name, value in {"buffer_size": 5, "cohort": 25}.items() if name in names}
    assert config.algorithm == algorithm_classes()[rule](**shared, **expected)
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
        ("fedbuff+ekho", {}, "stages 'ekho' is unknown; there are .*echo"),
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
