"""The tables of a configuration that belong to no other room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt

from ..core.bounds import AllowInf
from ..core.imports import object_name
from ..server.settings import Stop


@dataclass(frozen=True)
class ExperimentConfig:
    """The `[experiment]` table. The first limit that is reached ends the run; at least one is needed.

    Attributes:
        name: what the run is called.
        seed: every random draw follows from it.
        updates: ≥ 1, accepted updates.
        versions: ≥ 1, model versions.
        virtual_time_s: > 0, seconds of the transport's clock.
        eval_every: ≥ 1, updates between evaluations.
        evaluate: which part judges the model: "test", or "validation" (for tuning).
        device: torch device.
        continuations: of a language model, how many beginnings of test texts it continues at every evaluation, for the
            report; kept in the run folder.
    """

    name: str = "experiment"
    seed: int = 0
    updates: Annotated[int, Ge(1)] | None = None
    versions: Annotated[int, Ge(1)] | None = None
    virtual_time_s: Annotated[float, Gt(0)] | None = None
    eval_every: Annotated[int, Ge(1)] = 50
    evaluate: Literal["test", "validation"] = "test"
    device: str = "cpu"
    continuations: Annotated[int, Ge(0)] = 0

    @property
    def stop(self) -> Stop:
        return Stop(self.updates, self.versions, self.virtual_time_s)


@dataclass(frozen=True)
class ModelConfig:
    """The `[model]` table.

    Attributes:
        name: a name (`fedecho list models`), or anybody's `module:Class`, called with (shape, classes, **options); of
            text also `hf:NAME` or `hf:./folder`, a model of Hugging Face with adapters. In Python also the class
            itself, which is kept as its `module:Class`.
        options: every other key of the table.
        memory_format: how images lie in memory: "auto" is channels_last for convolutions.
    """

    name: str = "mlp"
    options: Mapping[str, Any] = field(default_factory=dict)
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"

    def __post_init__(self) -> None:
        if callable(self.name):
            object.__setattr__(self, "name", object_name(self.name, "model.name"))


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
    workers: Annotated[int, Ge(1)] | None = None
    threads: Annotated[int, Ge(1)] = 1
    address: str | None = None
    batch: Annotated[int, Ge(1)] = 16

    def unused_settings(self) -> dict[str, str]:
        """Settings without effect, each with the reason."""
        unused = {
            "workers": self.name in ("inline", "vectorized"),
            "batch": self.name not in ("vectorized", "auto"),
        }
        return {name: f"executor.name is {self.name!r}" for name, idle in unused.items() if idle}


@dataclass(frozen=True)
class TransportConfig:
    """The `[transport]` table: between the server and its clients.

    Attributes:
        name: "simulated", or "flower" in the record of a run on a live federation, whose clients' delays, data and
            training are their own. `fedecho run` simulates; `fedecho.flower` is what runs on a federation.
        evaluate_every: on a live federation, model versions between evaluations.
    """

    name: Literal["simulated", "flower"] = "simulated"
    evaluate_every: Annotated[int, Ge(1)] = 1


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

    checkpoint_every_s: Annotated[float, Gt(0), AllowInf()] = 30.0
    tensorboard: bool = False
    keep: Literal["checkpoint", "all"] = "checkpoint"
    bank: Literal["memory", "mapped"] = "memory"
