"""Options, faults, help, lists: a contract that scripts rely on."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from cli.command_line import Captured, call
from fedecho.cli.arguments import parse_seeds
from fedecho.cli.options import parser
from fedecho.core.errors import ConfigError


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
        (["run", "c.toml", "--set", "data.dataset=digit"], ["data.dataset is 'digit' (did you mean 'digits'?); "]),
        (["run", "c.toml", "--set", "model.depth=3"], ["[model] mlp cannot be built: "]),
        (["run", "c.toml", "--set", "model.hidden=8"], ["[model] mlp cannot be built: `hidden` is 8; give a list of"]),
        (["run", "c.toml", "--set", "experiment.device=gpu"], ["experiment.device 'gpu' cannot be used ("]),
        (["run", "c.toml", "--algorithm", "fedbuf"], ["method 'fedbuf' is unknown (did you mean 'fedbuff'?)"]),
        (["run", "c.toml", "--algorithm", "fedbuff,ca2fl"], ["--algorithm is 'fedbuff,ca2fl'; run takes one method"]),
        (["report", "nowhere"], ["nowhere does not exist; give the folder of a run or a comparison"]),
        (["status", "nowhere"], ["nowhere is not a run folder (it has no config.toml); give the folder of a run"]),
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
        (["run", "c.toml", "--set", "data.dataset=my_rooms:Net"], ["data.options do not fit 'my_rooms:Net': "]),
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


def test_a_setting_without_effect_is_told_in_a_line(config: str) -> None:
    command = [sys.executable, "-m", "fedecho", "run", config, "--set", "executor.workers=2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (text,) = done.stderr.splitlines()
    assert text.startswith("fedecho: warning: executor.workers ")


def test_every_option_has_help_and_says_its_default() -> None:
    commands = [action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)]
    options = [(name, action) for name, command in commands[0].choices.items() for action in command._actions]
    assert len(options) > 40
    for name, action in options:
        assert action.help or action.dest == argparse.SUPPRESS, f"{name} {action.dest}"
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
    "arguments",
    [["--help"], ["--version"], ["run", "--wrong"], ["run", "none.toml"], ["resume", "nowhere"],
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
