"""From a configuration to the parts of a run."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from . import population as populations
from .config import Config
from .data import tokens
from .data.federation import Federation, federation
from .errors import ConfigError
from .learning import models
from .learning.learner import ClientConfig, Learner, perplexity
from .messages import Model
from .records import environment
from .rng import Key
from .server import Server, form_of
from .shelf import shelve
from .transports.executors import Auto, Executor, Inline, Processes, Ray, Vectorized, processes
from .transports.executors.memory import Memory

Judge = Callable[[Model], Mapping[str, float | None]]
"""Judges a model: accuracy, loss, slow_client_accuracy, fast_client_accuracy (see `records.METRICS`); None: unknown."""


@dataclass(frozen=True)
class Setup:
    """The parts that every run has.

    Attributes:
        config: what is run.
        server: with the initial model.
        judge: judges the server's model when it is time.
        export: the model as a plain state_dict, contiguous CPU tensors.
        learner: the server's own learning; None on a live federation whose server only aggregates.
        go_on: of a language model, where asked for: a few prompts and how the model continues them.
    """

    config: Config
    server: Server
    judge: Judge
    export: Callable[[Model], dict[str, Tensor]]
    learner: Learner | None
    go_on: Callable[[Model], list[tuple[str, str]]] | None

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of learning so far, by kind."""
        return {"train_s": 0.0, "infer_s": 0.0, "distill_s": 0.0} if self.learner is None else self.learner.seconds

    @property
    def elsewhere(self) -> Mapping[str, float]:
        """Seconds of learning in other processes, by kind; `wait_s`: for them; `setup_s`: to build the parts."""
        return {}

    def environment(self) -> dict[str, Any]:
        """What decides the bits of the run."""
        channels_last = self.learner is not None and self.learner.channels_last
        memory_format = "channels_last" if channels_last else "contiguous"
        return environment(self.config.experiment.device, self.config.executor.threads, memory_format)

    def close(self) -> None:
        """End what the parts keep running."""


@dataclass(frozen=True)
class Sizes:
    """What a run moves and keeps.

    Attributes:
        trained: weights that are trained, and travel.
        frozen: those that are not, and stay where they are.
        down_bytes: the model, from the server to a client.
        up_bytes: from a client to the server: the model, and its predictions on U where a stage wants them.
        predictions_bytes: of these, the predictions.
        bank_bytes: the most that the stages come to hold of clients' predictions.
    """

    trained: int
    frozen: int
    down_bytes: int
    up_bytes: int
    predictions_bytes: int
    bank_bytes: int


@dataclass(frozen=True)
class Simulation(Setup):
    """The parts of a simulated run."""

    data: Federation
    population: populations.Population
    learner: Learner
    executor: Executor
    set_up_s: float

    @property
    def elsewhere(self) -> Mapping[str, float]:
        return {**self.executor.seconds, "setup_s": self.set_up_s}

    @property
    def sizes(self) -> Sizes:
        """What the run moves and keeps."""
        learner, stages, model = self.learner, self.config.refine, self.learner.initial()
        number, classes = learner.predictions, learner.classes
        down = 4 * (model.weights.numel() + model.buffers.numel())
        said = number * form_of(stages).bytes(classes) if any(stage.needs_predictions for stage in stages) else 0
        bank = sum(stage.memory_bytes(self.config.data.clients, number, classes) for stage in stages)
        frozen = sum(p.numel() for p in learner.module.parameters() if not p.requires_grad)
        return Sizes(model.weights.numel(), frozen, down, down + said, said, bank)

    def close(self) -> None:
        self.executor.close()


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
    parallel = _workers(config) > 0
    if parallel:
        processes.prepare()
    key = Key(config.experiment.seed)
    settings = {f.name: getattr(config.population, f.name) for f in dataclasses.fields(config.population)}
    population = populations.build(config.data.clients, key, **settings)
    brings = models.tokenizer_of(config.model.name, config.data.tokenizer)
    data = federation(config.data, key.fold("data"), population.members("slow"), None, brings)
    if config.population.availability == "data":  # whose hours a client has is known once the data are dealt
        if data.hours is None:
            raise ConfigError(
                f"population.availability is 'data', and data.dataset {config.data.dataset!r} with data.partition "
                f"{config.data.partition!r} does not say when its clients are active; take chat and a natural split"
            )
        population = population.at_hours(data.hours)
    _check_device(config.experiment.device)
    learner = _learner(config, data)
    if config.data.unlabeled == "generated":
        data = replace(data, unlabeled=_written(config, data, learner, key.fold("generated")))
        learner.publish(data.unlabeled)
    _check_memory(config, len(learner.initial().weights), (learner.predictions, learner.classes))
    shared = None
    if parallel:  # everybody trains on the same copy of the data, this process too
        shared = Memory(1)
        shared.write(0, _training_part(learner))
        data = replace(shared.read(0, copy=False), validation=data.validation, test=data.test)
        learner = _learner(config, data)
    server = Server(
        config.algorithm,
        learner.initial(),
        config.data.clients,
        key.fold("server"),
        config.experiment.stop,
        config.server,
        config.refine,
        learner,
        (learner.predictions, learner.classes),
        [client for client in range(config.data.clients) if not population.present(client, 0.0)],
        shelve if config.records.bank == "mapped" else None,
    )
    executor, judge = _executor(config, learner, server, shared), _judge(config, data, population, learner)
    set_up_s = time.perf_counter() - began
    go_on = _continues(config, data, learner)
    return Simulation(config, server, judge, learner.state_dict, learner, go_on, data, population, executor, set_up_s)


