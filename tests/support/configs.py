"""Reading configurations from plain tables."""

from __future__ import annotations

from typing import Any

import pytest

from fedecho import Config, ConfigError
from fedecho.config.toml import resolve

LIMIT = {"experiment": {"updates": 10}}


def faults(tables: dict[str, Any], **more: Any) -> tuple[str, ...]:
    """The lines with which these tables are refused."""
    with pytest.raises(ConfigError) as caught:
        Config.from_dict({**LIMIT, **tables, **more})
    return caught.value.faults


def chosen(tables: dict[str, Any], method: str | None = None, *overrides: str) -> Config:
    """The configuration of these tables with a method chosen and overrides put in."""
    return Config.from_dict(resolve({**LIMIT, **tables}, method, overrides))
