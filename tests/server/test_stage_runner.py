"""Where stages draw from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from fedecho.algorithms.base import ClientUpdate
from fedecho.algorithms.fedbuff import FedBuff
from fedecho.core.keys import Key
from fedecho.core.messages import Model
from fedecho.stages.base import Stage
from helpers import Hand


@dataclass(frozen=True)
class Drawing(Stage):
    """Notes what it draws."""

    name = "drawing"
    needs_predictions = False
    needs_compute = False
    place: int = 0
    draws: ClassVar[dict[tuple[str, int], list[int]]] = {}

    def init(self, clients: int, *rest: Any) -> None:
        return None

    def revise(
        self, state: Any, update: ClientUpdate, model: Model, compute: Any, key: Key
    ) -> tuple[torch.Tensor, Any, Mapping[str, float]]:
        self.draws.setdefault(("revise", self.place), []).append(key.bits())
        return update.delta, state, {}

    def after_aggregate(
        self, state: Any, model: Model, compute: Any, key: Key
    ) -> tuple[torch.Tensor, Any, Mapping[str, float]]:
        self.draws.setdefault(("refine", self.place), []).append(key.bits())
        return model.weights, state, {}


def test_two_stages_of_one_name_draw_differently_and_the_first_as_if_alone() -> None:
    Drawing.draws.clear()
    hand = Hand(FedBuff(1), stages=[Drawing(place=0), Drawing(place=1), Drawing(place=2)])
    for _ in range(2):
        hand.arrive(hand.waiting[0])
    assert len({tuple(draws) for draws in Drawing.draws.values()}) == 6
    assert Drawing.draws["refine", 0] == [Key(0).fold("refine", "drawing", version).bits() for version in (1, 2)]
    assert Drawing.draws["revise", 0] == [Key(0).fold("revise", "drawing", task).bits() for task in (0, 1)]
