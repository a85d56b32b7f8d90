"""Immutable mappings of which a changed copy is cheap, whatever their size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

V = TypeVar("V")

BITS = 5
"""A node of a tree has 2^BITS places for children."""
MASK = (1 << BITS) - 1
Node: TypeAlias = Sequence[Any]
EMPTY: Node = (None,) * (1 << BITS)


class RadixTree(Generic[V]):
    """An immutable map from whole numbers, at least 0, to values other than None, in the order of the numbers.

    The digits of a number in base 32 are the path to its value. A changed copy has new nodes on one path and shares all
    others, so that it takes O(log largest number) time and memory.
    """

    __slots__ = ("_root", "_shift")

    def __init__(self, root: Node = EMPTY, shift: int = 0) -> None:
        self._root = root
        self._shift = shift  # of the root's digit; that of a leaf is 0

    @classmethod
    def of(cls, values: Mapping[int, V]) -> RadixTree[V]:
        """The map with these values.

        Raises:
            ValueError: for a number below 0.
        """
        largest, shift = max(values, default=0), 0
        _check(min(values, default=0))
        while largest >> (shift + BITS):
            shift += BITS
        root: list[Any] = list(EMPTY)
        for number, value in values.items():
            node = root
            for level in range(shift, 0, -BITS):
                digit = number >> level & MASK
                if node[digit] is None:
                    node[digit] = list(EMPTY)
                node = node[digit]
            node[number & MASK] = value
        return cls(root, shift)

    def get(self, number: int) -> V | None:
        """The number's value; None where it has none."""
        if number < 0 or number >> (self._shift + BITS):
            return None
        node: Any = self._root
        for shift in range(self._shift, -1, -BITS):
            node = node[number >> shift & MASK]
            if node is None:
                return None
        value: V = node
        return value

    def set(self, number: int, value: V) -> RadixTree[V]:
        """A copy in which the number has this value.

        Raises:
            ValueError: for a number below 0.
        """
        _check(number)
        root, shift = self._root, self._shift
        while number >> (shift + BITS):
            root, shift = (root, *EMPTY[1:]), shift + BITS
        return RadixTree(_set(root, shift, number, value), shift)

    def without(self, number: int) -> RadixTree[V]:
        """A copy without this number, which must have a value."""
        return RadixTree(_without(self._root, self._shift, number) or EMPTY, self._shift)

    def values(self) -> Iterator[V]:
        """The values in the order of their numbers."""
        return _values(self._root, self._shift)


def _check(number: int) -> None:
    if number < 0:
        raise ValueError(f"the number is {number}; numbers are counted from 0")


def _set(node: Node, shift: int, number: int, value: Any) -> Node:
    copy, digit = list(node), number >> shift & MASK
    copy[digit] = _set(copy[digit] or EMPTY, shift - BITS, number, value) if shift else value
    return copy


def _without(node: Node, shift: int, number: int) -> Node | None:
    """The node without this number; None where nothing is left."""
    copy, digit = list(node), number >> shift & MASK
    copy[digit] = _without(copy[digit], shift - BITS, number) if shift else None
    return copy if any(child is not None for child in copy) else None


def _values(node: Node, shift: int) -> Iterator[Any]:
    for child in node:
        if child is not None:
            if shift:
                yield from _values(child, shift - BITS)
            else:
                yield child


class RecencyMap(Mapping[int, V]):
    """An immutable mapping of clients, which are numbered from 0, to values: the least recently written first.

    `put` and `without` return a changed copy and take the same time for any number of clients, but for a logarithm.
    """

    __slots__ = ("_clients", "_entries", "_next", "_size")
    _entries: RadixTree[tuple[int, V]]  # client to the number of its last write, and its value
    _clients: RadixTree[int]  # the number of a write to the client

    def __init__(self, values: Mapping[int, V] | None = None) -> None:
        writes = list(enumerate((values or {}).items()))
        self._entries = RadixTree.of({client: (number, value) for number, (client, value) in writes})
        self._clients = RadixTree.of({number: client for number, (client, _) in writes})
        self._next = self._size = len(writes)

    @classmethod
    def of(cls, values: Mapping[int, V]) -> RecencyMap[V]:
        """The mapping itself where it is one of these, and else a copy in the order of `values`."""
        return values if isinstance(values, RecencyMap) else cls(values)

    def put(self, client: int, value: V) -> RecencyMap[V]:
        """A copy in which the client has this value and is the most recently written.

        Raises:
            ValueError: for a client below 0.
        """
        earlier = self._entries.get(client)
        clients = self._clients if earlier is None else self._clients.without(earlier[0])
        entries = self._entries.set(client, (self._next, value))
        size = self._size + (earlier is None)
        return self._made_of(entries, clients.set(self._next, client), self._next + 1, size)

    def without(self, client: int) -> RecencyMap[V]:
        """A copy without the client.

        Raises:
            KeyError: when it has no value.
        """
        entry = self._entries.get(client)
        if entry is None:
            raise KeyError(client)
        clients = self._clients.without(entry[0])
        return self._made_of(self._entries.without(client), clients, self._next, self._size - 1)

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

    @classmethod
    def _made_of(
        cls, entries: RadixTree[tuple[int, V]], clients: RadixTree[int], number: int, size: int
    ) -> RecencyMap[V]:
        copy: RecencyMap[V] = cls.__new__(cls)
        copy._entries, copy._clients, copy._next, copy._size = entries, clients, number, size
        return copy
