"""Keyed random numbers: every draw has an address, and its value depends on nothing else.

A `Key` is an address in a tree. `Key(seed).fold("duration", client, task)` gives the same numbers whenever and wherever
it is asked, so a job's randomness does not depend on the order in which jobs happen to be computed, and nothing has to
be saved for a resumed run to continue with the same draws.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from hashlib import blake2b

import numpy as np
import torch

_NUMBER = re.compile(r"-?[0-9]+")


class Key:
    """An address in the tree of a run's random numbers.

    >>> Key(0).fold("duration", 3, 17).uniform() == Key(0).fold("duration", 3, 17).uniform()
    True
    """

    __slots__ = ("_path",)

    def __init__(self, seed: int) -> None:
        self._path = f"{int(seed)}".encode()

    def fold(self, *parts: str | int) -> Key:
        """The key below this one, along `parts` (a purpose, a client, a task, a version, …).

        Different parts give different addresses: 1 is not "1", and "a/1" is not "a", 1.
        """
        child = Key.__new__(Key)
        child._path = b"/".join([self._path, *map(_encode, parts)])
        return child

    def bits(self, draw: int = 0, size: int = 8) -> int:
        """Draw number `draw` of this key as an integer of `size` bytes."""
        return int.from_bytes(blake2b(b"%b#%d" % (self._path, draw), digest_size=size).digest(), "little")

    def uniform(self, draw: int = 0) -> float:
        """A float in [0, 1)."""
        return (self.bits(draw) >> 11) * 2.0**-53

    def below(self, n: int, draw: int = 0) -> int:
        """An integer in [0, n)."""
        return (self.bits(draw) * n) >> 64

    def numpy(self) -> np.random.Generator:
        """A fresh NumPy generator (Philox, 128-bit key) for more than a few draws."""
        return np.random.Generator(np.random.Philox(key=self.bits(size=16)))

    @contextlib.contextmanager
    def torch_global(self) -> Iterator[None]:
        """Seed torch's global generator inside the block, and put it back afterwards.

        Only for code that can draw from nowhere else: a module's initialisation, dropout.
        """
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices=devices):
            torch.default_generator.manual_seed(self.bits())
            if devices:
                torch.cuda.manual_seed(self.bits())
            yield

    def __repr__(self) -> str:
        return f"Key({self._path.decode()!r})"


def _encode(part: str | int) -> bytes:
    r"""A part of an address. In a string, "\" and "/" are escaped; a string that reads like a number gets a "\" first,
    which no other string can begin with."""
    if not isinstance(part, str):
        return f"{part}".encode()
    if "\\" in part or "/" in part:
        part = part.replace("\\", "\\\\").replace("/", "\\/")
    return (f"\\{part}" if _NUMBER.fullmatch(part) else part).encode()
