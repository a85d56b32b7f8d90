"""A function or a class in place of its `module:name`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from fedecho import Config, ConfigError
from fedecho.config.tables import ExperimentConfig, ModelConfig
from fedecho.core.imports import import_object, object_name
from fedecho.data.federation import DataConfig


class Net(nn.Module):
    """A model of one's own."""


def load() -> Any:
    """Data of one's own."""


def test_a_function_and_a_class_are_kept_by_their_names() -> None:
    data, model = DataConfig(load), ModelConfig(Net)  # type: ignore[arg-type]
    assert (data.dataset, model.name) == (f"{__name__}:load", f"{__name__}:Net")
    assert import_object(data.dataset, "data.dataset") is load
    assert import_object(model.name, "model.name") is Net
    config = Config(ExperimentConfig(updates=1), data=data, model=model)
    assert Config.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("thing", [lambda: None, type("Net", (), {"__qualname__": "f.<locals>.Net"})])
def test_what_has_no_importable_name_is_refused(thing: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"^data\.dataset is .*, which cannot be imported by a name; define it at the"
    ):
        DataConfig(thing)


SCRIPT = """
from fedecho.core.errors import ConfigError
from fedecho.core.imports import object_name

def load(): ...

if __name__ == "__main__":
    try:
        print(object_name(load, "data.dataset"))
    except ConfigError as fault:
        print(fault)
"""


def test_a_function_of_a_script_is_named_by_its_file_and_one_of_a_session_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SCRIPT, encoding="utf-8")

    def output(*command: str) -> str:
        return subprocess.run(
            [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert output("mine.py") == output("-m", "mine") == "mine:load"
    assert "cannot be imported by a name" in output("-c", SCRIPT)
    assert object_name(load, "data.dataset") == f"{__name__}:load"
