"""Immutable mappings of which a changed copy is cheap, whatever their size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

V = TypeVar("V")

BITS = 5
"""A node of a tree has up to 2^BITS children."""
MASK = (1 << BITS) - 1


class RadixTree(Generic[V]):
    """An immutable map from whole numbers, at least 0, to values, in the order of the numbers.

    The digits of a number in base 32 are the path to its value. A changed copy has new nodes on one path and shares all
    others, so that it takes O(log largest number) time and memory.
    """

    __slots__ = ("_root", "_shift")

    def __init__(self, root: dict[int, Any] | None = None, shift: int = 0) -> None:
        self._root: dict[int, Any] = root or {}
        self._shift = shift  # of the root's digit; that of a leaf is 0

    def get(self, number: int) -> V | None:
        """The number's value; None where it has none."""
        if number < 0 or number >> (self._shift + BITS):
            return None
        node: Any = self._root
        for shift in range(self._shift, -1, -BITS):
            node = node.get(number >> shift & MASK)
            if node is None:
                return None
        value: V = node
        return value

    def set(self, number: int, value: V) -> RadixTree[V]:
        """A copy in which the number has this value.

        Raises:
            ValueError: for a number below 0.
        """
        if number < 0:
            raise ValueError(f"the number is {number}; numbers are counted from 0")
        root, shift = self._root, self._shift
        while number >> (shift + BITS):
            root, shift = {0: root} if root else {}, shift + BITS
        return RadixTree(_set(root, shift, number, value), shift)

    def without(self, number: int) -> RadixTree[V]:
        """A copy without this number, which must have a value."""
        return RadixTree(_without(self._root, self._shift, number), self._shift)

    def values(self) -> Iterator[V]:
        """The values in the order of their numbers."""
        return _values(self._root, self._shift)


def _set(node: Mapping[int, Any], shift: int, number: int, value: Any) -> dict[int, Any]:
    copy, digit = dict(node), number >> shift & MASK
    copy[digit] = _set(copy.get(digit, {}), shift - BITS, number, value) if shift else value
    return copy


def _without(node: Mapping[int, Any], shift: int, number: int) -> dict[int, Any]:
    copy, digit = dict(node), number >> shift & MASK
    child = copy.pop(digit)
    if shift and (rest := _without(child, shift - BITS, number)):
        copy[digit] = rest
    return copy


def _values(node: Mapping[int, Any], shift: int) -> Iterator[Any]:
    for digit in sorted(node):
        if shift:
            yield from _values(node[digit], shift - BITS)
        else:
            yield node[digit]


class RecencyMap(Mapping[int, V]):
    """An immutable mapping of clients, which are numbered from 0, to values: the least recently written first.

    `put` and `without` return a changed copy and take the same time for any number of clients, but for a logarithm.
    """

    __slots__ = ("_clients", "_entries", "_next", "_size")

    def __init__(self, values: Mapping[int, V] | None = None) -> None:
        self._entries: RadixTree[tuple[int, V]] = RadixTree()  # client to the number of its write, and its value
        self._clients: RadixTree[int] = RadixTree()  # the number of a write to the client
        self._next, self._size = 0, 0
        for client, value in (values or {}).items():
            self._write(client, value)

    @classmethod
    def of(cls, values: Mapping[int, V]) -> RecencyMap[V]:
        """The mapping itself where it is one of these, and else a copy in the order of `values`."""
        return values if isinstance(values, RecencyMap) else cls(values)

    def put(self, client: int, value: V) -> RecencyMap[V]:
        """A copy in which the client has this value and is the most recently written."""
        copy = self._copy()
        copy._write(client, value)
        return copy

    def without(self, client: int) -> RecencyMap[V]:
        """A copy without the client.

        Raises:
            KeyError: when it has no value.
        """
        copy = self._copy()
        copy._remove(client)
        return copy

    def __getitem__(self, client: int) -> V:
        entry = self._entries.get(client)
        if entry is None:
            raise KeyError(client)
        return entry[1]

    def __iter__(self) -> Iterator[int]:
        return self._clients.values()

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        return f"RecencyMap({dict(self)!r})"

    def _copy(self) -> RecencyMap[V]:
        copy: RecencyMap[V] = RecencyMap.__new__(RecencyMap)
        copy._entries, copy._clients = self._entries, self._clients
        copy._next, copy._size = self._next, self._size
        return copy

    def _write(self, client: int, value: V) -> None:
        if client in self:
            self._remove(client)
        self._entries = self._entries.set(client, (self._next, value))
        self._clients = self._clients.set(self._next, client)
        self._next += 1
        self._size += 1

    def _remove(self, client: int) -> None:
        entry = self._entries.get(client)
        if entry is None:
            raise KeyError(client)
        self._entries, self._clients = self._entries.without(client), self._clients.without(entry[0])
        self._size -= 1
