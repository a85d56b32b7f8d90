"""The command line: a contract that scripts rely on."""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedecho import Config
from fedecho.algorithms.fedbuff import FedBuff
from fedecho.cli.arguments import parse_seeds
from fedecho.cli.main import main
from fedecho.cli.options import parser
from fedecho.cli.progress import header, line
from fedecho.cli.tables import PROFILE
from fedecho.config.tables import ExperimentConfig
from fedecho.core.errors import ConfigError
from fedecho.objectives.classification import Classification
from fedecho.objectives.language import Language
from fedecho.runs.schema import BOOKKEEPING

Captured = pytest.CaptureFixture[str]

HEADER = header(Classification.metrics)

TEXT = """
[experiment]
updates = 40
eval_every = 10
[data]
clients = 10
unlabeled_size = 50
[model]
hidden = [8]
[client]
epochs = 1
[server]
concurrency = 5
buffer_size = 3
[population]
name = "mild"
class_counts = [5, 3, 2]
[variants.gentle]
method = "fedecho"
stages.lr = 0.01
"""

OWN = """
from dataclasses import dataclass
import torch
from fedecho.algorithms.fedbuff import FedBuff

print("importing my module")

def stripes():
    print("making my data")
    x = torch.linspace(-1, 1, 240).reshape(120, 2)
    y = torch.arange(120) % 3
    return x[:90], y[:90], x[90:], y[90:]

class Net(torch.nn.Module):
    def __init__(self, shape, classes, width=4):
        super().__init__()
        print("making my model")
        self.layers = torch.nn.Sequential(torch.nn.Linear(shape[0], width), torch.nn.Linear(width, classes))

    def forward(self, x):
        return self.layers(x)

@dataclass(frozen=True)
class Half(FedBuff):
    name = "half"

    def aggregate(self, state, weights, scale):
        return super().aggregate(state, weights, scale / 2)

broken = 3
"""

BROKEN = "raise RuntimeError('my module is broken')\n"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A configuration in the current directory."""
    monkeypatch.chdir(tmp_path)
    Path("c.toml").write_text(TEXT)
    return "c.toml"


@pytest.fixture
def own(config: str) -> Iterator[str]:
    """A configuration beside a user's own module."""
    Path("my_rooms.py").write_text(OWN)
    Path("my_broken.py").write_text(BROKEN)
    yield config
    sys.modules.pop("my_rooms", None)