CONTINUED = 64
"""Tokens that a prompt and its continuation have together, at most."""


def _words(data: Federation) -> tokens.Tokenizer:
    """The tokenizer of a run on text."""
    if data.tokenizer is None:
        raise ConfigError("the data set does not say what made its tokens; name a tokenizer in its Source")
    return tokens.tokenizer(data.tokenizer)


def _written(config: Config, data: Federation, learner: Learner, key: Key) -> Tensor:
    """U that the initial model writes, [|U|, L], from the token that begins a text, or a new line."""
    by, size = _words(data), config.data.unlabeled_size
    first = next((ids[0] for ids in map(by.encode, ("", "\n", "a")) if ids), 0)
    length = data.inputs.shape[1]
    parts = []
    for i in range(0, size, 64):
        prompts = torch.full((min(64, size - i), 1), first)
        parts.append(learner.generate(learner.initial(), prompts, length, key.fold(i)).cpu())
    return torch.cat(parts)


def _continues(config: Config, data: Federation, learner: Learner) -> Callable[[Model], list[tuple[str, str]]] | None:
    """Continues the first quarter of some test texts, evenly spread, by the most probable tokens."""
    count = config.experiment.continuations
    if not count:
        return None
    if not data.causal:
        raise ConfigError(
            f"experiment.continuations is {count}, and a model of {config.data.dataset} says classes; set it to 0"
        )
    by, inputs = _words(data), data.test[0]
    length = min(CONTINUED, inputs.shape[1])
    begun = max(1, length // 4)
    whole = inputs if data.pad is None else inputs[(inputs[:, :begun] != data.pad).all(1)]
    count = min(count, len(whole))
    prompts = whole[torch.arange(count) * len(whole) // max(count, 1), :begun]

    def go_on(model: Model) -> list[tuple[str, str]]:
        made = learner.generate(model, prompts, length).cpu()
        pairs = []
        for row in made.tolist():
            prompt, whole = by.decode(row[:begun]), by.decode(row)
            pairs.append((prompt, whole.removeprefix(prompt)))
        return pairs

    return go_on


def _learner(config: Config, data: Federation) -> Learner:
    """The learner, here or in a worker; it works on as many threads as the configuration says."""
    torch.set_num_threads(config.executor.threads)
    shape = tuple(data.inputs.shape[1:])
    model = config.model

    def make() -> nn.Module:
        try:
            module = models.build(model.name, shape, data.classes, data.causal, data.pad, dict(model.options))
        except TypeError as fault:
            raise ConfigError(f"[model] {model.name} cannot be built: {fault}; check the keys of the table") from None
        if not isinstance(module, nn.Module):
            raise ConfigError(f"[model] {model.name} gave a {type(module).__name__}; it must give an nn.Module")
        return module

    key, rule, device = Key(config.experiment.seed), config.algorithm.client_rule, config.experiment.device
    return Learner(make, data, config.client, key, rule, device, model.memory_format)


def _training_part(learner: Learner) -> Federation:
    """What workers need of the data."""
    none = (torch.zeros(0), torch.zeros(0))
    return replace(learner.laid_out(), validation=none, test=none)


def _judge(config: Config, data: Federation, population: populations.Population, learner: Learner) -> Judge:
    """Accuracy and loss on the part that judges, and those of slow and of fast clients: on their own test examples
    where these are known, else under their label mixes."""
    validating = config.experiment.evaluate == "validation"
    inputs, labels = data.validation if validating else data.test
    whose = None if validating else data.test_clients
    members = {group: population.members(group) for group in ("slow", "fast")}
    if whose is not None:
        own = {group: torch.isin(whose, torch.tensor(clients)) for group, clients in members.items() if clients}
    elif not data.causal:
        mixes = {group: data.label_mix(clients) for group, clients in members.items() if clients}

    def judge(model: Model) -> dict[str, float | None]:
        found = learner.evaluate(model, inputs, labels)
        judged = {"accuracy": found.accuracy, "loss": found.loss}  # a NaN means that there was nothing to judge by
        if data.causal:
            judged["perplexity"] = perplexity(found.loss)
        if whose is not None:
            for group, rows in own.items():
                judged[f"{group}_client_accuracy"], loss = found.of(rows)
                if data.causal:
                    judged[f"{group}_client_perplexity"] = perplexity(loss)
        elif not data.causal:
            judged |= {f"{group}_client_accuracy": found.accuracy_under(mix) for group, mix in mixes.items()}
        return {name: None if math.isnan(value) else value for name, value in judged.items()}

    return judge


def prepare_live(
    config: Config,
    read: Callable[[Learner | None], Model],
    build: Callable[[], nn.Module] | None,
    unlabeled: Tensor | None,
    judge: Judge,
    export: Callable[[Learner | None, Model], dict[str, Tensor]],
) -> Setup:
    """Build the parts of a run on a live federation: clients come by `Joined`, and none is there before.

    Args:
        config: what is run; of its data only the number of clients counts.
        read: the initial model, in the learner's layout where there is a learner.
        build: makes the module, for a server that predicts or distils.
        unlabeled: U, [|U|, *shape] float32, likewise.
        judge: judges the server's model.
        export: the model as a plain state_dict.

    Raises:
        ConfigError: for what cannot be built, with the remedy.
    """
    torch.set_num_threads(config.executor.threads)
    key = Key(config.experiment.seed)
    _check_device(config.experiment.device)
    learner, outputs = None, None
    if any(stage.needs_compute for stage in config.refine):
        if build is None:
            raise ConfigError(f"{config.method} learns on the server: give it `model`, which builds the module")
        predicting = any(stage.needs_predictions for stage in config.refine)
        if unlabeled is None or (predicting and not len(unlabeled)):
            few = "" if predicting else "; [0, *shape] does, for it looks at no real input"
            raise ConfigError(
                f"{config.method} needs `unlabeled`: give it the public inputs, [|U|, *shape] float32{few}"
            )
        learner = public_learner(build, unlabeled, key, config.experiment.device)
        outputs = (learner.predictions, learner.classes)
    initial = read(learner)
    _check_memory(config, len(initial.weights), outputs or (0, 0))
    clients = config.data.clients
    server = Server(
        config.algorithm,
        initial,
        clients,
        key.fold("server"),
        config.experiment.stop,
        config.server,
        config.refine,
        learner,
        outputs,
        range(clients),
        shelve if config.records.bank == "mapped" else None,
    )
    return Setup(config, server, judge, lambda model: export(learner, model), learner, None)


def public_learner(build: Callable[[], nn.Module], unlabeled: Tensor, key: Key, device: str) -> Learner:
    """A learner that holds no client's data, only U, [|U|, *shape] float32.

    Raises:
        ConfigError: when the module does not answer inputs of that shape with logits [n, C].
    """
    unlabeled = unlabeled.detach().float().cpu()
    shape = tuple(unlabeled.shape[1:])
    try:
        with torch.no_grad():
            logits = build().eval()(torch.zeros(2, *shape))
    except Exception as fault:  # whatever the module raises
        raise ConfigError(
            f"the model cannot take `unlabeled` [n, {shape}]: {fault}; give inputs as it is fed"
        ) from fault
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != 2:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ConfigError(f"the model gives {got} for two inputs; it must give logits [2, C]")
    data = Federation.public(unlabeled, int(logits.shape[1]))
    return Learner(build, data, ClientConfig(), key, None, device, "contiguous")


def _check_device(device: str) -> None:
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as fault:  # torch raises either, depending on how it was built
        why = str(fault).splitlines()[0]
        raise ConfigError(f"experiment.device {device!r} cannot be used ({why}); try 'cpu'") from None


@dataclass(frozen=True)
class _Workshop:
    """Makes a worker's learner. A user's own rule and model travel by name, the data as shared memory."""

    tables: dict[str, Any]
    data: Memory

    def __call__(self) -> Learner:
        return _learner(Config.from_dict(self.tables), self.data.read(0, copy=False))


@dataclass(frozen=True)
class _Kit:
    """Likewise, with the data themselves: for workers that may be on another machine."""

    tables: dict[str, Any]
    data: Federation

    def __call__(self) -> Learner:
        return _learner(Config.from_dict(self.tables), self.data)


def _workers(config: Config) -> int:
    """The worker processes on this machine's shared memory that a run may use; 0 where there is none.

    `auto` stays there where nothing is gained: on a GPU, with one job at a time or one core to use, and in a process
    that was itself started beside others, as those of `compare --jobs` are.
    """
    how = config.executor
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = how.workers or max(1, cores // how.threads)
    if how.name == "processes":
        return workers
    alone = config.experiment.device != "cpu" or config.server.concurrency == 1
    if (
        how.name in ("inline", "ray", "vectorized")
        or alone
        or workers == 1
        or multiprocessing.parent_process() is not None
    ):
        return 0
    return workers


def _executor(config: Config, learner: Learner, server: Server, shared: Memory | None) -> Executor:
    how, limit = config.executor, config.experiment.updates

    def wanted() -> float:
        return math.inf if limit is None else limit - server.ledger.updates

    if how.name == "ray":
        gpu, kit = config.experiment.device != "cpu", _Kit(config.to_dict(), _training_part(learner))
        return Ray(kit, how.workers, wanted, how.address, how.threads, gpu)
    gpu = torch.device(config.experiment.device).type == "cuda"
    if how.name == "vectorized" or (how.name == "auto" and gpu):
        why_not = learner.why_not_together
        if why_not is None:
            return Vectorized(learner, how.batch, wanted)
        if how.name == "vectorized":
            raise ConfigError(
                f"executor.name is 'vectorized', and model.name {config.model.name!r} {why_not}: change the model, or "
                "take another executor"
            )
    if shared is None:
        return Inline(learner)
    make = _Workshop(config.to_dict(), shared)

    def workers() -> Executor:
        return Processes(make, _workers(config), wanted)

    return workers() if config.executor.name == "processes" else Auto(learner, workers)


def _check_memory(config: Config, d: int, outputs: tuple[int, int]) -> None:
    """Refuse a rule or a stage whose state cannot fit into the machine's memory."""
    if config.experiment.device != "cpu" or not hasattr(os, "sysconf"):
        return
    clients = config.data.clients
    vectors = config.algorithm.memory(clients)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    needs = {
        f"algorithm.name {config.algorithm.name!r} keeps up to {vectors} vectors of the model's {d:,} weights": (
            vectors * d * 4,
            "take fewer clients, a smaller model, or a rule that keeps less",
        )
    }
    for stage in config.refine if config.records.bank == "memory" else ():
        number, classes = outputs
        about = f"refine.name {stage.name!r} keeps the predictions of every client, {number:,} of {classes:,} classes,"
        remedy = (
            "set refine.max_rows, or take refine.row_dtype = 'float16', refine.top_k where there are many classes, "
            "records.bank = 'mapped', or a smaller data.unlabeled_size"
        )
        needs[about] = (stage.memory_bytes(clients, number, classes), remedy)
    if sum(needed for needed, _ in needs.values()) > there:
        raise ConfigError(
            [
                f"{about} for {clients} clients, {needed / 1e9:.1f} GB; this machine has {there / 1e9:.1f} GB: {remedy}"
                for about, (needed, remedy) in needs.items()
                if needed > there / 10
            ]
        )
