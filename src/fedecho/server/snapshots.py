"""Read-only snapshots of a list or dict: a copy is made only where one is still in use when the original changes."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

from ..core.messages import Task

Content = TypeVar("Content", list[int], dict[int, Task])


class Snapshot(Generic[Content]):
    """A container as it is now. It shares the original until that changes, and has a copy of its own from then on."""

    __slots__ = ("__weakref__", "_content")
    _content: Content

    def __init__(self, original: Content) -> None:
        self._content = original

    def detach(self) -> None:
        """Copy the original: it is about to change."""
        self._content = self._content.copy()

    def __len__(self) -> int:
        return len(self._content)

    def __iter__(self) -> Iterator[int]:
        return iter(self._content)

    def __repr__(self) -> str:
        return repr(self._content)


class ClientList(Snapshot[list[int]], Sequence[int]):
    """Clients at one moment."""

    __slots__ = ()

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> list[int]: ...
    def __getitem__(self, place: int | slice) -> int | list[int]:
        content: list[int] = self._content
        return content[place]


class TaskTable(Snapshot[dict[int, Task]], Mapping[int, Task]):
    """Tasks by number at one moment."""

    __slots__ = ()

    def __getitem__(self, task: int) -> Task:
        tasks: dict[int, Task] = self._content
        return tasks[task]


Kind = TypeVar("Kind", ClientList, TaskTable)


class Snapshots(Generic[Kind]):
    """Takes snapshots of one container, and detaches the last one before the container changes.

    Args:
        kind: the snapshots' class.
        original: the container.
    """

    def __init__(self, kind: type[Kind], original: Any) -> None:
        self._kind: type[Kind] = kind
        self._original = original
        self._last: weakref.ref[Kind] | None = None

    def take(self) -> Kind:
        """The container as it is now. While it does not change, all share one snapshot."""
        snapshot = None if self._last is None else self._last()
        if snapshot is None:
            snapshot = self._kind(self._original)
            self._last = weakref.ref(snapshot)
        return snapshot

    def before_change(self) -> None:
        """To be called before each change of the container."""
        if self._last is not None:
            snapshot = self._last()
            if snapshot is not None:
                snapshot.detach()
            self._last = None
