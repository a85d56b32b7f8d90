"""Memory that processes share, and values laid into it: their tensors are copied, never pickled.

The memory has no name. The kernel frees it when the last process that holds it is gone, however that ends, so nothing
can be left behind; and it is not taken from /dev/shm, which containers keep small.
"""

from __future__ import annotations

import fcntl
import io
import math
import mmap
import os
import pickle
import struct
import tempfile
from collections.abc import Callable
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROOM_BYTES = 1 << 36
"""Of address space for each room: pages that nobody wrote to take no memory."""


_ALIGNED = 64  # as torch's own tensors are: vectorized code then takes the same path, to the same bits


_HEADER = struct.Struct("<QQ")  # the skeleton's size and the whole value's


def _anonymous() -> int:
    """A file without a name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("fedecho")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


class SharedArena:
    """Rooms numbered from 0, one value each. It can be handed to a process as that is started."""

    def __init__(self, rooms: int, fd: int | None = None) -> None:
        self.rooms = rooms
        self._fd = _anonymous() if fd is None else fd
        self._maps: dict[int, mmap.mmap] = {}
        if fd is None:
            os.ftruncate(self._fd, rooms * ROOM_BYTES)

    def __reduce__(self) -> tuple[Callable[..., SharedArena], tuple[int, Any]]:
        return _reopen, (self.rooms, DupFd(self._fd))

    def __del__(self) -> None:
        os.close(self._fd)

    def _map(self, room: int, size: int) -> mmap.mmap:
        """The room's first `size` bytes. A larger map replaces a smaller one, which tensors may still look into."""
        found = self._maps.get(room)
        if found is None or len(found) < size:
            if size > ROOM_BYTES:
                raise ValueError(f"a value of {size / 1e9:.0f} GB exceeds the {ROOM_BYTES / 1e9:.0f} GB of a room")
            pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
            found = self._maps[room] = mmap.mmap(self._fd, pages, offset=room * ROOM_BYTES)
        return found

    def write(self, room: int, value: Any) -> None:
        """Lay a value there."""
        file = io.BytesIO()
        writer = _Writer(file)
        writer.dump(value)
        start = _aligned(_HEADER.size + file.tell())
        there = self._map(room, start + writer.size)
        there[: _HEADER.size] = _HEADER.pack(file.tell(), start + writer.size)
        there[_HEADER.size : _HEADER.size + file.tell()] = file.getvalue()
        for at, flat in writer.tensors:
            torch.frombuffer(there, dtype=flat.dtype, count=flat.numel(), offset=start + at).copy_(flat)

    def read(self, room: int, copy: bool = True) -> Any:
        """The value there; without `copy` its tensors are the memory itself, until something else is written."""
        skeleton, size = _HEADER.unpack_from(self._map(room, _HEADER.size))
        there = self._map(room, size)
        start = _aligned(_HEADER.size + skeleton)
        return _Reader(there, _HEADER.size, skeleton, start, copy).load()

    def array(self, room: int, size: int, dtype: type) -> np.ndarray[Any, Any]:
        """The room as `size` numbers, 0 at first, instead of a value."""
        return np.frombuffer(self._map(room, size * np.dtype(dtype).itemsize), dtype, size)


def _reopen(rooms: int, handed: Any) -> SharedArena:
    return SharedArena(rooms, handed.detach())


class _Writer(pickle.Pickler):
    """Pickles all but the tensors, for which it notes the places that they shall have."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self.tensors: list[tuple[int, Tensor]] = []
        self.size = 0

    def persistent_id(self, thing: Any) -> Any:
        if not isinstance(thing, Tensor):
            return None
        order = sorted(range(thing.dim()), key=thing.stride, reverse=True)  # as it lies: channels_last stays so
        laid = thing.detach().permute(order).contiguous()
        place = (self.size, laid.dtype, tuple(laid.shape), tuple(order), str(thing.device))
        if laid.numel():
            self.tensors.append((self.size, laid.view(-1)))
        self.size += _aligned(laid.numel() * laid.element_size())
        return place


class _Reader(pickle.Unpickler):
    def __init__(self, memory: mmap.mmap, at: int, size: int, start: int, copy: bool) -> None:
        super().__init__(io.BytesIO(memory[at : at + size]))
        self._memory, self._start, self._copy = memory, start, copy

    def persistent_load(self, place: Any) -> Tensor:
        at, dtype, shape, order, device = place
        count = math.prod(shape)
        laid = torch.empty(shape, dtype=dtype)
        if count:
            laid = torch.frombuffer(self._memory, dtype=dtype, count=count, offset=self._start + at).view(shape)
            laid = laid.clone() if self._copy else laid
        back = sorted(range(len(order)), key=order.__getitem__)
        return laid.permute(back).to(device)


class Lock:
    """One process at a time. A process that dies lets go of it: the kernel does that."""

    def __init__(self, fd: int | None = None) -> None:
        self._fd = _anonymous() if fd is None else fd

    def __reduce__(self) -> tuple[Callable[..., Lock], tuple[Any]]:
        return _relock, (DupFd(self._fd),)

    def __del__(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN)


def _relock(handed: Any) -> Lock:
    return Lock(handed.detach())
