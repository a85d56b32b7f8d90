"""From the `[population]` table to a population."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

from ..core.errors import ConfigError
from ..core.imports import import_object
from ..core.keys import Key
from .delay_models import ClientDelays, DelayModel, split_name
from .groups import ranked
from .population import Population
from .settings import PopulationConfig


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
    known = [field.name for field in dataclasses.fields(PopulationConfig)]
    unknown = [name for name in settings if name not in known]
    config = PopulationConfig(**{name: value for name, value in settings.items() if name in known})  # type: ignore[arg-type]
    faults = [_unknown(name, known, "a population") for name in unknown]
    if isinstance(clients, bool) or not isinstance(clients, int) or clients < 1:
        faults.append(f"`clients` must be an integer of at least 1, got {clients!r}: give the number of clients")
        raise ConfigError(faults + config.faults())
    faults += config.faults(clients)
    if faults:
        raise ConfigError(faults)
    key = key.fold("population")
    # Files and classes are looked at here and not with the settings: a record can be read without them.
    delays = delay_model(config).delays(clients, key)
    _check(config.name, delays, clients)
    groups = delays.groups
    if groups is None:
        groups = ranked([job_times.mean_s for job_times in delays.job_times], config.class_counts)
    return Population(key, delays.job_times, groups, config, delays.losses)


def delay_model(config: PopulationConfig) -> DelayModel:
    """The delay model that `config.name` names, with its settings.

    Raises:
        ConfigError: a user's own class that cannot be imported or built.
    """
    model, argument = split_name(config.name)
    if model is None:
        return _own_delay_model(config.name, config.options)
    values: dict[str, Any] = {"path": argument} if model.argument else {}
    for field in dataclasses.fields(model):
        value = getattr(config, field.name, None)
        if value is not None:  # where nothing is set, the model's own default holds
            values[field.name] = value
    return model(**values)


def _own_delay_model(name: str, options: Any) -> DelayModel:
    cls = import_object(name, "population.name")
    if not (isinstance(cls, type) and issubclass(cls, DelayModel) and dataclasses.is_dataclass(cls)):
        raise ConfigError(
            f"population.name {name!r} is not a dataclass derived from fedecho.simulation.delay_models.DelayModel: "
            "derive it, and decorate it with @dataclass(frozen=True)"
        )
    known = [field.name for field in dataclasses.fields(cls) if field.init]
    if unknown := [option for option in options if option not in known]:
        raise ConfigError([_unknown(option, known, name) for option in unknown])
    try:
        model: DelayModel = cls(**options)
    except TypeError as error:  # a field without a default that is not set, or an abstract method
        raise ConfigError(f"[population] {name} cannot be built: {error}; check [population.options]") from error
    return model


def _check(name: str, delays: object, clients: int) -> None:
    """Raise ConfigError for delays, of a user's own model, that are not those of so many clients."""
    if not isinstance(delays, ClientDelays):
        raise ConfigError(
            f"population.name {name!r}: `delays` returned a {type(delays).__name__}; return ClientDelays(job_times)"
        )
    parts: dict[str, Sequence[object] | None] = {
        "job_times": delays.job_times, "groups": delays.groups, "losses": delays.losses or None
    }  # fmt: skip
    for part, values in parts.items():
        if values is not None and len(values) != clients:
            raise ConfigError(
                f"population.name {name!r}: `delays` returned {part} of {len(values)} clients; there are {clients}: "
                "return one for each"
            )


def _unknown(name: str, known: list[str], owner: str) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"`{name}` is no setting of {owner}: " + (
        f"did you mean `{close[0]}`?" if close else f"use one of {', '.join(known)}" if known else "it has none"
    )
