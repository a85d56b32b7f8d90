"""Faults in the values of a configuration."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..data import features
from ..data import tokens as tokenizers
from ..data.natural import schemes as natural_schemes
from ..data.partition import schemes
from ..data.unlabeled import kinds as unlabeled_kinds
from ..executors import EXECUTORS
from ..simulation.settings import PopulationConfig

_AT_LEAST_0 = (lambda x: 0 <= x < math.inf, "at least 0 and finite")


_AT_LEAST_1 = (lambda x: x >= 1, "at least 1")


_ABOVE_0 = (lambda x: 0 < x < math.inf, "above 0 and finite")


_ABOVE_0_OR_INF = (lambda x: x > 0, "above 0")


_SHARE = (lambda x: 0 <= x <= 1, "from 0 to 1")


_BELOW_1 = (lambda x: 0 <= x < 1, "at least 0 and below 1")


_RANGES: dict[tuple[Callable[[float], bool], str], str] = {
    _AT_LEAST_0: "held_out validation min_examples slow_classes weight_decay clip aggregate_s predict_s stage_s final "
    "max_staleness a b mu tau_c over_selection round_deadline_s staleness_power stages.steps prior top_k continuations "
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


def range_faults(path: str, value: Any) -> list[str]:
    """Numbers out of their range in a setting, a dataclass or a list of these."""
    if isinstance(value, list | tuple):
        return [fault for item in value for fault in range_faults(path, item)]
    if dataclasses.is_dataclass(value) and not isinstance(value, PopulationConfig | type):
        return table_faults(path, {f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
    if isinstance(value, int | float) and not isinstance(value, bool):
        fits, wanted = _RANGE_OF.get(path, _RANGE_OF.get(path.rpartition(".")[2], (None, "")))
        if fits is not None and not fits(value):
            return [f"{path} is {value}; it must be {wanted}"]
    return []


def table_faults(path: str, settings: Mapping[str, Any]) -> list[str]:
    faults = [fault for name, value in settings.items() for fault in range_faults(f"{path}.{name}", value)]
    for low, high in _ORDERED:
        if low in settings and high in settings and settings[low] > settings[high]:
            lower, higher = f"{path}.{low} ({settings[low]})", f"{path}.{high} ({settings[high]})"
            faults.append(f"{lower} exceeds {higher}; lower one or raise the other")
    return faults


def cross_faults(parts: Mapping[str, Any]) -> list[str]:
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
    faults += _privacy_faults(algorithm, parts["stages"])
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
    if executor and ":" not in executor.name and executor.name not in EXECUTORS:
        faults.append(f"executor.name is {executor.name!r}; there are {', '.join(EXECUTORS)}, or give `module:Class`")
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
            faults.append(f"stages {stage.name!r} protects changes, and {others} would look at them: leave one out")
        if not algorithm.plain_sum:
            faults.append(
                f"stages {stage.name!r} needs a rule from which changes leave only as their plain sum, and "
                f"{algorithm.name!r} is none as it is set; take fedbuff, fadas, fadas_da, async_sgd or fedasync"
            )
        elif stage.buffer_size != (size := getattr(algorithm, "buffer_size", 1)):
            faults.append(f"stages.buffer_size ({stage.buffer_size}) must be the rule's ({size}); leave it out")
        if not stage.clip:
            faults.append("stages.clip is 0.0; the noise is measured by it: it must be above 0")
    return faults
