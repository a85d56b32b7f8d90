"""Keys: one address for one list of parts, and the draws that recorded runs depend on."""

from __future__ import annotations

import itertools

import numpy as np

from fedecho.core.keys import Key

PARTS: list[str | int] = ["a", "b", "a/b", "a/1", 1, "1", -1, "-1", "", "/", "\\", "\\/", "\\1", "a\\", "\\\\1", "1a"]


def test_different_parts_give_different_addresses() -> None:
    """Every list of up to three of these parts: "a/1" is not "a", 1, and "1" is not 1."""
    lists = [parts for size in range(4) for parts in itertools.product(PARTS, repeat=size)]
    addresses = {Key(0).fold(*parts).bits(size=16) for parts in lists}
    assert len(addresses) == len(lists)
    assert Key(0).fold("a/1").bits() != Key(0).fold("a", 1).bits()


def test_an_address_may_be_reached_step_by_step() -> None:
    assert Key(3).fold("a/1", 2).bits() == Key(3).fold("a/1").fold(2).bits()
    assert Key(3).fold(np.int64(2)).bits() == Key(3).fold(2).bits()  # type: ignore[arg-type]


def test_draws_are_those_of_recorded_runs() -> None:
    """Words, numbers and names with the characters that shipped calls use keep the addresses they always had."""
    assert Key(0).fold("duration", 3, 17).bits() == 3828430460638611975
    assert Key(7).fold("refine", "balanced_echo", 12).bits() == 16799057975025238198
    assert Key(1).fold("fashion-mnist", "split").bits() == 18193400844184434716
