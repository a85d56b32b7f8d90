"""Tensors in memory-mapped files, for what is read rarely and need not stay in memory."""

from __future__ import annotations

import mmap
import os
import tempfile

import torch
from torch import Tensor

from .errors import RecordError


def to_mmap(tensor: Tensor) -> Tensor:
    """The same numbers, in a file without a name in the temporary folder (`$TMPDIR`), which is mapped into memory.

    The system writes pages out and drops them as it needs room, and reads them again when they are used. The file goes
    away with the tensor, and with the process however that ends. Where the temporary folder itself lies in memory
    (tmpfs) nothing is saved.

    Raises:
        RecordError: when the file cannot be written.
    """
    tensor = tensor.detach().cpu().contiguous()
    size = tensor.numel() * tensor.element_size()
    if not size:
        return tensor
    try:
        with tempfile.TemporaryFile(prefix="fedecho-bank-") as file:
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error here, not a signal at the first write
            mapped = mmap.mmap(file.fileno(), size)
    except OSError as fault:
        raise RecordError(
            f"the bank's rows cannot be written to {tempfile.gettempdir()} ({fault.strerror}); set TMPDIR to a folder "
            "with more room, or records.bank to 'memory'"
        ) from None
    copy = torch.frombuffer(mapped, dtype=tensor.dtype).view(tensor.shape)
    return copy.copy_(tensor)