def call(capsys: Captured, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of `main`."""
    capsys.readouterr()
    try:
        code = main(arguments)
    except SystemExit as left:  # argparse's way
        code = int(left.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def process(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", "import sys; from fedecho.cli.main import main; sys.exit(main())"]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONSAFEPATH": "1",
    }  # as the installed command: no "" in path
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    return subprocess.Popen([*command, *arguments], **{**pipes, **options})


# ---------------------------------------------------------------------------------------------------------------- run


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


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "errors"),
    [
        (["run", "none.toml"], ["none.toml cannot be read (No such file or directory); give the path of a TOML file"]),
        (["run", "."], [". cannot be read (Is a directory); give the path of a TOML file"]),
        (["run", "c.toml", "--set", "lr=1"], ["--set 'lr=1' is not `table.key=value`, for example client.lr=0.05"]),
        (
            ["run", "c.toml", "--set", "client.lr=0", "--set", "server.concurrency=11"],
            ["client.lr is 0.0; it must be above 0 and finite", "server.concurrency (11) exceeds data.clients (10): "],
        ),
        (["run", "c.toml", "--out", "c.toml"], ["c.toml cannot be written ("]),
        (["run", "c.toml", "--set", "data.dataset=digit"], ["`dataset` ('digit') is unknown; choose from "]),
        (["run", "c.toml", "--set", "model.depth=3"], ["[model] mlp cannot be built: "]),
        (["run", "c.toml", "--set", "experiment.device=gpu"], ["experiment.device 'gpu' cannot be used ("]),
        (["run", "c.toml", "--algorithm", "fedbuf"], ["method 'fedbuf' is unknown (did you mean 'fedbuff'?)"]),
        (["resume", "nowhere"], ["nowhere is not a run folder (it has no config.toml); give the folder of a run"]),
        (["replay", "nowhere"], ["nowhere is not a run folder"]),
        (["list", "modles"], ["there is no list of 'modles'; there are algorithms, stages, "]),
        (["data", "fetch", "mnits", "digits"], ["'mnits' cannot be fetched; there are ", "'digits' cannot be fetched"]),
        (["compare", "c.toml", "--algorithms", "fedbuff,fedbuff"], ["--algorithms is 'fedbuff,fedbuff'; give"]),
        (["compare", "c.toml", "--algorithms", "fedbuff", "--seeds", "a"], ["--seeds is 'a'; give different whole"]),
        (["compare", "c.toml", "--algorithms", "fedbuff", "--seeds", "1,01"], ["--seeds is '1,01'; give different"]),
        (["compare", "c.toml", "--algorithms", "fedbuff", "--jobs", "0"], ["--jobs is 0; give 1 or more"]),
        (["compare", "c.toml", "--algorithms", "fedbuff", "--reference", "ca2fl"], ["--reference is 'ca2fl'; give"]),
        (["run", "c.toml", "--algorithm", "my_broken:Rule"], ["algorithm 'my_broken:Rule' cannot be imported ("]),
        (["run", "c.toml", "--algorithm", "my_rooms:broken"], ["algorithm.name 'my_rooms:broken' is not a dataclass"]),
        (["run", "c.toml", "--set", "model.name=my_rooms:stripes"], ["[model] my_rooms:stripes cannot be built: "]),
        (["run", "c.toml", "--set", "data.dataset=my_rooms:Net"], ["my_rooms:Net: the function raised TypeError: "]),
    ],
)  # fmt: skip
def test_bad_input(arguments: list[str], errors: list[str], own: str, capsys: Captured) -> None:
    """Exit code 2 and one clear line for each fault, on standard error alone."""
    code, out, err = call(capsys, *arguments, *(["--json"] if arguments[0] in ("run", "compare") else []))
    shown = [text for text in err.splitlines() if not text.startswith(("importing my", "making my"))]
    assert (code, out) == (2, "")
    assert len(shown) == len(errors), err
    for text, start in zip(shown, errors, strict=True):
        assert text.startswith(f"fedecho: {start}")


@pytest.mark.parametrize("arguments", [[], ["runn"], ["run"], ["compare", "c.toml"], ["data"]])
def test_bad_usage(arguments: list[str], config: str, capsys: Captured) -> None:
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, "")
    assert "error: " in err.splitlines()[-1]


def test_a_run_that_refuses_most_says_so_at_once_and_in_its_summary(config: str, capsys: Captured) -> None:
    code, out, err = call(capsys, "run", config, "--set", "client.lr=150", "--set", "server.concurrency=10")
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
    assert err.startswith("fedecho: the last 1000 tasks were all lost or refused (the last one: ")
    assert err.count("\n") == 1


def test_debug_shows_the_traceback(own: str, capsys: Captured) -> None:
    """Wherever the option stands, and with what `raise … from None` hides."""
    arguments = ["run", own, "--algorithm", "my_broken:Rule"]
    for place in (0, 1, 4):
        code, out, err = call(capsys, *arguments[:place], "--debug", *arguments[place:])
        assert (code, out) == (2, "")
        assert "Traceback (most recent call last):" in err
        assert "RuntimeError: my module is broken" in err
        assert 'my_broken.py", line 1' in err
        assert err.splitlines()[-1].startswith("fedecho: algorithm 'my_broken:Rule' cannot be imported (")
    assert "Traceback" not in call(capsys, *arguments)[2]


def test_every_option_has_help_and_says_its_default() -> None:
    commands = [action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)]
    options = [(name, action) for name, command in commands[0].choices.items() for action in command._actions]
    assert len(options) > 40
    for name, action in options:
        assert action.help, f"{name} {action.dest}"
        if action.option_strings and action.dest != "help":
            assert "default:" in action.help or "(required)" in action.help, f"{name} {action.dest}"
            if isinstance(action.default, str) and action.default != argparse.SUPPRESS:
                assert f"(default: {action.default})" in action.help, f"{name} {action.dest}"


@pytest.mark.parametrize(
    ("text", "seeds"), [("0", [0]), ("0-4", [0, 1, 2, 3, 4]), ("7,0-2", [7, 0, 1, 2]), (" 1 , 3 - 4 ", [1, 3, 4])]
)
def test_seeds(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1,", "4-2", "1-", "-1", "0-3,2", "1.5", "1,01"])
def test_seeds_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="--seeds is "):
        parse_seeds(text)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["run", "--wrong"], ["run", "none.toml"], ["resume", "nowhere"],
                  ["compare", "none.toml", "--algorithm", "a,b"], ["compare", "c.toml", "--algorithms", "a", "--seeds", "x"],
                  ["status", "nowhere"], ["report", "nowhere"]],
)  # fmt: skip
def test_torch_is_not_imported_for_help_and_errors_of_usage(arguments: list[str], config: str) -> None:
    script = (
        "import sys; from fedecho.cli.main import main\n"
        "try: code = main()\n"
        "except SystemExit as left: code = left.code\n"
        "assert code == (0 if sys.argv[1].startswith('--') else 2), code\n"
        "slow = {'torch', 'numpy', 'rich', 'scipy', 'sklearn'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


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


# --------------------------------------------------------------------------------------------------------------- list


def test_list(capsys: Captured) -> None:
    code, out, err = call(capsys, "list")
    assert (code, err) == (0, "")
    rooms = [text for text in out.splitlines() if not text.startswith(" ")]
    parts = [call(capsys, "list", room) for room in rooms]
    assert all(code == 0 for code, _, _ in parts)
    assert "".join(part for _, part, _ in parts) == out
    assert {"algorithms", "stages", "objectives", "datasets", "models", "populations", "executors"} <= set(rooms)
    for name in (
        "fedbuff",
        "fedecho",
        "echo",
        "digits",
        "mlp",
        "large",
        "inline",
        "dirichlet_mix",
        "held_out",
        "regression",
    ):
        assert any(text.startswith(f"  {name} ") or text == f"  {name}" for text in out.splitlines()), name
    about = {text.split()[0]: text[20:].strip() for text in parts[rooms.index("algorithms")][1].splitlines()[1:]}
    assert all(about.values()), "every algorithm says in a line what it is"


def test_version(capsys: Captured) -> None:
    code, out, _ = call(capsys, "--version")
    assert (code, out.split()[0]) == (0, "fedecho")


# ------------------------------------------------------------------------------------------------------------ compare


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
        "mean ± standard deviation over 2 seeds",
    ]
    for table in tables[:4]:
        assert [line.split()[0] for line in table[1:]] == ["gentle", "fedbuff"]
    assert tables[0][1].count("±") + tables[1][1].count("±") == 6
    assert tables[3][0].split()[:3] == ["cost", "s", "to"]
    assert tables[4][1].startswith("gentle ")
    assert tables[4][1].count("too few seeds") == 2
    assert "accuracy: mean of the last 4 evaluations; there are no more after the first" in tables[5]
    assert "lower is better: loss, calibration error" in tables[5]
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


# ------------------------------------------------------------------------------------------------- from outside by name


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
