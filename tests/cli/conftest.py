"""Configurations in a folder of their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.command_line import BROKEN, OWN, TEXT


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
