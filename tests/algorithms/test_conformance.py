"""What every algorithm must do, alone and with an echo, and every stage on FedBuff.

A rule or a stage that is added is found, and tested, by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedecho.algorithms.base import Algorithm
from fedecho.config.config import Config
from fedecho.config.registry import ALIASES, algorithm_classes, stage_classes
from fedecho.config.toml import resolve
from fedecho.core import trees as tree
from fedecho.core.keys import Key
from fedecho.core.messages import Arrived, Model
from fedecho.server.server import Server
from fedecho.server.settings import ServerConfig, Stop
from fedecho.simulation.population import Population
from fedecho.stages.base import Stage
from fedecho.stages.echo import Echo
from helpers import Log, Quadratics, change, drive, make_server, population, through_json, transport_for, view

N, D, U = 8, 6, 16
CONFIG = ServerConfig(concurrency=4, buffer_size=3)

TUNED: dict[str, dict[str, Any]] = {
    "fadas": {"lr": 0.2},
    "fadas_da": {"lr": 0.4},
    "fedac": {"lr": 0.2},
    "fedasync": {"mixing": 0.3},
}
"""Settings under which a rule gets near the quadratic's minimum in 300 updates; others do at their defaults."""

STAGES: dict[str, dict[str, Any]] = {
    "central_dp": {"noise_multiplier": 0.01, "clip": 3.0, "buffer_size": 3},
    "echo": {"every": 3},
    "fedrevive": {"generate_after": 2, "generate_every": 3, "distill_after": 4, "teachers": 3, "pool_size": 20},
}
"""What a stage needs, beside a small step, to have work in a short run."""

METHODS = [name + echo for name in algorithm_classes() for echo in ("", "+echo")]
METHODS += [f"fedbuff+{name}" for name in stage_classes() if name != "echo"]
every_method = pytest.mark.parametrize("method", METHODS)


def make_rule(name: str) -> Algorithm:
    cls = algorithm_classes()[name]
    sizes = {"buffer_size": 3, "cohort": 3, "window": 3}
    own = {f.name: sizes[f.name] for f in fields(cls) if f.name in sizes}  # type: ignore[arg-type]
    return cls(**{**own, **TUNED.get(name, {})})


def make(method: str) -> tuple[Algorithm, tuple[Stage, ...]]:
    name, _, stage = method.partition("+")
    return make_rule(name), (make_stage(stage),) if stage else ()


def make_stage(name: str) -> Stage:
    cls = stage_classes()[name]
    own = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    common = {"lr": 0.05, "steps": 2, "batch_size": 8}
    return cls(**{key: value for key, value in common.items() if key in own}, **STAGES.get(name, {}))


def centres() -> torch.Tensor:
    """Every client's own minimum, scattered around one far from the start."""
    generator = torch.Generator().manual_seed(5)
    return 4.0 + 0.5 * torch.randn(N, D, generator=generator)


def quadratics(rule: Algorithm) -> Quadratics:
    return Quadratics(centres(), torch.randn(U, 2, generator=torch.Generator().manual_seed(6)), rule=rule.client_rule)


TIES = [[1.0]] * N
UNEVEN = [[1.0, 1.5, 2.0]] * 4 + [[4.0, 5.0]] * 2 + [[17.0]] * 2


def run(
    method: str, people: Population, stop: Stop, config: ServerConfig = CONFIG, events: int | None = None
) -> tuple[Server, Log]:
    rule, stages = make(method)
    worker, log = quadratics(rule), Log()
    server = make_server(rule, people, worker, stop, config, stages)
    drive(server, transport_for(server, people, worker), log, events)
    return server, log


def check_versions(server: Server, log: Log) -> None:
    versions = [fact.version for fact in log.of("aggregate")]
    assert versions == list(range(1, server.model.version + 1))
    assert sum(int(fact.detail["count"]) for fact in log.of("aggregate")) + server.state.since_aggregation == len(
        log.of("accept")
    )


def tensors_of(value: Any) -> dict[str, torch.Tensor]:
    return tree.flatten(value)[1]


