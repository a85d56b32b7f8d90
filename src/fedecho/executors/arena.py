"""Memory that processes share, and values in it: their tensors are copied, never pickled.

The memory has no name. The kernel frees it when the last process that holds it is gone, however that ends, so nothing
is ever left behind; and it is not taken from /dev/shm, which containers keep small.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import pickle
import struct
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np
import torch
from torch import Tensor

REGION_BYTES = 1 << 36
"""Address space of each region: pages that were never written take no memory."""

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
    """Regions numbered from 0, one value each. It can be passed to a process as that is started."""

    def __init__(self, regions: int, fd: int | None = None) -> None:
        self.regions = regions
        self._fd = _anonymous() if fd is None else fd
        self._maps: dict[int, mmap.mmap] = {}
        if fd is None:
            os.ftruncate(self._fd, regions * REGION_BYTES)

    def __reduce__(self) -> tuple[Callable[..., SharedArena], tuple[int, Any]]:
        return _reopen, (self.regions, DupFd(self._fd))

    def __del__(self) -> None:
        os.close(self._fd)

    def _map(self, region: int, size: int) -> mmap.mmap:
        """The region's first `size` bytes. A larger map replaces a smaller one, which tensors may still point into."""
        memory = self._maps.get(region)
        if memory is None or len(memory) < size:
            if size > REGION_BYTES:
                raise ValueError(f"a value of {size / 1e9:.0f} GB exceeds the {REGION_BYTES / 1e9:.0f} GB of a region")
            pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
            memory = self._maps[region] = mmap.mmap(self._fd, pages, offset=region * REGION_BYTES)
        return memory

    def write(self, region: int, value: Any) -> None:
        """Store a value in the region."""
        file = io.BytesIO()
        writer = _Writer(file)
        writer.dump(value)
        start = _aligned(_HEADER.size + file.tell())
        memory = self._map(region, start + writer.size)
        memory[: _HEADER.size] = _HEADER.pack(file.tell(), start + writer.size)
        memory[_HEADER.size : _HEADER.size + file.tell()] = file.getvalue()
        for offset, flat in writer.tensors:
            torch.frombuffer(memory, dtype=flat.dtype, count=flat.numel(), offset=start + offset).copy_(flat)

    def read(self, region: int, copy: bool = True) -> Any:
        """The region's value; without `copy` its tensors are the memory itself, until something else is written."""
        skeleton, size = _HEADER.unpack_from(self._map(region, _HEADER.size))
        memory = self._map(region, size)
        start = _aligned(_HEADER.size + skeleton)
        return _Reader(memory, _HEADER.size, skeleton, start, copy).load()

    def array(self, region: int, size: int, dtype: type) -> np.ndarray[Any, Any]:
        """The region as `size` numbers, 0 at first, instead of a value."""
        return np.frombuffer(self._map(region, size * np.dtype(dtype).itemsize), dtype, size)


def _reopen(regions: int, descriptor: Any) -> SharedArena:
    return SharedArena(regions, descriptor.detach())


class _Writer(pickle.Pickler):
    """Pickles all but the tensors; in their place it notes where each will lie."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self.tensors: list[tuple[int, Tensor]] = []
        self.size = 0

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return None
        order, stored = in_memory_order(value.detach())
        place = (self.size, stored.dtype, tuple(stored.shape), tuple(order), str(value.device))
        if stored.numel():
            self.tensors.append((self.size, stored.view(-1)))
        self.size += _aligned(stored.numel() * stored.element_size())
        return place


class _Reader(pickle.Unpickler):
    def __init__(self, memory: mmap.mmap, offset: int, size: int, start: int, copy: bool) -> None:
        super().__init__(io.BytesIO(memory[offset : offset + size]))
        self._memory, self._start, self._copy = memory, start, copy

    def persistent_load(self, place: Any) -> Tensor:
        offset, dtype, shape, order, device = place
        count = math.prod(shape)
        stored = torch.empty(shape, dtype=dtype)
        if count:
            stored = torch.frombuffer(self._memory, dtype=dtype, count=count, offset=self._start + offset).view(shape)
            stored = stored.clone() if self._copy else stored
        return in_logical_order(stored, order).to(device)


def in_memory_order(tensor: Tensor) -> tuple[list[int], Tensor]:
    """The order of the dimensions in memory, and the tensor so permuted, contiguous: channels_last stays so."""
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return order, tensor.permute(order).contiguous()


def in_logical_order(stored: Tensor, order: Sequence[int]) -> Tensor:
    """The reverse of `in_memory_order`."""
    return stored.permute(sorted(range(len(order)), key=order.__getitem__))


class Lock:
    """One process at a time. When a process dies, the kernel releases its lock."""

    def __init__(self, fd: int | None = None) -> None:
        self._fd = _anonymous() if fd is None else fd

    def __reduce__(self) -> tuple[Callable[..., Lock], tuple[Any]]:
        return _relock, (DupFd(self._fd),)

    def __del__(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> None:
        import fcntl  # not on Windows, where only the executors with workers need it

        fcntl.lockf(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        import fcntl

        fcntl.lockf(self._fd, fcntl.LOCK_UN)


def _relock(descriptor: Any) -> Lock:
    return Lock(descriptor.detach())
