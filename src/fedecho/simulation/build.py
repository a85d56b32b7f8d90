"""From the `[population]` table to a population."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import fields
from statistics import median
from typing import Final

from ..core.errors import ConfigError
from ..core.keys import Key
from .groups import dealt_groups, drawn_groups, ranked
from .job_times import FAST, REGIMES, Exponential, JobTimes, LogNormal, Losses, Uniform, lognormal_factor
from .population import Population
from .recorded import recorded_job_times
from .settings import RUN_PREFIX, TRACE_PREFIX, PopulationConfig, default_counts
from .traces import trace_job_times


def build(clients: int, key: Key, **settings: object) -> Population:
    """The population of a run.

    Args:
        clients: how many clients there are.
        key: the run's; the population's draws are below `key.fold("population")`.
        settings: the fields of `PopulationConfig`.

    Raises:
        ConfigError: with every fault of the settings, and of the trace file or the recorded run, a line each.
        MissingExtra, DataError: the data of "phones" cannot be had.
    """
    known = [field.name for field in fields(PopulationConfig)]
    unknown = [name for name in settings if name not in known]
    config = PopulationConfig(**{name: value for name, value in settings.items() if name in known})  # type: ignore[arg-type]
    found = [_unknown(name, known) for name in unknown]
    if isinstance(clients, bool) or not isinstance(clients, int) or clients < 1:
        found.append(f"`clients` must be an integer of at least 1, got {clients!r}: give the number of clients")
        raise ConfigError(found + config.faults())
    found += config.faults(clients)
    key = key.fold("population")
    laws: Sequence[JobTimes] = ()
    losses: Sequence[Losses | None] = ()
    # Files are looked at here and not with the settings: a record can be read where what it was made from is not.
    kind, _, path = config.name.partition(":") if isinstance(config.name, str) else ("", "", "")
    try:
        if f"{kind}:" == TRACE_PREFIX:
            laws = trace_job_times(clients, key, path)
        elif f"{kind}:" == RUN_PREFIX:
            laws, losses = recorded_job_times(clients, key, path)
    except ConfigError as error:
        found += error.faults
    if found:
        raise ConfigError(found)
    counts = config.class_counts or default_counts(clients)
    if config.name == "none":
        return Population(key, [FAST] * clients, ["fast"] * clients, config)
    if config.name in REGIMES:
        groups = drawn_groups(clients, key) if config.assignment == "dirichlet" else dealt_groups(key, counts)
        laws_of = {**REGIMES[config.name], **({"slow": Uniform(*config.slow_s)} if config.slow_s else {})}
        return Population(key, [laws_of[group] for group in groups], groups, config)
    laws = laws or LAWS[config.name](clients, key, config)
    return Population(key, laws, ranked([law.mean_s for law in laws], counts), config, losses)


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"`{name}` is no setting of a population: " + (
        f"did you mean `{close[0]}`?" if close else f"use one of {', '.join(known)}"
    )


def _exponential_laws(clients: int, key: Key, config: PopulationConfig) -> list[JobTimes]:
    sigma = 0.0 if config.sigma is None else config.sigma
    return [Exponential(config.mean_s * lognormal_factor(key.fold("speed", c), sigma)) for c in range(clients)]


def _lognormal_laws(clients: int, key: Key, config: PopulationConfig) -> list[JobTimes]:
    sigma = 1.0 if config.sigma is None else config.sigma
    means_s = (config.mean_s * lognormal_factor(key.fold("speed", c), sigma) for c in range(clients))
    return [LogNormal(mean_s, config.job_sigma) for mean_s in means_s]


def _phone_laws(clients: int, key: Key, config: PopulationConfig) -> list[JobTimes]:
    # A device of rate 0 is an entry of the list that was never measured.
    relative = [1 / rate for rate in _device_fps() if rate > 0]
    unit_s = config.mean_s / median(relative)
    drawn = (key.fold("device", c).below(len(relative)) for c in range(clients))
    return [LogNormal(unit_s * relative[device], config.job_sigma) for device in drawn]


def _device_fps() -> list[float]:
    # Here and not above: only phones need the data, and whoever asks for no phones should not import the sources.
    from ..data.devices import device_fps

    return [float(rate) for rate in device_fps()]


LAWS: Final[dict[str, Callable[[int, Key, PopulationConfig], list[JobTimes]]]] = {
    "exponential": _exponential_laws,
    "lognormal": _lognormal_laws,
    "phones": _phone_laws,
}