def clones(value: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in tensors_of(value).items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("name", algorithm_classes())
def test_a_rule_changes_nothing_that_it_was_given_and_old_states_stay_valid(name: str) -> None:
    rule = make_rule(name)
    generator = torch.Generator().manual_seed(1)

    def vector() -> torch.Tensor:
        return torch.randn(D, generator=generator)

    changes = [
        change(
            vector(),
            client=i % 5,
            staleness=i % 4,
            start=vector(),
            current=vector(),
            n=i + 1,
            extra={report: vector() for report in rule.reports},
        )
        for i in range(24)
    ]
    seen: list[tuple[Any, dict[str, torch.Tensor]]] = [(item, clones(item)) for item in changes]

    def continue_prompts(state: Any, weights: torch.Tensor, first: int, note: Callable[[Any], None]) -> torch.Tensor:
        for item in changes[first:]:
            state = rule.receive(state, item)
            note(state)
            if rule.ready(state, view()):
                weights, state = rule.aggregate(state, weights, 1.0)
                note((weights, state))
        return weights

    start = vector()
    state = rule.init(start, 5)
    seen.append(((start, state), clones((start, state))))
    final = continue_prompts(state, start, 0, lambda value: seen.append((value, clones(value))))
    assert all(same(tensors_of(value), before) for value, before in seen)
    assert not torch.equal(final, start)
    again = continue_prompts(state, start, 0, lambda value: None)
    assert torch.equal(again, final)
    # from an old state in the middle, and the rule is a value: an equal one goes on just as well
    half = next(i for i, (value, _) in enumerate(seen) if i > len(changes) + 8 and isinstance(value, tuple))
    weights, middle = seen[half][0]
    arrived = sum(not isinstance(value, tuple) for value, _ in seen[len(changes) + 1 : half])
    rule = replace(rule)  # type: ignore[type-var]
    assert torch.equal(continue_prompts(middle, weights, arrived, lambda value: None), final)


@pytest.mark.parametrize("name", [*stage_classes(), "full bank"])
def test_a_stage_changes_nothing_that_it_was_given_and_old_states_stay_valid(name: str) -> None:
    stage = Echo(lr=0.05, steps=2, batch_size=8, max_rows=3) if name == "full bank" else make_stage(name)
    worker, generator = quadratics(make_rule("fedbuff")), torch.Generator().manual_seed(2)

    def vector(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator)

    model = Model(3, vector(D), torch.zeros(0))
    rows = [vector(U, 3) for _ in range(12)]
    changes = [change(vector(D), client=i % 4, version=3, staleness=i % 3, start=vector(D)) for i in range(12)]
    given = clones((model, rows, changes, worker.unlabeled))
    seen: list[tuple[Any, dict[str, torch.Tensor]]] = []

    def continue_prompts(state: Any, first: int) -> list[torch.Tensor]:
        changes_out = []
        for i in range(first, len(rows)):
            state = stage.on_update(state, changes[i], rows[i])
            seen.append((state, clones(state)))
            delta, state, _ = stage.revise(state, changes[i], model, worker, Key(i))
            seen.append((state, clones(state)))
            changes_out.append(delta)
        weights, state, _ = stage.after_aggregate(state, model, worker, Key(99))
        seen.append((state, clones(state)))
        return [*changes_out, weights]

    begun = stage.init(N)
    first = continue_prompts(begun, 0)
    half = through_json(seen[11][0])  # after six updates
    again, later = continue_prompts(begun, 0), continue_prompts(half, 6)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first[6:], later, strict=True))
    untouched = [*(item.delta for item in changes), model.weights]
    assert any(not torch.equal(a, b) for a, b in zip(first, untouched, strict=True)), "the stage does something"
    assert same(clones((model, rows, changes, worker.unlabeled)), given)
    assert all(same(tensors_of(value), before) for value, before in seen)


def test_every_algorithm_has_a_stage_on_it_and_every_stage_an_algorithm() -> None:
    assert {method.partition("+")[0] for method in METHODS if "+" in method} == set(algorithm_classes())
    assert {method.partition("+")[2] for method in METHODS} - {""} == set(stage_classes())


@every_method
@pytest.mark.parametrize("refill", ["immediate", "batch"])
def test_a_run_survives_ties_and_losses_and_the_version_rises_by_one(method: str, refill: Any) -> None:
    people = population(TIES, dropout=0.3)
    server, log = run(method, people, Stop(updates=40), replace(CONFIG, refill=refill))
    assert server.state.updates == 40
    assert len(log.of("lost")) > 5
    times = [event.at_s for event in log.events]
    assert max(times.count(at_s) for at_s in times) > 1
    check_versions(server, log)
    assert bool(torch.isfinite(server.model.weights).all())


@every_method
def test_a_run_survives_clients_that_come_and_go(method: str) -> None:
    server, log = run(method, population(UNEVEN, available_fraction=0.7, day_s=30.0), Stop(updates=60))
    assert server.state.updates == 60
    assert log.of("leave")
    assert log.of("join")
    check_versions(server, log)


@every_method
def test_a_run_of_one_client_works(method: str) -> None:
    rule, stages = make(method)
    rule = replace(rule, cohort=1) if hasattr(rule, "cohort") else rule  # type: ignore[type-var]
    worker, log, people = quadratics(rule), Log(), population([[1.0]])
    server = make_server(rule, people, worker, Stop(updates=12), ServerConfig(concurrency=1), stages)
    drive(server, transport_for(server, people, worker), log)
    assert {fact.client for fact in log.of("accept")} == {0}
    check_versions(server, log)


