"""Configurations: dataclasses to and from TOML.

Reading reports every fault at once, each with its key, what was got and what to do.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from ..algorithms.base import DEFAULT_CONCURRENCY, Algorithm
from ..algorithms.fedbuff import FedBuff
from ..core.errors import ConfigError, UnusedSettingWarning
from ..data.federation import DataConfig
from ..learning.settings import ClientConfig
from ..objectives.base import Objective
from ..server.settings import ServerConfig
from ..simulation.settings import PopulationConfig
from ..stages.base import Stage
from .checks import cross_faults, run_shape, table_faults
from .conversion import build, plain
from .names import RENAMED, suggestion
from .parts import read_algorithm, read_model, read_objective, read_stage, registered_name, with_stages
from .tables import ExecutorConfig, ExperimentConfig, ModelConfig, RecordsConfig, TransportConfig
from .toml import delays_as_name, is_table, read_toml, resolve, shape_faults
from .unused import all_unused


@dataclass(frozen=True)
class Config:
    """A whole experiment. Every part has defaults except the limit in `experiment`."""

    experiment: ExperimentConfig
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: Objective | None = None  # None: the one that fits the data's targets
    client: ClientConfig = field(default_factory=ClientConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    algorithm: Algorithm = field(default_factory=FedBuff)
    stages: tuple[Stage, ...] = ()
    population: PopulationConfig = field(default_factory=PopulationConfig)
    transport: TransportConfig = field(default_factory=TransportConfig)
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    records: RecordsConfig = field(default_factory=RecordsConfig)
    variants: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill in what one table takes from another, and check everything.

        Raises:
            ConfigError: with every fault.

        Warns:
            UnusedSettingWarning: a line for each setting that differs from its default and has no effect.
        """
        faults: list[str] = []
        parts = {name: _sound(name, part, faults) for name, part in vars(self).items()}
        parts = with_run_defaults(with_slots(parts))
        faults += cross_faults(parts)
        if faults:
            raise ConfigError(faults)
        for name in ("server", "algorithm", "stages"):
            object.__setattr__(self, name, parts[name])
        warn_unused(all_unused(parts))

    @property
    def method(self) -> str:
        """The algorithm's name with its stages', e.g. "fedbuff+echo"."""
        return "+".join([self.algorithm.name, *(stage.name for stage in self.stages)])

    def to_dict(self) -> dict[str, Any]:
        """Plain tables, without what is None; `Config.from_dict` reads them back to an equal configuration."""
        tables: dict[str, Any] = {}
        simulated = self.transport.name == "simulated"
        for part in dataclasses.fields(self):
            value = getattr(self, part.name)
            if part.name == "algorithm":
                tables[part.name] = {"name": registered_name(value), **plain(value)}
            elif part.name == "objective":
                tables[part.name] = {} if value is None else {"name": registered_name(value), **plain(value)}
            elif part.name == "stages":
                tables[part.name] = [{"name": registered_name(stage), **plain(stage)} for stage in value]
            elif not simulated and part.name in ("client", "population"):
                continue  # of a live federation, whose clients decide these themselves
            elif not simulated and part.name == "data":
                tables[part.name] = {"dataset": value.dataset, "clients": value.clients}
            elif part.name == "model":
                if not value.name:
                    continue
                own = {"name": value.name, "memory_format": value.memory_format}
                tables[part.name] = {**own, **plain(value.options)}
            else:
                tables[part.name] = plain(value)
        return {name: table for name, table in tables.items() if table}

    def to_toml(self) -> str:
        """The same as the text of a TOML file."""
        return tomli_w.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, tables: Mapping[str, Any]) -> Config:
        """Read plain tables.

        Raises:
            ConfigError: with every fault.

        Warns:
            UnusedSettingWarning: a line for each setting that is written in the tables and has no effect.
        """
        faults = shape_faults(tables)
        tables = {name: table for name, table in tables.items() if is_table(name, table) or name in RENAMED}
        known = [part.name for part in dataclasses.fields(cls)]
        faults += [
            f"[{name}] is not a table of a configuration{suggestion(name, known)}; there are {', '.join(known)}"
            for name in tables
            if name not in known
        ]
        tables = with_stages(delays_as_name(tables), faults)
        stages = tables.get("stages", [])
        tables["stages"] = [stages] if isinstance(stages, Mapping) else stages
        parts: dict[str, Any] = {
            name: build(type_, _table(tables, name, faults), name, faults) for name, type_ in TABLES.items()
        }
        parts["model"] = read_model(tables.get("model", {}), faults)
        parts["objective"] = read_objective(tables.get("objective", {}), faults)
        if _is_live(tables) and parts["model"] is not None and "name" not in tables.get("model", {}):
            parts["model"] = dataclasses.replace(parts["model"], name="")  # the server knows the arrays alone
        parts["algorithm"] = read_algorithm(tables.get("algorithm", {}), faults)
        parts["stages"] = tuple(read_stage(table, faults) for table in tables["stages"])
        parts["variants"] = tables.get("variants", {})
        parts = with_run_defaults(parts)
        faults += cross_faults(parts)
        if faults:
            raise ConfigError(faults)
        config = cls(**parts)
        warn_unused(all_unused(parts, tables), but_not=all_unused(parts))
        return config

    @classmethod
    def load(cls, path: str | Path, method: str | None = None, overrides: Sequence[str] = ()) -> Config:
        """Read a TOML file; see `resolve` for `method` and `overrides` ("key.sub=value")."""
        return cls.from_dict(resolve(read_toml(path), method, overrides))


