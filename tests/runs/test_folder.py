"""The run folder: who may write it, and that reading it creates nothing."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedecho import RecordError
from fedecho.core.messages import LogEntry
from fedecho.objectives.base import Metric
from fedecho.objectives.classification import Classification
from fedecho.runs import lock
from fedecho.runs.folder import RunFolder
from fedecho.runs.schema import BOOKKEEPING, column_faults, glossary

METRICS = Classification.metrics


def row(updates: int, **metrics: float | None) -> dict[str, Any]:
    return {**dict.fromkeys(BOOKKEEPING, 0), "updates": updates, **metrics}


def make(path: Path) -> RunFolder:
    folder = RunFolder.create(path, "[experiment]\nupdates = 3\n", {})
    folder.declare_metrics("classification", METRICS)
    folder.add_log_entry(1, LogEntry("dispatch", 0.5, client=2, task=0))
    folder.add_metrics(1, row(1, accuracy=0.25, slow_client_accuracy=None, loss=1.5))
    folder.flush()
    return folder


def in_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """What `work` returns in another process."""
    context = multiprocessing.get_context("fork")
    answers: Any = context.SimpleQueue()
    child = context.Process(target=lambda: answers.put(work(*arguments)))
    child.start()
    answer = answers.get()
    child.join()
    return answer


def try_to_lock(path: Path) -> str:
    try:
        folder = RunFolder.open(path)
        folder.lock()
        folder.close()
    except RecordError as fault:
        return str(fault)
    return "locked"


def test_the_lock_outlives_another_configuration(tmp_path: Path) -> None:
    """`rewrite` puts another file in the place of config.toml, which was what was locked."""
    folder = make(tmp_path / "run")
    folder.rewrite("[experiment]\nupdates = 9\n")
    assert "is being worked on by another process" in in_process(try_to_lock, folder.path)
    folder.close()
    assert in_process(try_to_lock, folder.path) == "locked"
    assert not (folder.path / "lock").exists()


def test_a_folder_is_locked_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    held = lock.FolderLock(tmp_path / "run")
    with pytest.raises(RecordError, match="is being worked on by another process"):
        RunFolder.create(tmp_path / "run", "", {})
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["lock"]
    held.release()
    RunFolder.create(tmp_path / "run", "", {}).close()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    make(tmp_path / "run").close()

    def hold(path: Path) -> None:
        folder = RunFolder.open(path)
        folder.lock()
        (path / "held").touch()
        time.sleep(60)

    child = multiprocessing.get_context("fork").Process(target=hold, args=(tmp_path / "run",))
    child.start()
    while not (tmp_path / "run" / "held").exists():
        time.sleep(0.01)
    assert "is being worked on" in try_to_lock(tmp_path / "run")
    os.kill(child.pid, signal.SIGKILL)  # type: ignore[arg-type]
    child.join()
    assert (tmp_path / "run" / "lock").exists()
    assert try_to_lock(tmp_path / "run") == "locked"


def test_where_there_is_no_flock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    folder = make(tmp_path / "run")
    assert f"by process {os.getpid()}; wait for it, or, if it is gone, remove" in try_to_lock(folder.path)
    folder.close()
    assert try_to_lock(folder.path) == "locked"


def contents(path: Path) -> dict[str, tuple[int, bytes]]:
    return {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in sorted(path.iterdir())}


def everything(path: Path) -> tuple[Any, ...]:
    folder = RunFolder.open(path)
    answer = (folder.metrics(), list(folder.events()), folder.metric_info(), folder.tables(), folder.noted("objective"))
    folder.close()
    return answer


def test_reading_changes_nothing_and_cannot_write(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    folder.close()
    before = contents(folder.path)
    rows, events, info, tables, objective = everything(folder.path)
    assert rows[0]["accuracy"] == 0.25
    assert rows[0]["slow_client_accuracy"] is None
    assert events[0]["kind"] == "dispatch"
    assert [Metric.from_dict(fields) for fields in info] == list(METRICS)
    assert (tables, objective) == ({"experiment": {"updates": 3}}, "classification")
    assert contents(folder.path) == before
    reader = RunFolder.open(folder.path)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.note("x", "y")
    reader.close()


@pytest.fixture
def anybodys() -> Iterator[Path]:
    """A folder that every user can reach."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def as_reader(path: Path) -> tuple[bool, Any]:
    """Read as a user who may write nothing there: whether that is so, and what was read."""
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    try:
        return os.access(path, os.W_OK), everything(path)
    except RecordError as fault:
        return False, str(fault)


@pytest.mark.parametrize("killed", [False, True], ids=["closed", "killed"])
def test_read_only_media(anybodys: Path, killed: bool) -> None:
    """Also a run that was killed, whose rows are in the database's log still."""
    folder = make(anybodys / "source")
    if killed:
        shutil.copytree(folder.path, anybodys / "run")
        (anybodys / "run" / "records.sqlite-shm").unlink()
        assert (anybodys / "run" / "records.sqlite-wal").stat().st_size
        folder.close()
    else:
        folder.close()
        shutil.copytree(folder.path, anybodys / "run")
    expected = everything(folder.path)
    for file in (anybodys / "run").iterdir():
        file.chmod(0o444)
    (anybodys / "run").chmod(0o555)
    names = sorted(os.listdir(anybodys / "run"))
    assert in_process(as_reader, anybodys / "run") == (False, expected)
    assert sorted(os.listdir(anybodys / "run")) == names
    (anybodys / "run").chmod(0o755)


def test_a_reader_sees_what_a_writer_wrote(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    folder.add_metrics(2, row(2, accuracy=0.5))
    folder.flush()
    assert [each["accuracy"] for each in everything(folder.path)[0]] == [0.25, 0.5]
    folder.close()


def test_another_metric_gets_its_columns(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    folder.declare_metrics("own", [*METRICS, Metric("order", "order", "a word that SQL has, too", True)])
    folder.add_metrics(2, row(2, order=7.0, fast_client_order=8.0))
    folder.flush()
    first, second = folder.metrics()
    folder.close()
    assert (first["order"], second["order"], second["fast_client_order"]) == (None, 7.0, 8.0)


def test_metrics_that_cannot_have_columns() -> None:
    def metric(name: str) -> Metric:
        return Metric(name, name, "", True)

    assert not column_faults(METRICS)
    assert "name it by an identifier" in column_faults([metric("top 5")])[0]
    assert "'train_loss'" in column_faults([metric("train_loss")])[0]
    assert "'a'" in column_faults([metric("a"), metric("a")])[0]
    meanings = glossary(everything_of(METRICS))
    assert set(BOOKKEEPING) | {"ece", "slow_client_macro_f1", "fast_client_loss"} <= set(meanings)


def everything_of(metrics: tuple[Metric, ...]) -> list[dict[str, Any]]:
    return [vars(metric) for metric in metrics]
