"""The front door: names are imported when they are first used, and type checkers see the same names."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fedecho


def test_type_checkers_see_the_names_that_are_imported_when_first_used() -> None:
    tree = ast.parse(Path(fedecho.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    seen = {
        node.module: tuple(alias.name for alias in node.names)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
    }
    assert seen == fedecho._HOMES
    assert sorted(name for names in seen.values() for name in names) == fedecho.__all__


def test_every_name_is_there_and_no_other() -> None:
    for name in fedecho.__all__:
        assert getattr(fedecho, name).__name__ == name
        assert name in dir(fedecho)
    with pytest.raises(AttributeError, match="module 'fedecho' has no attribute 'nothing'"):
        fedecho.nothing  # noqa: B018
    assert fedecho.run is fedecho.run


def test_importing_the_package_does_not_import_torch() -> None:
    script = "import fedecho, sys; assert 'torch' not in sys.modules; from fedecho import Config, run; run, Config.load"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
