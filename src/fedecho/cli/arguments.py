"""Reading the values of options. Nothing slow is imported, so that a wrong value is answered at once."""

from __future__ import annotations

import re
from pathlib import Path

from ..core.errors import ConfigError, RecordError


def parse_names(text: str, option: str) -> list[str]:
    """Names separated by commas.

    Raises:
        ConfigError: when there is none, or one comes twice.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"{option} is {text!r}; give different names separated by commas")
    return names


def parse_seeds(text: str) -> list[int]:
    """Seeds as "0,1,2", as a range "0-4", or both.

    Raises:
        ConfigError: for anything else, and when a seed comes twice.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if match is None:
            raise _bad_seeds(text)
        first, last = match[1], match[2] or match[1]
        seeds += range(int(first), int(last) + 1)
    if not seeds or len(set(seeds)) != len(seeds):
        raise _bad_seeds(text)
    return seeds


def _bad_seeds(text: str) -> ConfigError:
    return ConfigError(f"--seeds is {text!r}; give different whole numbers such as 0,1,2, or a range such as 0-4")


def require_file(path: str) -> None:
    """See that a file can be read, before anything slow is imported.

    Raises:
        ConfigError: when it cannot.
    """
    try:
        with Path(path).open("rb"):
            pass
    except OSError as fault:
        raise ConfigError(f"{path} cannot be read ({fault.strerror}); give the path of a TOML file") from None


def require_run(path: str) -> None:
    """See that a folder holds a run, before anything slow is imported.

    Raises:
        RecordError: when it does not.
    """
    if not (Path(path) / "config.toml").is_file():
        raise RecordError(f"{path} is not a run folder (it has no config.toml); give the folder of a run")
