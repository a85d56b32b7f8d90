"""The lock of a run folder: one process writes at a time."""

from __future__ import annotations

import os
from pathlib import Path

from ..core.errors import RecordError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


class FolderLock:
    """Holds the file `lock` in a folder until `release`, or until this process ends.

    Where the system has no `flock`, the file itself is the lock: it is made by whoever holds it and has the number of
    its process in it. A process that was killed leaves it behind.

    Raises:
        RecordError: when another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"
        try:
            self._number = _flock(self._path) if fcntl is not None else _create(self._path)
        except OSError as fault:
            raise RecordError(f"{folder} cannot be written ({fault}); give another folder") from fault

    def release(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._number)


def _flock(path: Path) -> int:
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(number)
            raise RecordError(f"{path.parent} is being worked on by another process; wait for it, or stop it") from None
        try:
            if os.stat(path).st_ino == os.fstat(number).st_ino:
                return number
        except FileNotFoundError:
            pass
        os.close(number)  # its holder removed it meanwhile: lock the new one


def _create(path: Path) -> int:
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        holder = path.read_text(encoding="utf-8").strip() or "unknown"
        raise RecordError(
            f"{path.parent} is being worked on by process {holder}; wait for it, or, if it is gone, remove {path}"
        ) from None
    os.write(number, f"{os.getpid()}\n".encode())
    return number
