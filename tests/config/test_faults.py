"""Every fault of a configuration at once, each with its key and a remedy."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fedecho import ConfigError
from fedecho.config.registry import stage_classes
from fedecho.executors import EXECUTORS
from fedecho.learning.models import MODELS
from support.configs import chosen, faults

STAGES = ", ".join(stage_classes())


def test_every_fault_at_once() -> None:
    lines = faults(
        {
            "experiment": {"updates": 0, "sed": 1, "evaluate": "train"},
            "data": {"clients": 10, "alpha": "small"},
            "client": {"lr": True, "steps": 2.5},
            "server": {"concurrency": 20, "schedule": {"name": "cosin", "warmup": 2}},
            "algorithm": {"name": "fedbuff", "lr": -1, "momentum": 1.0},
            "stages": [{"name": "echo", "alpha_min": -0.9}, {"name": "ekho"}],
            "population": {"dropout": 2.0},
            "executor": {"name": "rya"},
            "polulation": {},
        }
    )
    assert lines == (
        "[polulation] is not a table of a configuration (did you mean 'population'?); there are experiment, data, "
        "model, objective, client, server, algorithm, stages, population, transport, executor, records, variants",
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
        "stages.alpha_min is -0.9; it must be from 0 to 1",
        f"stages 'ekho' is unknown (did you mean 'echo'?); there are {STAGES}, or give `module:Class`",
        f"executor.name is 'rya' (did you mean 'ray'?); there are {', '.join(EXECUTORS)}, or give `module:Class`",
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
        ({"model": {"name": "mpl"}}, f"model.name is 'mpl' (did you mean 'mlp'?); there are {', '.join(MODELS)}, or"),
        ({"server": {"schedule": "cosine"}}, "server.schedule is 'cosine'; it must be a table"),
        ({"server": {"schedule": {"milestones": [0.1, "b"]}}}, "server.schedule.milestones[1] is 'b'; it must be"),
        ({"population": {"class_counts": [1, 2]}}, "population.class_counts is [1, 2]; it must be a list of 3 numbers"),
        ({"client": {"lr": math.nan}}, "client.lr is nan; it must be a number"),
        ({"algorithm": {"name": "fedbuf"}}, "algorithm 'fedbuf' is unknown (did you mean 'fedbuff'?); there are "),
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
    (line,) = faults(tables)
    assert line.startswith(fault)


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
            {"stages": {"name": "echo", "alpha_min": 0.9, "alpha_max": 0.1}},
            "stages.alpha_min (0.9) exceeds stages.alpha_max (0.1); lower one or raise the other",
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
    ("tables", "fault"),
    [
        (
            {"refine": {"name": "echo"}},
            "[refine] is not a table of a configuration (did you mean 'stages'?); there are",
        ),
        ({"refine": [{"name": "echo"}]}, "[refine] is not a table of a configuration (did you mean 'stages'?); there"),
        ({"server": {"refine_s": 0.1}}, "server.refine_s is not a setting (did you mean 'stage_s'?); there are"),
        (
            {"algorithm": {"name": "fedfa", "buffer_size": 3}},
            "algorithm.buffer_size is not a setting (did you mean 'window'?); there are window",
        ),
        ({"data": {"dataset": "mnits"}}, "data.dataset is 'mnits' (did you mean 'mnist'?); there are bbc_news, chat,"),
        ({"data": {"partition": "dirichet"}}, "data.partition is 'dirichet' (did you mean 'dirichlet'?); there are"),
    ],
)
def test_renamed_and_misspelt_names_get_a_suggestion(tables: dict[str, Any], fault: str) -> None:
    (line,) = faults(tables)
    assert line.startswith(fault), line


def test_a_renamed_table_in_an_override_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"^\[refine\] is not a table of a configuration \(did you mean 'stages'\?\)"):
        chosen({}, None, "refine.lr=0.1")
