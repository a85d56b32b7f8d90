"""From a configuration to the parts of a run."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import replace

from ..config.config import Config
from ..core.errors import ConfigError
from ..core.keys import Key
from ..core.mapped import to_mmap
from ..data.federation import Federation, federation
from ..executors import processes
from ..executors.arena import SharedArena
from ..learning import models
from ..server.server import Server
from ..simulation.build import build
from ..simulation.population import Population
from .judging import make_judge
from .limits import check_device, check_memory, check_objective
from .setup import Simulation
from .texts import continuation_writer, generated_inputs
from .workers import make_executor, make_learner, training_part, worker_count


def prepare(config: Config) -> Simulation:
    """Build every part of a simulated run.

    Raises:
        ConfigError, DataError, MissingExtra: for what cannot be built, with the remedy.
    """
    if config.transport.name != "simulated":
        raise ConfigError(
            f"transport.name is {config.transport.name!r}: a live federation is served by a Flower ServerApp with "
            "`fedecho.flower`; leave [transport] out to simulate one"
        )
    began = time.perf_counter()
    parallel = worker_count(config) > 0
    if parallel:
        processes.prepare()
    key = Key(config.experiment.seed)
    population, data = _population_and_data(config, key)
    check_device(config.experiment.device)
    learner = make_learner(config, data)
    check_objective(config, learner.objective)
    if config.data.unlabeled == "generated":
        data = replace(data, unlabeled=generated_inputs(config, data, learner, key.fold("generated")))
        learner.publish(data.unlabeled)
    check_memory(config, len(learner.initial().weights), (learner.prediction_count, learner.classes))
    shared = None
    if parallel:  # everybody trains on the same copy of the data, this process too
        shared = SharedArena(1)
        shared.write(0, training_part(learner))
        data = replace(shared.read(0, copy=False), validation=data.validation, test=data.test)
        learner = make_learner(config, data)
    server = Server(
        config.algorithm,
        learner.initial(),
        config.data.clients,
        key.fold("server"),
        config.experiment.stop,
        config.server,
        config.stages,
        learner,
        (learner.prediction_count, learner.classes),
        [client for client in range(config.data.clients) if not population.present(client, 0.0)],
        to_mmap if config.records.bank == "mapped" else None,
    )
    executor, judge = make_executor(config, learner, server, shared), make_judge(config, data, population, learner)
    set_up_s = time.perf_counter() - began
    continue_prompts = continuation_writer(config, data, learner)
    return Simulation(
        config=config,
        server=server,
        judge=judge,
        export=learner.state_dict,
        learner=learner,
        continue_prompts=continue_prompts,
        objective=learner.objective.name,
        metrics=learner.objective.metrics,
        data=data,
        population=population,
        executor=executor,
        set_up_s=set_up_s,
    )


def _population_and_data(config: Config, key: Key) -> tuple[Population, Federation]:
    """Who is how slow, and who holds what."""
    settings = {f.name: getattr(config.population, f.name) for f in dataclasses.fields(config.population)}
    population = build(config.data.clients, key, **settings)
    brings = models.tokenizer_of(config.model.name, config.data.tokenizer)
    data = federation(config.data, key.fold("data"), population.members("slow"), None, brings)
    if config.population.availability == "data":  # whose hours a client has is known once the data are dealt
        if data.hours is None:
            raise ConfigError(
                f"population.availability is 'data', and data.dataset {config.data.dataset!r} with data.partition "
                f"{config.data.partition!r} does not say when its clients are active; take chat and a natural split"
            )
        population = population.at_hours(data.hours)
    return population, data
