"""Configurations: dataclasses to and from TOML.

Reading reports every fault at once, each with its key, what was got and what to do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from ..algorithms.base import Algorithm
from ..algorithms.fedbuff import FedBuff
from ..core.errors import ConfigError
from ..data.federation import DataConfig
from ..learning.settings import ClientConfig
from ..objectives.base import Objective
from ..server.settings import ServerConfig
from ..simulation.settings import PopulationConfig
from ..stages.base import Stage
from .checks import cross_faults, range_faults
from .conversion import (
    build,
    plain,
    read_algorithm,
    read_model,
    read_objective,
    read_stage,
    registered_name,
    suggestion,
)
from .tables import ExecutorConfig, ExperimentConfig, ModelConfig, RecordsConfig, TransportConfig
from .toml import delays_as_name, is_table, read_toml, resolve, shape_faults


@dataclass(frozen=True)
class Config:
    """A whole experiment. Every part has defaults except the limit in `experiment`."""

    experiment: ExperimentConfig
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: Objective | None = None  # None: the one that fits the data's targets
    client: ClientConfig = field(default_factory=ClientConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    algorithm: Algorithm = field(default_factory=lambda: FedBuff(buffer_size=5))
    stages: tuple[Stage, ...] = ()
    population: PopulationConfig = field(default_factory=PopulationConfig)
    transport: TransportConfig = field(default_factory=TransportConfig)
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    records: RecordsConfig = field(default_factory=RecordsConfig)
    variants: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = vars(self)
        faults = [fault for name, part in parts.items() for fault in range_faults(name, part)]
        faults += cross_faults(parts)
        if faults:
            raise ConfigError(faults)

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
                continue  # the clients' own affair
            elif not simulated and part.name == "data":
                tables[part.name] = {"dataset": value.dataset, "clients": value.clients}
            elif part.name == "model":
                if not value.name:
                    continue
                kept = {"name": value.name, "memory_format": value.memory_format}
                tables[part.name] = {**kept, **plain(value.options)}
            else:
                tables[part.name] = plain(value)
        return {name: table for name, table in tables.items() if table}

    def to_toml(self) -> str:
        return tomli_w.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, tables: Mapping[str, Any]) -> Config:
        """Read plain tables.

        Raises:
            ConfigError: with every fault.
        """
        faults = shape_faults(tables)
        tables = {name: table for name, table in tables.items() if is_table(name, table)}
        known = [part.name for part in dataclasses.fields(cls)]
        faults += [
            f"[{name}] is not a table of a configuration{suggestion(name, known)}; there are {', '.join(known)}"
            for name in tables
            if name not in known
        ]
        types_ = {
            "experiment": ExperimentConfig,
            "data": DataConfig,
            "client": ClientConfig,
            "server": ServerConfig,
            "population": PopulationConfig,
            "transport": TransportConfig,
            "executor": ExecutorConfig,
            "records": RecordsConfig,
        }
        tables = delays_as_name(tables)
        people = dict(tables.get("population", {}))
        folder, name = people.pop("from", None), people.get("name")
        if isinstance(folder, str):
            faults.append(f"population has `from` ({folder!r}) and `name` ({name!r}); leave one of them out")
        elif folder is not None:
            faults.append(f"population.from is {folder!r}; it must be a string, the folder of a recorded run")
        tables["population"] = people
        parts: dict[str, Any] = {
            name: build(type_, tables.get(name, {}), name, faults) for name, type_ in types_.items()
        }
        parts["model"] = read_model(tables.get("model", {}), faults)
        parts["objective"] = read_objective(tables.get("objective", {}), faults)
        live = parts["transport"] is not None and parts["transport"].name != "simulated"
        if live and parts["model"] is not None and "name" not in tables.get("model", {}):
            parts["model"] = dataclasses.replace(parts["model"], name="")  # the server knows the arrays alone
        parts["algorithm"] = read_algorithm(tables.get("algorithm", {}), parts["server"] or ServerConfig(), faults)
        stages = tables.get("stages", [])
        stages = [stages] if isinstance(stages, Mapping) else stages
        parts["stages"] = tuple(read_stage(table, parts["algorithm"], faults) for table in stages)
        parts["variants"] = tables.get("variants", {})
        if faults:
            raise ConfigError(faults + cross_faults(parts))
        return cls(**parts)

    @classmethod
    def load(cls, path: str | Path, method: str | None = None, overrides: Sequence[str] = ()) -> Config:
        """Read a TOML file; see `resolve` for `method` and `overrides` ("key.sub=value")."""
        return cls.from_dict(resolve(read_toml(path), method, overrides))
