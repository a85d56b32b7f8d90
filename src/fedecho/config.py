"""Configurations: dataclasses to and from TOML.

Reading reports every fault at once, each with its key, what was got and what to do.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tomli_w

from . import registry
from .algorithms.base import Algorithm
from .algorithms.fedbuff import FedBuff
from .data import features
from .data import tokens as tokenizers
from .data.federation import DataConfig
from .data.natural import schemes as natural_schemes
from .data.partition import schemes
from .data.unlabeled import kinds as unlabeled_kinds
from .errors import ConfigError
from .learning.learner import ClientConfig
from .learning.models import MODELS
from .population import PopulationConfig
from .refine.base import Stage
from .refine.central_dp import CentralDP
from .server import ServerConfig, Stop
from .transports.executors import EXECUTORS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")


@dataclass(frozen=True)
class ExperimentConfig:
    """The `[experiment]` table. The first limit that is reached ends the run; at least one is needed.

    Attributes:
        name: what the run is called.
        seed: every random draw follows from it.
        updates: accepted updates.
        versions: model versions.
        virtual_time_s: seconds of the transport's clock.
        eval_every: updates between evaluations.
        evaluate: which part judges the model: "test", or "validation" (for tuning).
        device: torch device.
        continuations: of a language model, how many beginnings of test texts it continues at every evaluation, for the
            report; kept in the run folder.
    """

    name: str = "experiment"
    seed: int = 0
    updates: int | None = None
    versions: int | None = None
    virtual_time_s: float | None = None
    eval_every: int = 50
    evaluate: Literal["test", "validation"] = "test"
    device: str = "cpu"
    continuations: int = 0

    @property
    def stop(self) -> Stop:
        return Stop(self.updates, self.versions, self.virtual_time_s)


@dataclass(frozen=True)
class ModelConfig:
    """The `[model]` table.

    Attributes:
        name: a name (`fedecho list models`), or anybody's `module:Class`, called with (shape, classes, **options); of
            text also `hf:NAME` or `hf:./folder`, a model of Hugging Face with adapters.
        options: every other key of the table.
        memory_format: how images lie in memory: "auto" is channels_last for convolutions.
    """

    name: str = "mlp"
    options: Mapping[str, Any] = field(default_factory=dict)
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"


@dataclass(frozen=True)
class ExecutorConfig:
    """The `[executor]` table.

    Attributes:
        name: who computes the clients' work (`fedecho list executors`): "inline", this process, a job at a time;
            "processes", workers, ahead of need; "auto", the first until the second pays. The bits are the same.
            "ray": workers on several machines or GPUs. "vectorized": this process, many clients at once as one batched
            program, to other rounding errors; on a GPU, "auto" is that.
        workers: processes that compute; None is one for every `threads` cores that this process may use (or the Ray
            cluster has; on GPUs, one for each).
        threads: torch threads of each process; 1 is what makes runs equal to the bit on one machine.
        address: of the Ray cluster to join, "HOST:PORT" or "auto"; None starts one on this machine.
        batch: of "vectorized": jobs in one program, at most; it costs three or four times the model for each, and their
            activations.
    """

    name: str = "inline"
    workers: int | None = None
    threads: int = 1
    address: str | None = None
    batch: int = 16


@dataclass(frozen=True)
class TransportConfig:
    """The `[transport]` table: between the server and its clients.

    Attributes:
        name: "simulated", or "flower" in the record of a run on a live federation, whose clients' delays, data and
            training are their own. `fedecho run` simulates; `fedecho.flower` is what runs on a federation.
        evaluate_every: on a live federation, model versions between evaluations.
    """

    name: Literal["simulated", "flower"] = "simulated"
    evaluate_every: int = 1


@dataclass(frozen=True)
class RecordsConfig:
    """The `[records]` table.

    Attributes:
        checkpoint_every_s: real seconds between checkpoints; they never change the result.
        tensorboard: write the metrics and what the stages record into the run folder's `tensorboard` too, for
            TensorBoard (extra `tensorboard`); without a run folder nothing is written.
        keep: what clients of a live federation sent: "checkpoint" keeps it until a checkpoint holds what came of it,
            which is what recovery needs; "all" keeps everything, so that the whole run can be replayed.
        bank: where clients' predictions are kept: in "memory", or "mapped" from files in the temporary folder
            (`$TMPDIR`), which the system may push out of memory. Checkpoints hold them either way.
    """

    checkpoint_every_s: float = 30.0
    tensorboard: bool = False
    keep: Literal["checkpoint", "all"] = "checkpoint"
    bank: Literal["memory", "mapped"] = "memory"


@dataclass(frozen=True)
class Config:
    """A whole experiment. Every part has defaults except the limit in `experiment`."""

    experiment: ExperimentConfig
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    client: ClientConfig = field(default_factory=ClientConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    algorithm: Algorithm = field(default_factory=lambda: FedBuff(buffer_size=5))
    refine: tuple[Stage, ...] = ()
    population: PopulationConfig = field(default_factory=PopulationConfig)
    transport: TransportConfig = field(default_factory=TransportConfig)
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    records: RecordsConfig = field(default_factory=RecordsConfig)
    variants: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = vars(self)
        faults = [fault for name, part in parts.items() for fault in _range_faults(name, part)]
        faults += _cross_faults(parts)
        if faults:
            raise ConfigError(faults)

    @property
    def method(self) -> str:
        """The algorithm's name with its stages', e.g. "fedbuff+echo"."""
        return "+".join([self.algorithm.name, *(stage.name for stage in self.refine)])

    def to_dict(self) -> dict[str, Any]:
        """Plain tables, without what is None; `Config.from_dict` reads them back to an equal configuration."""
        tables: dict[str, Any] = {}
        simulated = self.transport.name == "simulated"
        for part in dataclasses.fields(self):
            value = getattr(self, part.name)
            if part.name == "algorithm":
                tables[part.name] = {"name": _spelled(value), **_plain(value)}
            elif part.name == "refine":
                tables[part.name] = [{"name": _spelled(stage), **_plain(stage)} for stage in value]
            elif not simulated and part.name in ("client", "population"):
                continue  # the clients' own affair
            elif not simulated and part.name == "data":
                tables[part.name] = {"dataset": value.dataset, "clients": value.clients}
            elif part.name == "model":
                if not value.name:
                    continue
                kept = {"name": value.name, "memory_format": value.memory_format}
                tables[part.name] = {**kept, **_plain(value.options)}
            else:
                tables[part.name] = _plain(value)
        return {name: table for name, table in tables.items() if table}

    def to_toml(self) -> str:
        return tomli_w.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, tables: Mapping[str, Any]) -> Config:
        """Read plain tables.

        Raises:
            ConfigError: with every fault.
        """
        faults = _shape_faults(tables)
        tables = {name: table for name, table in tables.items() if _is_shaped(name, table)}
        known = [part.name for part in dataclasses.fields(cls)]
        faults += [
            f"[{name}] is not a table of a configuration{_meant(name, known)}; there are {', '.join(known)}"
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
        tables = _whose_delays(tables)
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
        parts["model"] = _model(tables.get("model", {}), faults)
        live = parts["transport"] is not None and parts["transport"].name != "simulated"
        if live and parts["model"] is not None and "name" not in tables.get("model", {}):
            parts["model"] = dataclasses.replace(parts["model"], name="")  # the server knows the arrays alone
        parts["algorithm"] = _algorithm(tables.get("algorithm", {}), parts["server"] or ServerConfig(), faults)
        stages = tables.get("refine", [])
        stages = [stages] if isinstance(stages, Mapping) else stages
        parts["refine"] = tuple(_stage(table, parts["algorithm"], faults) for table in stages)
        parts["variants"] = tables.get("variants", {})
        if faults:
            raise ConfigError(faults + _cross_faults(parts))
        return cls(**parts)

    @classmethod
    def load(cls, path: str | Path, method: str | None = None, overrides: Sequence[str] = ()) -> Config:
        """Read a TOML file; see `resolve` for `method` and `overrides` ("key.sub=value")."""
        return cls.from_dict(resolve(read_toml(path), method, overrides))


# -- TOML in -----------------------------------------------------------------------------------------------------------


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a file.

    Raises:
        ConfigError: when it cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as fault:
        raise ConfigError(f"{path} cannot be read ({fault.strerror}); give the path of a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise ConfigError(f"{path} is not TOML: {fault}") from None


def resolve(tables: Mapping[str, Any], method: str | None = None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The tables of one run: `overrides` of [variants] put in, `method` chosen, the others put on top.

    A method is an algorithm's name, `base+stage`, an alias ("fedecho" is fedbuff+echo), or a name in [variants]. A
    variant has `method` (by default its own name) and tables that are laid over the configuration's. The
    configuration's own [algorithm] and [refine] count only for the rule and stage they name: a step size tuned for one
    rule is never handed to another.
    """
    result: dict[str, Any] = _whose_delays({name: _copy(table) for name, table in tables.items()})
    faults: list[str] = []
    of_variants = [override for override in overrides if override.lstrip().startswith("variants.")]
    _override(result, of_variants, faults)
    if method is not None:
        if shapeless := faults + _shape_faults(result):
            raise ConfigError(shapeless)
        variants = result.get("variants", {})
        variant = dict(variants.get(method, {}))
        base = str(variant.pop("method", method))
        rule, *stages = registry.ALIASES.get(base, base).split("+")
        if ":" not in rule and rule not in registry.algorithm_classes():
            there = [*registry.algorithm_classes(), *registry.ALIASES, *variants]
            meant = _meant(rule, there)
            raise ConfigError(f"method {method!r} is unknown{meant}; there are {', '.join(there)}, and base+stage")
        own = result.get("algorithm", {})
        result["algorithm"] = dict(own) if own.get("name", "fedbuff") == rule else {}
        result["algorithm"]["name"] = rule
        given = result.get("refine", [])
        by_name = {table.get("name"): table for table in ([given] if isinstance(given, Mapping) else given)}
        result["refine"] = [{**by_name.get(stage, {}), "name": stage} for stage in stages]
        for name, table in _whose_delays(variant).items():
            if name == "refine" and isinstance(table, Mapping):
                if len(stages) != 1:
                    raise ConfigError(f"[variants.{method}.refine] needs a method with one stage, got {base!r}")
                result["refine"] = [{**result["refine"][0], **table}]
            elif isinstance(table, Mapping):
                result[name] = _merge(result.get(name, {}), table)
            else:
                raise ConfigError(f"variants.{method}.{name} is {table!r}; a variant holds `method` and tables")
    _override(result, [override for override in overrides if override not in of_variants], faults)
    if faults:
        raise ConfigError(faults)
    return result