@pytest.mark.parametrize("name", algorithm_classes())
def test_a_rule_keeps_no_more_than_it_declares(name: str) -> None:
    rule, log, most = make_rule(name), Log(), 0
    worker, people = quadratics(rule), population(UNEVEN)
    server = make_server(rule, people, worker, Stop(updates=80), CONFIG)
    transport = transport_for(server, people, worker)
    while not server.done:
        drive(server, transport, log, events=1)
        held = [tensor for tensor in tensors_of(server.state.algorithm).values() if tensor.numel() == D]
        most = max(most, len(held))
    assert most <= rule.memory(N)
    assert most > rule.memory(N) - N, "far less than declared"


@every_method
def test_a_run_again_gives_the_same_bits(method: str) -> None:
    people = population(UNEVEN, dropout=0.1)
    (first, log), (second, log_too) = (run(method, people, Stop(updates=50)) for _ in range(2))
    assert log.facts == log_too.facts
    assert same(clones(first.snapshot()), clones(second.snapshot()))
    other, _ = run(method, population(UNEVEN, dropout=0.2), Stop(updates=50))
    assert not torch.equal(other.model.weights, first.model.weights)


@every_method
def test_clients_that_disagree_still_bring_the_model_to_the_quadratics_minimum(method: str) -> None:
    server, log = run(method, population(UNEVEN), Stop(updates=300))
    at_first, at_last = centres().mean(0).norm(), (server.model.weights - centres().mean(0)).norm()
    assert at_last < 0.1 * at_first
    assert bool(log.of("stage")) == ("+" in method)


@every_method
@pytest.mark.parametrize("events", [0, 1, 7, 40, 41])
def test_a_run_restored_from_json_in_the_middle_goes_on_to_the_same_bits(method: str, events: int) -> None:
    people = population(UNEVEN, dropout=0.1, available_fraction=0.8, day_s=40.0)
    config = replace(CONFIG, ema=0.5, stage_s=0.25, aggregate_s=0.5)
    whole, log = run(method, people, Stop(updates=50, virtual_time_s=1e6), config)
    part, log_before = run(method, people, Stop(updates=50, virtual_time_s=1e6), config, events)
    snapshot = through_json(part.snapshot())

    def continue_prompts() -> tuple[Server, Log]:
        rule, stages = make(method)
        worker, after = quadratics(rule), Log()
        server = make_server(rule, people, worker, Stop(updates=50, virtual_time_s=1e6), config, stages)
        server.restore(snapshot)
        drive(server, transport_for(server, people, worker), after)
        return server, after

    for _ in range(2):  # a snapshot can be restored twice
        rest, log_after = continue_prompts()
        assert log_before.facts + log_after.facts == log.facts
        assert same(clones(rest.snapshot()), clones(whole.snapshot()))


@every_method
def test_a_run_needs_only_its_updates_to_be_told_again(method: str) -> None:
    people = population(UNEVEN, dropout=0.1)
    whole, log = run(method, people, Stop(updates=30))
    rule, stages = make(method)
    server = make_server(rule, people, quadratics(rule), Stop(updates=30), CONFIG, stages)
    server.start(0.0)
    for event in log.events:
        server.handle(event)
    assert any(isinstance(event, Arrived) for event in log.events)
    assert torch.equal(server.model.weights, whole.model.weights)


@pytest.mark.parametrize("method", [*METHODS, *ALIASES])
def test_a_configuration_goes_through_toml_unchanged(method: str, tmp_path: Path) -> None:
    base = {"experiment": {"updates": 10}, "server": {"ema": 0.1, "schedule": {"name": "cosine"}}}
    config = Config.from_dict(resolve(base, method))
    assert config.method == ALIASES.get(method, method)
    assert Config.from_dict(config.to_dict()) == config
    (tmp_path / "config.toml").write_text(config.to_toml())
    assert Config.load(tmp_path / "config.toml") == config


@pytest.mark.parametrize("name", algorithm_classes())
def test_a_rule_names_its_paper_and_explains_every_setting(name: str) -> None:
    cls = algorithm_classes()[name]
    assert cls.citation.startswith("@")
    documented = (cls.__doc__ or "").partition("Attributes:")[2]
    for f in fields(cls):  # type: ignore[arg-type]
        assert f"{f.name}: " in documented


@pytest.mark.parametrize("name", algorithm_classes())
def test_a_rule_has_one_server_step_to_tune_and_four_values_for_it(name: str) -> None:
    cls = algorithm_classes()[name]
    ((setting, values),) = cls.grid.items()
    assert setting in {f.name for f in fields(cls)}  # type: ignore[arg-type]
    assert len(set(values)) == 4
    assert list(values) == sorted(values)
    configs = [
        Config.from_dict({"experiment": {"updates": 1}, "algorithm": {"name": name, setting: v}}) for v in values
    ]
    assert [getattr(config.algorithm, setting) for config in configs] == list(values)
