"""Reading what comes off the wire: what a header claims is checked before anything is decoded or allocated."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import Array, RecordDict
from torch import Tensor

LONGEST_HEADER = 10_000
"""Bytes of an array's header, at most."""
MOST_METRICS = 60
"""Metrics of one answer that are kept, at most."""
LONGEST_NAME = 80
"""Characters of a name that came from a client, at most."""
RESERVED = ("num_examples", "waited_s", "change_norm")
"""What the server's records hold of an update besides its client's metrics."""
LEGACY_METRICS = "fitres.metrics"
"""The config record in which a `NumPyClient` puts its metrics."""

_HEADERS: dict[tuple[int, int], Callable[..., tuple[tuple[int, ...], bool, np.dtype[Any]]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Unreadable(Exception):
    """An answer that is not what it should be; the message says why."""


def printable(text: object, longest: int = LONGEST_NAME) -> str:
    """A text from a client in one line without control characters; a long one keeps its end."""
    end = str(text)[-10 * longest :]  # of a name of megabytes only this much is looked at
    line = "".join(character if character.isprintable() else " " for character in end)
    line = " ".join(line.split())
    return line if len(line) <= longest else "…" + line[1 - longest :]


def decode(array: Array, name: str, shape: tuple[int, ...], floating: bool = True) -> Tensor:
    """The tensor that a NumPy-serialised array holds, a copy in memory of its own.

    Args:
        array: as it came.
        name: for messages.
        shape: what it must have.
        floating: whether it must hold floating-point numbers, else whole numbers or truth values.

    Raises:
        Unreadable: when it is not an array of that shape and kind, or its header promises other than it carries.
    """
    name = printable(name)
    file = io.BytesIO(array.data)
    try:
        read_header = _HEADERS[np.lib.format.read_magic(file)]
        got, fortran, dtype = read_header(file, max_header_size=LONGEST_HEADER)
    except Exception as error:  # bytes that are no array
        raise Unreadable(f"array {name!r} cannot be read: {printable(error, 200)}") from None
    if dtype.kind not in ("f" if floating else "iub") or got != shape:
        wanted = "floating-point" if floating else "whole"
        shown = printable(f"{dtype}{list(got)}")
        raise Unreadable(f"array {name!r} is {shown}, not {wanted} numbers {list(shape)}")
    carried, promised = len(array.data) - file.tell(), math.prod(got) * dtype.itemsize
    if carried != promised:
        raise Unreadable(f"array {name!r} promises {promised} bytes, and carries {carried}")
    flat = np.frombuffer(array.data, dtype, offset=file.tell())
    values = flat.reshape(got, order="F" if fortran else "C")
    return torch.from_numpy(np.array(values, dtype=dtype.newbyteorder("="), order="C"))


def metrics_of(content: RecordDict) -> dict[str, float]:
    """The finite numbers in an answer's metric records, at most `MOST_METRICS`, under printable names. A name that the
    server's records use for an update gets `client_` before it."""
    metrics: dict[str, float] = {}
    records: list[Mapping[str, object]] = [*content.metric_records.values()]
    if LEGACY_METRICS in content.config_records:
        records.append(content.config_records[LEGACY_METRICS])
    for name, value in _numbers(records):
        if len(metrics) == MOST_METRICS:
            break
        if math.isfinite(value):
            name = printable(name)
            metrics[f"client_{name}" if name in RESERVED else name] = value
    return metrics


def metric(content: RecordDict, name: str) -> float:
    """The number called `name` in an answer's metric records; NaN where there is none."""
    return next((value for key, value in _numbers(content.metric_records.values()) if key == name), math.nan)


def _numbers(records: Iterable[Mapping[str, object]]) -> Iterable[tuple[str, float]]:
    for record in records:
        for name, value in record.items():
            if isinstance(value, int | float):
                try:
                    yield name, float(value)
                except OverflowError:
                    yield name, math.inf