TABLES = {
    "experiment": ExperimentConfig,
    "data": DataConfig,
    "client": ClientConfig,
    "server": ServerConfig,
    "population": PopulationConfig,
    "transport": TransportConfig,
    "executor": ExecutorConfig,
    "records": RecordsConfig,
}
"""The tables that are read by the fields of one class; the others are found by a name."""


def with_slots(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The parts with no more jobs in flight than there are clients, where `server.concurrency` is the default."""
    server, data, transport = parts["server"], parts["data"], parts["transport"]
    if None in (server, data) or (transport is not None and transport.name != "simulated"):
        return dict(parts)
    if server.concurrency == DEFAULT_CONCURRENCY:
        server = dataclasses.replace(server, concurrency=min(DEFAULT_CONCURRENCY, data.clients))
    return {**parts, "server": server}


def with_run_defaults(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The parts with those settings of the rule filled in that the run decides, and of the stages that the rule does.

    What could not be read is None, and what would look at it stays as it is.
    """
    server, data, algorithm, stages = (parts[name] for name in ("server", "data", "algorithm", "stages"))
    if algorithm is not None and server is not None and data is not None:
        algorithm = algorithm.for_run(run_shape(server, data, parts["transport"]))
    if algorithm is not None:
        stages = tuple(stage if stage is None else stage.for_algorithm(algorithm) for stage in stages)
    return {**parts, "algorithm": algorithm, "stages": stages}


def warn_unused(lines: Sequence[str], but_not: Sequence[str] = ()) -> None:
    """Warn of each line, except those of `but_not`."""
    for line in lines:
        if line not in but_not:
            warnings.warn(line, UnusedSettingWarning, stacklevel=2)


def _sound(name: str, part: Any, faults: list[str]) -> Any:
    """The part, or None where something in it is wrong whatever the others say; of stages, each."""
    if isinstance(part, tuple):
        return tuple(_sound(name, item, faults) for item in part)
    part_faults = table_faults(name, part) if dataclasses.is_dataclass(part) else []
    faults += part_faults
    return None if part_faults else part


def _is_live(tables: Mapping[str, Any]) -> bool:
    return bool(tables.get("transport", {}).get("name", "simulated") != "simulated")


def _table(tables: Mapping[str, Any], name: str, faults: list[str]) -> dict[str, Any]:
    """The table of this name as a dataclass can be built from it."""
    table = dict(tables.get(name, {}))
    clients = tables.get("data", {}).get("clients")
    if name == "server" and type(clients) is int and not _is_live(tables):
        table.setdefault("concurrency", max(1, min(DEFAULT_CONCURRENCY, clients)))
    if name == "population" and "from" in table:
        folder, other = table.pop("from"), table.get("name")
        if isinstance(folder, str):
            faults.append(f"population has `from` ({folder!r}) and `name` ({other!r}); leave one of them out")
        else:
            faults.append(f"population.from is {folder!r}; it must be a string, the folder of a recorded run")
    return table
