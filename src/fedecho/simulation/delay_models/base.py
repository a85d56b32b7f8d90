"""What a delay model is."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...core.keys import Key
from ..job_times import JobTimes, Losses


@dataclass(frozen=True)
class ClientDelays:
    """The delays of N clients.

    Attributes:
        job_times: N distributions of the training time of one job.
        groups: the speed group of each client; None ranks the clients by their expected job time, see `groups.ranked`.
        losses: how each client loses jobs besides `population.dropout`, None for one that loses none; empty: nobody.
    """

    job_times: Sequence[JobTimes]
    groups: Sequence[str] | None = None
    losses: Sequence[Losses | None] = ()


@dataclass(frozen=True)
class DelayModel(abc.ABC):
    """How long clients' jobs take. A model is a frozen dataclass derived from this class; its fields are its settings.

    A model that ships takes them from `[population]`, which must have a setting of the same name. A user's own, named
    by `population.name = "module:Class"`, takes them from `[population.options]`:

        @dataclass(frozen=True)
        class OneSlowClient(DelayModel):
            \"""Client 0 takes `factor` times as long as the others, whose jobs take a second on average.\"""

            factor: float = 10.0

            def delays(self, clients: int, key: Key) -> ClientDelays:
                means_s = [self.factor, *[1.0] * (clients - 1)]
                return ClientDelays([Exponential(mean_s) for mean_s in means_s])

    Class attributes:
        name: what `population.name` calls it.
        argument: for a model whose name goes on after a colon: what follows, such as "PATH". It is passed as the field
            `path`.
    """

    name: ClassVar[str]
    argument: ClassVar[str] = ""

    @abc.abstractmethod
    def delays(self, clients: int, key: Key) -> ClientDelays:
        """The delays of clients 0 to `clients` - 1.

        Args:
            clients: N.
            key: every draw is below it; fold a purpose and the client's number in.

        Raises:
            ConfigError: with every fault of a file or a recorded run, one line each.
            DataError, MissingExtra: for data that cannot be had.
        """

    @classmethod
    def settings_used(cls) -> frozenset[str]:
        """The settings of `[population]` that have an effect on it."""
        return frozenset({field.name for field in dataclasses.fields(cls)} - {"path"}) | {"class_counts"}
