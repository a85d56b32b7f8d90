"""TOML there and back, and the defaults."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fedecho import Config, ConfigError
from fedecho.algorithms.fedavg import FedAvg
from fedecho.algorithms.fedbuff import FedBuff
from fedecho.config.tables import ExperimentConfig
from fedecho.config.toml import read_toml
from fedecho.stages.echo import Echo
from support.configs import LIMIT, chosen

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))


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
    [data.options]
    path = "somewhere"
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
    client_column = "who"
    seconds_column = "took"
    unit = "ms"
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
                ("population", "options"),
            }  # settings that exclude others of this test, or ask for them
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
    tables_again = config.to_dict()
    assert tables_again["data"] == tables["data"]
    assert not {"client", "population"} & tables_again.keys()
    assert Config.from_dict(tables_again) == config
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
