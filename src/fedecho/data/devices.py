"""How fast real phones and tablets are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from .fetch import fetch
from .source import damaged


def device_fps(cache: Path | None = None) -> np.ndarray:
    """How fast real phones and tablets are: one frame rate per device, in frames/s, float64 [822], ordered by name.

    The detect-gpu benchmarks, one WebGL scene each. A device listed several times (mostly the same measurement under
    several GPU names) counts once, by its median; the one device measured at 0 is dropped.
    """
    folder = fetch("phones", cache)
    rates: dict[str, list[float]] = {}
    try:
        for path in sorted(folder.glob("m-*.json")):
            for entry in json.loads(path.read_bytes())[1:]:  # the first is the format's version
                for _width, _height, fps, device in entry[4]:
                    if fps > 0:
                        rates.setdefault(device, []).append(fps)
    except (ValueError, LookupError, TypeError) as error:
        raise damaged(folder, error) from error
    if not rates:
        raise damaged(folder, "no device in it")
    return np.array([np.median(rates[device]) for device in sorted(rates)], dtype=np.float64)