def _override(tables: dict[str, Any], overrides: Sequence[str], faults: list[str]) -> None:
    """Put each `table.key=value` into the tables, and what is wrong with it into the faults."""
    for override in overrides:
        key, equals, text = override.partition("=")
        path = key.strip().split(".")
        if path == ["algorithm", "name"] and tables.get("algorithm", {}).get("name", "fedbuff") != value_of(
            text.strip()
        ):
            tables["algorithm"] = {}  # another rule does not inherit this one's settings
        if not equals or len(path) < 2:
            faults.append(f"--set {override!r} is not `table.key=value`, for example client.lr=0.05")
            continue
        value = value_of(text.strip())
        if path == ["population", "from"]:
            path, value = ["population", "name"], f"run:{value if isinstance(value, str) else text.strip()}"
        _put(tables, path, value, override, faults)


def _whose_delays(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The tables with `from = "DIR"` in [population] as the name that it stands for, unless there is another."""
    people = tables.get("population")
    if isinstance(people, Mapping) and isinstance(people.get("from"), str):
        name = f"run:{people['from']}"
        if people.get("name", name) == name:
            others = {key: value for key, value in people.items() if key != "from"}
            return {**tables, "population": {**others, "name": name}}
    return dict(tables)


def _is_shaped(name: str, table: Any) -> bool:
    if name == "refine" and isinstance(table, list):
        return all(isinstance(stage, Mapping) for stage in table)
    if name == "variants" and isinstance(table, Mapping):
        return all(isinstance(variant, Mapping) for variant in table.values())
    return isinstance(table, Mapping)


def _shape_faults(tables: Mapping[str, Any]) -> list[str]:
    """What is no table at the top of a file, where only tables can be."""
    wanted = {"refine": "a table, or a list of tables", "variants": "a table of tables"}
    return [
        f"{name} is {table!r}; it must be {wanted.get(name, 'a table')}"
        for name, table in tables.items()
        if not _is_shaped(name, table)
    ]


def _put(tables: dict[str, Any], path: list[str], value: Any, override: str, faults: list[str]) -> None:
    node: Any = tables
    for name in path[:-1]:
        node = node.setdefault(name, {})
        if isinstance(node, list) and len(node) == 1:  # [[refine]] with one stage reads like [refine]
            node = node[0]
        if not isinstance(node, dict):
            faults.append(f"--set {override!r}: {name} is not one table")
            return
    node[path[-1]] = value


def value_of(text: str) -> Any:
    """A TOML value, or the text itself where it is none (so that strings need no quotes)."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if nested else value
    return merged


# -- tables to dataclasses ---------------------------------------------------------------------------------------------


def build(cls: type[T], table: Any, path: str, faults: list[str]) -> T | None:
    """An instance of the dataclass from a table; what is wrong is added to `faults`, and then the answer is None."""
    if not isinstance(table, Mapping):
        faults.append(f"{path} is {table!r}; it must be a table")
        return None
    hints = get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    before = len(faults)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in fields:
            faults.append(f"{path}.{key} is not a setting{_meant(key, fields)}; there are {', '.join(fields)}")
            continue
        ok, read = _read(hints[key], value, f"{path}.{key}", faults)
        if ok:
            values[key] = read
    if cls is not PopulationConfig:  # which knows its ranges itself
        faults += _table_faults(path, {name: values.get(name, f.default) for name, f in fields.items()})
    if len(faults) > before:
        return None
    try:
        return cls(**values)
    except ConfigError as fault:  # settings that do not go together
        faults += fault.faults
        return None


def _read(hint: Any, value: Any, path: str, faults: list[str]) -> tuple[bool, Any]:
    """`value` as the type `hint`, if it can be."""
    before = len(faults)
    if dataclasses.is_dataclass(hint):
        return True, build(hint, value, path, faults)  # type: ignore[arg-type]
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for option in options:
        if option is type(None):
            continue
        if get_origin(option) is Literal:
            if value in get_args(option) and isinstance(value, str):
                return True, value
        elif get_origin(option) is tuple and isinstance(value, list | tuple):
            inner, *rest = get_args(option)
            if rest == [Ellipsis]:
                read = [_read(inner, item, f"{path}[{i}]", faults) for i, item in enumerate(value)]
                return len(faults) == before, tuple(item for _, item in read)
            if len(value) == 1 + len(rest):
                pairs = zip(get_args(option), value, strict=True)
                read = [_read(kind, item, f"{path}[{i}]", faults) for i, (kind, item) in enumerate(pairs)]
                return len(faults) == before, tuple(item for _, item in read)
        elif option is float and isinstance(value, int | float) and not isinstance(value, bool):
            if math.isnan(value):
                break
            return True, float(value)
        elif isinstance(option, type) and type(value) is option:
            return True, value
    faults.append(f"{path} is {value!r}; it must be {_wanted(hint)}")
    return False, None


def _wanted(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_wanted(option) for option in get_args(hint) if option is not type(None))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(option) for option in get_args(hint))
    if get_origin(hint) is tuple:
        inner = [option for option in get_args(hint) if option is not Ellipsis]
        return (
            f"a list of {_wanted(inner[0])}" if len(inner) != len(get_args(hint)) else f"a list of {len(inner)} numbers"
        )
    names = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def _meant(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _model(table: Any, faults: list[str]) -> ModelConfig | None:
    if not isinstance(table, Mapping):
        faults.append(f"model is {table!r}; it must be a table")
        return None
    own = {key: value for key, value in table.items() if key in ("name", "memory_format")}
    options = {key: value for key, value in table.items() if key not in own}
    config = build(ModelConfig, own, "model", faults)
    if config is not None and ":" not in config.name and config.name not in MODELS:
        faults.append(
            f"model.name is {config.name!r}; there are {', '.join(MODELS)}, or give `module:Class` or `hf:NAME`"
        )
    return dataclasses.replace(config, options=options) if config is not None else None


def _algorithm(table: Any, server: ServerConfig, faults: list[str]) -> Any:
    made = _named(table, "algorithm", "fedbuff", registry.algorithm_classes(), Algorithm, faults, server)
    return made


def _stage(table: Any, algorithm: Any, faults: list[str]) -> Any:
    if isinstance(table, Mapping) and table.get("name") == CentralDP.name:
        table = {"buffer_size": getattr(algorithm, "buffer_size", 1), **table}
    return _named(table, "refine", None, registry.stage_classes(), Stage, faults, None)


def _named(
    table: Any,
    path: str,
    default: str | None,
    known: Mapping[str, Any],
    base: type,
    faults: list[str],
    server: ServerConfig | None,
) -> Any:
    if not isinstance(table, Mapping) or not isinstance(table.get("name", default), str):
        faults.append(f"{path}.name is missing or not a string; there are {', '.join(known)}")
        return None
    settings = dict(table)
    try:
        cls = registry.find_class(settings.pop("name", default), dict(known), path)
    except ConfigError as fault:
        faults.extend(fault.faults)
        return None
    if not (isinstance(cls, type) and issubclass(cls, base) and dataclasses.is_dataclass(cls)):
        faults.append(f"{path}.name {table['name']!r} is not a dataclass derived from {base.__name__}")
        return None
    if server is not None:
        given = {"buffer_size": server.buffer_size, "cohort": server.concurrency, "concurrency": server.concurrency}
        own = {f.name for f in dataclasses.fields(cls)}
        settings = {name: value for name, value in given.items() if name in own} | settings
    return build(cls, settings, path, faults)


# -- dataclasses to tables ---------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value) if f.init)
        return {name: _plain(item) for name, item in pairs if item is not None}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _spelled(thing: Algorithm | Stage) -> str:
    """The name a rule or stage is found by again."""
    known: dict[str, Any] = {**registry.algorithm_classes(), **registry.stage_classes()}
    cls = type(thing)
    return thing.name if known.get(thing.name) is cls else f"{cls.__module__}:{cls.__qualname__}"


# -- faults ------------------------------------------------------------------------------------------------------------

_AT_LEAST_0 = (lambda x: 0 <= x < math.inf, "at least 0 and finite")
_AT_LEAST_1 = (lambda x: x >= 1, "at least 1")
_ABOVE_0 = (lambda x: 0 < x < math.inf, "above 0 and finite")
_ABOVE_0_OR_INF = (lambda x: x > 0, "above 0")
_SHARE = (lambda x: 0 <= x <= 1, "from 0 to 1")
_BELOW_1 = (lambda x: 0 <= x < 1, "at least 0 and below 1")

_RANGES: dict[tuple[Callable[[float], bool], str], str] = {
    _AT_LEAST_0: "held_out validation min_examples slow_classes weight_decay clip aggregate_s predict_s refine_s final "
    "max_staleness a b mu tau_c over_selection round_deadline_s staleness_power refine.steps prior top_k continuations "
    "lam sigma iota similarity_weight tau_algo distill_after generate_after adversarial passes",
    _AT_LEAST_1: "updates versions eval_every clients classes_per_client max_examples unlabeled_size epochs steps "
    "batch batch_size concurrency workers buffer_size cohort threads every evaluate_every max_rows staleness_bound "
    "warm_up length test_size teachers generate_every pool_size synthesis_batch synthesis_steps latent_size width "
    "probes",
    _ABOVE_0: "virtual_time_s lr alpha noise_multiplier gamma eps temperature prior_floor mu_alpha staleness_weight "
    "s_max generator_lr latent_lr probe_temperature",
    _ABOVE_0_OR_INF: "max_change_norm max_change_ratio checkpoint_every_s",
    _SHARE: "coupling warmup milestones alpha_min alpha_max own",
    _BELOW_1: "momentum ema beta1 beta2",
    (lambda x: 0 < x < 1, "above 0 and below 1"): "delta",
    (lambda x: 0 < x <= 1, "above 0 and at most 1"): "mixing",
}
_RANGE_OF = {name: bound for bound, names in _RANGES.items() for name in names.split()}
"""The numbers that a setting of this name may take, in whatever table; `table.name` comes before `name`."""

_ORDERED = (("alpha_min", "alpha_max"),)
"""Pairs of settings of one table of which the first may not exceed the second."""


def _range_faults(path: str, value: Any) -> list[str]:
    """Numbers out of their range in a setting, a dataclass or a list of these."""
    if isinstance(value, list | tuple):
        return [fault for item in value for fault in _range_faults(path, item)]
    if dataclasses.is_dataclass(value) and not isinstance(value, PopulationConfig | type):
        return _table_faults(path, {f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
    if isinstance(value, int | float) and not isinstance(value, bool):
        fits, wanted = _RANGE_OF.get(path, _RANGE_OF.get(path.rpartition(".")[2], (None, "")))
        if fits is not None and not fits(value):
            return [f"{path} is {value}; it must be {wanted}"]
    return []


def _table_faults(path: str, settings: Mapping[str, Any]) -> list[str]:
    faults = [fault for name, value in settings.items() for fault in _range_faults(f"{path}.{name}", value)]
    for low, high in _ORDERED:
        if low in settings and high in settings and settings[low] > settings[high]:
            lower, higher = f"{path}.{low} ({settings[low]})", f"{path}.{high} ({settings[high]})"
            faults.append(f"{lower} exceeds {higher}; lower one or raise the other")
    return faults


def _cross_faults(parts: Mapping[str, Any]) -> list[str]:
    """What no table can see alone. A part that could not be read is None: whatever looks at it is left for later."""
    faults: list[str] = []
    experiment, data, server, algorithm = (parts[name] for name in ("experiment", "data", "server", "algorithm"))
    executor, people = parts["executor"], parts["population"]
    if experiment and all(limit is None for limit in dataclasses.astuple(experiment.stop)):
        faults.append("[experiment] has no limit; set updates, versions or virtual_time_s")
    if experiment and data and experiment.evaluate == "validation" and data.validation == 0:
        faults.append("experiment.evaluate is 'validation' but data.validation is 0; keep some examples for it")
    live = parts["transport"] and parts["transport"].name != "simulated"  # where clients come and go as they like
    if server and data and not live and server.concurrency > data.clients:
        faults.append(
            f"server.concurrency ({server.concurrency}) exceeds data.clients ({data.clients}): more jobs than workers; "
            "lower one or raise the other"
        )
    size, cohort = getattr(algorithm, "buffer_size", 1), getattr(algorithm, "cohort", 1)
    if server and server.refill == "batch" and size > server.concurrency:
        faults.append(
            f"algorithm.buffer_size ({size}) exceeds server.concurrency ({server.concurrency}) with batch refill: no "
            "aggregation could ever happen; lower one or raise the other"
        )
    warm_up = getattr(algorithm, "warm_up", 1)
    room = min(
        data.clients if data else math.inf, server.concurrency if server and server.refill == "batch" else math.inf
    )
    if warm_up > room and not live:
        faults.append(
            f"algorithm.warm_up ({warm_up}) exceeds the {room} clients that can be heard before the first step: no "
            "aggregation could ever happen; lower it"
        )
    asked = math.ceil(cohort * (1.0 + getattr(algorithm, "over_selection", 0.0)))
    if server and hasattr(algorithm, "cohort") and asked > server.concurrency:
        faults.append(
            f"algorithm.cohort ({cohort}) with over-selection asks {asked} clients, more than server.concurrency "
            f"({server.concurrency}); lower one or raise the other"
        )
    faults += _privacy_faults(algorithm, parts["refine"])
    splits = (*schemes(), *natural_schemes())
    if data and data.partition not in splits:
        faults.append(f"data.partition is {data.partition!r}; there are {', '.join(splits)}")
    if data and data.tokenizer is not None and (fault := tokenizers.check(data.tokenizer)):
        faults.append(f"data.tokenizer {fault}")
    if data and data.features not in (None, *features.NAMES):
        faults.append(f"data.features is {data.features!r}; there are {', '.join(features.NAMES)}")
    kinds = {kind.partition(":")[0] for kind in unlabeled_kinds()}
    if data and data.unlabeled.partition(":")[0] not in kinds:
        faults.append(f"data.unlabeled is {data.unlabeled!r}; there are {', '.join(unlabeled_kinds())}")
    if executor and executor.name not in EXECUTORS:
        faults.append(f"executor.name is {executor.name!r}; there are {', '.join(EXECUTORS)}")
    if executor and executor.address is not None and executor.name != "ray":
        faults.append(f"executor.address is for executor.name 'ray', not {executor.name!r}; leave it out")
    if people:
        faults += [f"[population] {fault}" for fault in people.faults(data.clients if data else None)]
    return faults


def _privacy_faults(algorithm: Any, stages: Sequence[Any]) -> list[str]:
    """A stage that protects changes cannot do so beside everything."""
    faults = []
    for stage in stages:
        if not getattr(stage, "alone", False) or algorithm is None:
            continue
        if len(stages) > 1:
            others = ", ".join(other.name for other in stages if other is not stage and other is not None)
            faults.append(f"refine {stage.name!r} protects changes, and {others} would look at them: leave one out")
        if not algorithm.plain_sum:
            faults.append(
                f"refine {stage.name!r} needs a rule from which changes leave only as their plain sum, and "
                f"{algorithm.name!r} is none as it is set; take fedbuff, fadas, fadas_da, async_sgd or fedasync"
            )
        elif stage.buffer_size != (size := getattr(algorithm, "buffer_size", 1)):
            faults.append(f"refine.buffer_size ({stage.buffer_size}) must be the rule's ({size}); leave it out")
        if not stage.clip:
            faults.append("refine.clip is 0.0; the noise is measured by it: it must be above 0")
    return faults
