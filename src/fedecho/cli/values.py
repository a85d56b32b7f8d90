"""Values of options, and output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..core.errors import ConfigError


def comma_separated(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"{option} is {text!r}; give different names separated by commas")
    return names


def seed_numbers(text: str) -> list[int]:
    try:
        seeds = [int(name) for name in comma_separated(text, "--seeds")]
    except ValueError:
        seeds = []
    if not seeds or len(set(seeds)) != len(seeds):
        raise ConfigError(f"--seeds is {text!r}; give different whole numbers separated by commas, such as 0,1,2")
    return seeds


def write_out(what: str | Mapping[str, Any]) -> None:
    print(what if isinstance(what, str) else json.dumps(what, indent=2))
