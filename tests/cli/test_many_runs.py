"""Commands on many runs, and a user's own parts: a contract that scripts rely on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.command_line import OWN, TEXT, Captured, call, process
from fedecho import Config
from fedecho.algorithms.fedbuff import FedBuff
from fedecho.config.tables import ExperimentConfig


def test_compare(config: str, capsys: Captured) -> None:
    """In two processes, then continued after it was interrupted, then with one setting changed."""
    arguments = ["compare", config, "--algorithms", "gentle,fedbuff", "--seeds", "0,1", "--jobs", "2", "--out", "all"]
    code, out, err = call(capsys, *arguments)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert sorted(line.split()[0] for line in lines[:4]) == ["fedbuff", "fedbuff", "gentle", "gentle"]
    tables = [part.splitlines() for part in "\n".join(lines[5:]).split("\n\n")]
    starts = [table[0].split("  ")[0] for table in tables]
    assert starts == [
        "method",
        "method",
        "other metrics",
        "cost",
        "minus fedbuff",
        "minus fedbuff",
        "mean ± standard deviation over 2 seeds",
    ]
    for table in tables[:4]:
        assert [line.split()[0] for line in table[1:]] == ["gentle", "fedbuff"]
    assert tables[0][1].count("±") + tables[1][1].count("±") == 6
    assert tables[3][0].split()[:3] == ["cost", "s", "to"]
    assert tables[4][1].startswith("gentle ")
    assert tables[4][1].count("too few seeds") == 2
    assert "accuracy: mean of the last 4 evaluations; there are no more after the first" in tables[6]
    assert "lower is better: loss, calibration error" in tables[6]
    assert max(map(len, lines)) <= 80
    assert json.loads(Path("all/comparison.json").read_text())["methods"] == ["gentle", "fedbuff"]
    _, never, _ = call(capsys, *arguments, "--target", "0.999")
    assert "s to 0.999" in never
    assert never.count("never") == 2
    code, out, err = call(capsys, *arguments, "--json")
    whole = json.loads(out)
    assert (code, err) == (0, "")
    assert [row["label"] for row in whole["rows"]] == ["gentle", "fedbuff"]
    assert whole["rows"][1]["difference"] is None
    gaps = [
        a["metrics"]["accuracy"]["last_5_mean"] - b["metrics"]["accuracy"]["last_5_mean"]
        for a, b in ((r, s) for r in whole["runs"] for s in whole["runs"])
        if a["seed"] == b["seed"] and (a["algorithm"], b["algorithm"]) == ("fedbuff+echo", "fedbuff")
    ]
    assert whole["metrics"][0]["name"] == "accuracy"
    assert whole["rows"][0]["difference"]["verdict"] == "too few seeds"
    assert whole["rows"][0]["difference"]["mean"] == pytest.approx(sum(gaps) / 2)
    assert [run["run_dir"] for run in whole["runs"]] == [
        f"all/{method}/seed-{seed}" for seed in (0, 1) for method in ("gentle", "fedbuff")
    ]

    for left in Path("all/gentle/seed-1").iterdir():  # as if that run had been killed before its first checkpoint
        if left.name in ("summary.json", "model.safetensors"):
            left.unlink()
    Path(config).write_text(TEXT + '[variants.later]\nmethod = "fedbuff"\n[records]\ncheckpoint_every_s = 5.0\n')
    before = Path("all/fedbuff/seed-0/summary.json").stat().st_mtime_ns
    code, out, _ = call(capsys, *arguments, "--json")
    again = json.loads(out)
    assert code == 0
    assert [run["model_sha256"] for run in again["runs"]] == [run["model_sha256"] for run in whole["runs"]]
    assert Path("all/fedbuff/seed-0/summary.json").stat().st_mtime_ns == before

    code, out, err = call(capsys, *arguments, "--json", "--set", "client.lr=0.01")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "holds a run with other settings; remove it, or give another folder with --out" in err


def test_compare_interrupted(config: str, capsys: Captured) -> None:
    """Ctrl-C reaches the whole process group; what was done stays done."""
    text = TEXT.replace("updates = 40", "updates = 20000")
    Path(config).write_text(text)
    arguments = ["compare", config, "--algorithms", "fedbuff,ca2fl", "--seeds", "0", "--jobs", "2", "--out", "all"]
    child = process(*arguments, start_new_session=True)
    while len(list(Path().glob("all/*/*/checkpoint-*.safetensors"))) < 2 and child.poll() is None:
        time.sleep(0.01)
    time.sleep(0.2)
    os.killpg(child.pid, signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (130, "")
    assert err == "fedecho: stopped; the same command continues it\n"
    for folder in Path("all").glob("*/*"):
        assert (folder / "config.toml").exists()
        assert not (folder / "summary.json").exists()
        assert max(int(path.stem[-9:]) for path in folder.glob("checkpoint-*.safetensors")) > 0


def test_compare_with_a_run_killed(config: str) -> None:
    """A run's process that is killed, as for memory, ends the comparison with a line, not a traceback."""
    Path("my_rooms.py").write_text(OWN + "\nimport os, signal\ndef die():\n    os.kill(os.getpid(), signal.SIGKILL)\n")
    child = process("compare", config, "--algorithms", "fedbuff", "--seeds", "0", "--set", "data.dataset=my_rooms:die")
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (2, "")
    assert err.splitlines()[-1].startswith("fedecho: a run's process was killed (out of memory?)")
    assert "Traceback" not in err


def test_a_users_own(own: str, capsys: Captured) -> None:
    """Data set, model and rule from the current directory; what they print does not touch the document."""
    Path("own.toml").write_text(
        Config(ExperimentConfig(updates=20), algorithm=FedBuff(2)).to_toml().replace('name = "fedbuff"', "")
    )
    sets = ["data.dataset=my_rooms:stripes", "data.clients=5", "data.unlabeled_size=9", "data.alpha=10.0"]
    sets += ["model.name=my_rooms:Net", "model.width=3", "server.concurrency=3"]
    flags = [part for text in sets for part in ("--set", text)]
    code, out, err = call(
        capsys, "run", "own.toml", *flags, "--algorithm", "my_rooms:Half+echo", "--json", "--out", "r"
    )
    assert code == 0, err
    found = json.loads(out)
    assert (found["algorithm"], found["dataset"]) == ("half+echo", "my_rooms:stripes")
    assert "making my data" in err
    assert json.loads(call(capsys, "replay", "r", "--json")[1])["matches"]
    _, out, _ = call(capsys, "run", "own.toml", *flags, "--algorithm", "fedecho", "--json")
    assert json.loads(out)["model_sha256"] != found["model_sha256"]
    # The same in the processes of a comparison, from the installed command, which has no current directory on its path.
    child = process("compare", "own.toml", *flags, "--algorithms", "my_rooms:Half+echo", "--seeds", "0", "--json")
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    (run,) = json.loads(out)["runs"]
    assert run["model_sha256"] == found["model_sha256"]
    assert run["run_dir"] is None


def test_the_package_is_run_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "fedecho", "list", "executors"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "vectorized" in done.stdout
