"""Commands on one run: a contract that scripts rely on."""

from __future__ import annotations

import json
import os
import pty
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.command_line import Captured, call, process
from fedecho.cli.progress import header, line
from fedecho.cli.tables import PROFILE
from fedecho.objectives.classification import Classification
from fedecho.objectives.language import Language
from fedecho.runs.schema import BOOKKEEPING

HEADER = header(Classification.metrics)


def test_run_json(config: str, capsys: Captured) -> None:
    """One document, the promised keys, and the same bits twice."""
    code, out, _ = call(capsys, "run", config, "--algorithm", "fedecho", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["algorithm"] == "fedbuff+echo"
    assert (found["seed"], found["dataset"], found["updates"], found["versions"]) == (0, "digits", 40, 13)
    assert min(found[key] for key in ("virtual_time_s", "wall_s", "peak_memory_mb")) > 0
    assert (found["refused"], found["lost"], found["objective"]) == (0, 0, "classification")
    assert list(found["metrics"]) == [metric["name"] for metric in found["metric_info"]]
    accuracy = found["metrics"]["accuracy"]
    assert accuracy["averaged"] == 4, "four evaluations after the untrained model's"
    assert 0 < accuracy["slow_clients"] < 1
    assert 0 < accuracy["last_5_mean"] <= accuracy["best"] <= 1
    assert 0 < accuracy["last"] <= accuracy["best"]
    assert all(found["server_s"][key] > 0 for key in ("train_s", "infer_s", "distill_s", "aggregate_s"))
    assert len(bytes.fromhex(found["model_sha256"])) == 32
    assert not list(Path().glob("*/"))  # nothing kept without --out
    _, again, _ = call(capsys, "run", config, "--algorithm", "fedecho", "--json")
    timed = ("wall_s", "server_s", "profile_s", "peak_memory_mb")
    assert {k: v for k, v in json.loads(again).items() if k not in timed} == {
        k: v for k, v in found.items() if k not in timed
    }
    _, other, _ = call(capsys, "run", config, "--algorithm", "fedecho", "--json", "--set", "experiment.seed=1")
    assert json.loads(other)["model_sha256"] != found["model_sha256"]


@pytest.mark.parametrize("executor", ["inline", "processes"])
def test_run_profile(config: str, capsys: Captured, executor: str) -> None:
    """Where the time went: every second once, and the workers' own beside."""
    began = time.perf_counter()
    arguments = ("run", config, "--algorithm", "fedecho", "--set", f"executor.name={executor}", "--profile")
    code, out, _ = call(capsys, *arguments)
    took = time.perf_counter() - began
    assert code == 0
    _, _, table = out.partition("\n\n")
    head, *rows, total = table.splitlines()
    assert head.split() == ["where", "the", "time", "went", "s", "share", "workers,", "s"]
    assert [row[:26].rstrip() for row in rows] == list(PROFILE.values())
    seconds = [float(row[26:35]) for row in rows]
    assert sum(seconds) == pytest.approx(float(total.split()[1]), abs=0.05 * len(rows) + 0.05)
    assert 0.5 * took < float(total.split()[1]) < took + 0.1
    assert sum(float(row[35:43].rstrip("% ")) for row in rows) == pytest.approx(100, abs=0.5)
    _, out, _ = call(capsys, *arguments, "--json")
    found = json.loads(out)
    assert set(found["profile_s"]) == set(PROFILE)
    assert (found["profile_s"]["train_s"] == 0) == (found["profile_s"]["wait_s"] > 0) == (executor == "processes")
    assert found["server_s"]["train_s"] > 0


def test_run_table(config: str, capsys: Captured) -> None:
    code, out, err = call(capsys, "run", config, "--out", "run")
    sizes, header, *rows, summary = out.splitlines()
    assert (code, err) == (0, "")
    assert sizes == "610 weights travel: an update takes 0.00 MB down and 0.00 MB up"
    assert header == HEADER
    assert len(rows) == 5
    assert {len(row) for row in rows} == {len(HEADER)}
    assert summary.startswith("fedbuff on digits, seed 0: accuracy 0.")
    assert " (mean of the last 4 evaluations; last 0." in summary
    assert summary.endswith("; records in run")
    assert call(capsys, "resume", "run")[:2] == (0, summary + "\n")
    code, out, _ = call(capsys, "resume", "run", "--json")
    assert json.loads(out)["run_dir"] == "run"
    code, out, err = call(capsys, "run", config, "--out", "run")
    assert (code, out) == (2, "")
    assert err == "fedecho: run already holds a run; resume it, or give another folder with --out\n"


@given(
    loss=st.floats(0, 1e38),
    slow=st.none() | st.floats(0, 1),
    virtual_time_s=st.floats(0, 9e7),
    updates=st.integers(0, 10**8 - 1),
)
def test_every_line_has_the_headers_width(loss: float, slow: float | None, virtual_time_s: float, updates: int) -> None:
    row: dict[str, Any] = dict.fromkeys(BOOKKEEPING, 0)
    row |= {"loss": loss, "accuracy": 0.5, "slow_client_accuracy": slow, "perplexity": max(loss, 1.0)}
    row |= {"virtual_time_s": virtual_time_s, "updates": updates, "staleness_mean": loss}
    for metrics in (Classification.metrics, Language.metrics, ()):
        assert len(line(metrics, row)) == len(header(metrics)) <= 80


def test_the_table_goes_where_it_is_sent(config: str) -> None:
    """With the bar on a terminal and standard output in a file, the table is in the file."""
    terminal, side = pty.openpty()
    child = process("run", config, stderr=side)
    os.close(side)
    assert child.stdout is not None
    out = child.stdout.read()
    shown = b""
    while chunk := read(terminal):
        shown += chunk
    os.close(terminal)
    assert child.wait() == 0
    child.stdout.close()
    assert len(out.splitlines()) == 8
    assert out.splitlines()[1] == HEADER
    assert b"fedbuff" in shown  # the bar
    assert b"virtual_s" not in shown


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux's way to say that the other side is closed
        return b""


def test_a_reader_that_leaves(config: str) -> None:
    child = process("run", config)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    errors = child.stderr.read()
    child.stderr.close()
    assert (child.wait(), errors) == (141, "")


def test_a_run_that_refuses_most_says_so_at_once_and_in_its_summary(config: str, capsys: Captured) -> None:
    code, out, err = call(capsys, "run", config, "--set", "client.lr=500", "--set", "server.concurrency=10")
    assert code == 0
    warnings = [text for text in err.splitlines() if text.startswith("fedecho: ")]
    assert len(warnings) == 1
    assert re.match(r"fedecho: \d+ of \d+ updates are refused so far; lower client.lr", warnings[0])
    *_, summary, warning = out.splitlines()
    assert " refused, 0 lost, " in summary
    assert re.match(r"warning: \d+ of \d+ updates were refused \(", warning)


def test_a_run_that_refuses_everything(config: str, capsys: Captured) -> None:
    """A step that makes every client diverge ends the run with a line; it would go on for ever."""
    code, out, err = call(capsys, "run", config, "--json", "--set", "client.lr=1e9")
    assert (code, out) == (2, "")
    at_once, at_the_end = err.splitlines()
    assert at_once.startswith("fedecho: 20 of 20 updates are refused so far; ")
    assert at_the_end.startswith("fedecho: the last 1000 tasks were all lost or refused (the last one: ")


def test_a_limit_in_virtual_time(config: str, capsys: Captured) -> None:
    """It ends the run although nothing has arrived by then."""
    slow = ["population.name=large", "population.class_counts=[0,0,10]", "experiment.virtual_time_s=20"]
    code, out, _ = call(capsys, "run", config, "--json", *(part for text in slow for part in ("--set", text)))
    found = json.loads(out)
    assert (code, found["virtual_time_s"], found["updates"]) == (0, 20.0, 0)


def test_status(config: str, capsys: Captured) -> None:
    """One line, and an exit code for loops that watch over runs."""
    call(capsys, "run", config, "--out", "run")
    code, out, err = call(capsys, "status", "run")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"run: finished, 40 updates, accuracy 0\.\d+\n", out)
    Path("run/summary.json").unlink()  # as if it had been killed before its end
    code, out, err = call(capsys, "status", "run")
    assert (code, err) == (3, "")
    assert out == (
        "run: not finished, 40 of 40 updates recorded; if no process is at work on it, `fedecho resume run` "
        "continues it\n"
    )
    assert call(capsys, "resume", "run", "--json")[0] == 0
    assert call(capsys, "status", "run")[0] == 0
    Path("run/summary.json").write_text("{}")
    assert call(capsys, "status", "run")[0] == 2
