"""The settings of the server, and when a run ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from ..algorithms.base import DEFAULT_BUFFER_SIZE, DEFAULT_CONCURRENCY
from ..core.bounds import AllowInf
from ..core.schedules import Schedule


@dataclass(frozen=True)
class Stop:
    """When a run ends: the first limit that is reached. At least one is needed.

    Attributes:
        updates: accepted updates.
        versions: model versions made.
        virtual_time_s: seconds of the transport's clock.
    """

    updates: Annotated[int, Ge(1)] | None = None
    versions: Annotated[int, Ge(1)] | None = None
    virtual_time_s: Annotated[float, Gt(0)] | None = None

    def progress(self, updates: int, versions: int, now_s: float) -> float:
        """The fraction of the run that is done, by the limit that is nearest."""
        share = updates / self.updates if self.updates else 0.0
        if self.versions:
            share = max(share, versions / self.versions)
        if self.virtual_time_s:
            share = max(share, now_s / self.virtual_time_s)
        return share


@dataclass(frozen=True)
class ServerConfig:
    """What is common to all methods of a comparison: how many clients work at once, and what the server does besides.

    Attributes:
        concurrency: M_c ≥ 1, jobs in flight; in a configuration that does not set it, no more than there are clients.
        buffer_size: M ≥ 1, updates per aggregation, of every algorithm that has a buffer and is not given its own.
        refill: "immediate": a freed slot gets new work at once (the M-th arrival's slot gets the new version);
            "batch": slots are refilled M at a time after an aggregation, as in the FADAS authors' code.
        schedule: factor on the server step size over the run.
        client_schedule: factor on the clients' step size over the run.
        ema: γ in [0, 1) of an exponential average of the server's weights, x̃ ← γ·x̃ + (1−γ)·x_t after each aggregation;
            x̃ is then evaluated and exported, and clients still get x_t. 0 is off.
        max_change_norm: > 0 or inf; an update whose change has a larger L2 norm is refused as absurd.
        max_change_ratio: > 0 or inf; likewise an update whose change is this many times longer than what is usual: a
            client whose local training blew up, or a hostile one. Usual is the highest median so far of the clients'
            latest norms, each client counting once (see `fedecho.server.norms`); it is known from ten changes on, of as
            many clients or of more than half of them. Where most clients' changes become longer, they are accepted
            again. Neither limit applies with a stage that bounds each change itself (`central_dp`): such a stage clips
            what is too long, and a refusal would depend on norms that its ε does not cover.
        aggregate_s: ≥ 0, seconds of the clock charged for an aggregation.
        predict_s: ≥ 0, seconds charged for one inference pass over U where the server makes it.
        stage_s: ≥ 0, seconds charged for one run of a stage: after an aggregation, or where it revises a change.
    """

    concurrency: Annotated[int, Ge(1)] = DEFAULT_CONCURRENCY
    buffer_size: Annotated[int, Ge(1)] = DEFAULT_BUFFER_SIZE
    refill: Literal["immediate", "batch"] = "immediate"
    schedule: Schedule = field(default_factory=Schedule)
    client_schedule: Schedule = field(default_factory=Schedule)
    ema: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    max_change_norm: Annotated[float, Gt(0), AllowInf()] = 1e4
    max_change_ratio: Annotated[float, Gt(0), AllowInf()] = 20.0
    aggregate_s: Annotated[float, Ge(0)] = 0.0
    predict_s: Annotated[float, Ge(0)] = 0.0
    stage_s: Annotated[float, Ge(0)] = 0.0
