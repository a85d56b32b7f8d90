"""Data sets from a user's own function."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import ConfigError, DataError
from ..core.imports import import_object
from .images import to_grey, to_pixels
from .source import Source, check_source, to_floats, to_targets

FORMS = (
    "return (train_x, train_y, test_x, test_y), or (train, test): two Datasets or pairs (x, y); `train` may also be a "
    "list of these, or a dictionary by name, one for each client"
)
"""What a user's function may return."""


def load_function(name: str, options: Mapping[str, Any] | None = None) -> Source:
    """The data set that the function `name` ("module:function") returns when it is called with `options`.

    The function returns (train_x, train_y, test_x, test_y), arrays or tensors; or (train, test), each a map-style
    Dataset of pairs (input, target) or a pair of arrays. Where clients have data of their own, `train` is a list of
    these, or a dictionary by the clients' names; `test` is one for all, or likewise one for each client.

    Raises:
        ConfigError: the function cannot be imported, or does not take these options.
        DataError: it raised, or what it returned does not fit.
    """
    function = import_object(name, "data.dataset")
    options = options or {}
    try:
        inspect.signature(function).bind(**options)
    except ValueError:
        pass  # some callables that are not written in Python have no signature
    except TypeError as error:
        raise ConfigError(
            f"data.options do not fit {name!r}: {error}; it takes {inspect.signature(function)}"
        ) from None
    try:
        returned = function(**options)
    except Exception as error:  # whatever the user's own code raises
        raise _raised(name, "the function", error) from error
    return _source(name, returned)


def _source(name: str, returned: Any) -> Source:
    if isinstance(returned, tuple | list) and len(returned) == 4:
        _check_order(name, returned)
        train, test = (returned[0], returned[1]), (returned[2], returned[3])
    elif isinstance(returned, tuple | list) and len(returned) == 2:
        train, test = returned
    else:
        what = f"{len(returned)} things" if isinstance(returned, tuple | list) else f"a {type(returned).__name__}"
        raise DataError(f"{name}: the function returned {what}; {FORMS}")
    clients = _clients(train)
    if clients is None:
        return _checked(name, _examples(name, train), _examples(name, test))
    parts = {client: _examples(name, part) for client, part in clients.items()}
    if not parts:
        raise DataError(f"{name}: the function returned data of no client; {FORMS}")
    test_clients = _clients(test)
    if test_clients is not None and test_clients.keys() != clients.keys():
        raise DataError(
            f"{name}: train data are of {len(clients)} clients, test data of {len(test_clients)}, or of others; give "
            "test data of the same clients, or one test set for all"
        )
    test_parts = {client: _examples(name, part) for client, part in (test_clients or {}).items()}
    source = _checked(
        name, _joined(name, list(parts.values())),
        _joined(name, list(test_parts.values())) if test_parts else _examples(name, test),
    )  # fmt: skip
    return replace(
        source,
        owners=_owners(parts),
        test_owners=_owners(test_parts) if test_parts else None,
        owner_names=tuple(parts),
        owners_are_clients=True,
    )


@dataclass(frozen=True)
class _Examples:
    """Inputs and targets, as many as each other."""

    inputs: Any
    targets: Any


def _checked(name: str, train: _Examples, test: _Examples) -> Source:
    y, test_y, label_names = to_targets(name, train.targets, test.targets)
    source = check_source(name, to_floats(name, train.inputs), y, to_floats(name, test.inputs), test_y)
    return replace(source, label_names=label_names)


def _check_order(name: str, arrays: Sequence[Any]) -> None:
    """Raise DataError where four arrays are in another order than (train_x, train_y, test_x, test_y)."""
    shapes = [np.shape(array) for array in arrays]
    if not all(shapes):
        return
    first, second, third, fourth = shapes
    paired = first[0] == second[0] and third[0] == fourth[0]
    crossed = first[0] == third[0] and second[0] == fourth[0]
    if crossed and len(second) > 1 and second[1:] == first[1:] and (not paired or len(third) == 1):
        raise DataError(
            f"{name}: the arrays look swapped: they have the shapes {', '.join(str(list(s)) for s in shapes)}, as "
            "(train_x, test_x, train_y, test_y) has; return (train_x, train_y, test_x, test_y)"
        )
    if paired and len(first) == 1 and len(second) > 1:
        raise DataError(
            f"{name}: the arrays look swapped: inputs {list(first)} and labels {list(second)}; return (train_x, "
            "train_y, test_x, test_y)"
        )


def _is_pair_of_arrays(part: Any) -> bool:
    """Whether it is (x, y), arrays of as many rows; else it may be a Dataset."""
    return (
        isinstance(part, tuple | list)
        and len(part) == 2
        and hasattr(part[0], "shape")
        and len(np.shape(part[0])) > 0
        and len(np.shape(part[1])) > 0
        and len(part[0]) == len(part[1])
    )


def _is_dataset(part: Any) -> bool:
    sequence = hasattr(part, "__len__") and hasattr(part, "__getitem__")
    return sequence and not isinstance(part, tuple | str | Mapping) and not hasattr(part, "shape")


def _clients(part: Any) -> dict[str, Any] | None:
    """Each client's data by its name; None where these are one data set."""
    if isinstance(part, Mapping):
        return {str(client): own for client, own in part.items()}
    if not isinstance(part, tuple | list) or _is_pair_of_arrays(part):
        return None
    if not all(_is_pair_of_arrays(own) or _is_dataset(own) for own in part):
        return None  # a list of examples is a data set, too
    return {str(number): own for number, own in enumerate(part)}


def _examples(name: str, part: Any) -> _Examples:
    if _is_pair_of_arrays(part) or (isinstance(part, tuple) and len(part) == 2 and hasattr(part[0], "shape")):
        return _Examples(part[0], part[1])
    if not _is_dataset(part):
        raise DataError(f"{name}: the function returned a {type(part).__name__} in place of a data set; {FORMS}")
    try:
        pairs = [(x, y) for x, y in (part[i] for i in range(len(part)))]
    except Exception as error:  # a Dataset is the user's code, too
        raise _raised(name, "reading its Dataset", error) from error
    inputs = [x for x, _ in pairs]
    try:
        if inputs and hasattr(inputs[0], "getbands"):  # images of PIL, without importing it
            stacked = to_pixels(inputs, "L" if all(map(to_grey, inputs)) else "RGB")
        else:
            stacked = np.stack([np.asarray(x) for x in inputs])
        return _Examples(stacked, np.stack([np.asarray(y) for _, y in pairs]))
    except ValueError as error:
        raise DataError(f"{name}: the examples of its Dataset do not fit together: {error}") from error


def _joined(name: str, parts: Sequence[_Examples]) -> _Examples:
    """The clients' examples, one client after the other."""
    try:
        inputs = np.concatenate([np.asarray(part.inputs) for part in parts])
        return _Examples(inputs, np.concatenate([np.asarray(part.targets) for part in parts]))
    except ValueError as error:
        raise DataError(f"{name}: the clients' data do not fit together: {error}; give all one shape") from error


def _owners(parts: Mapping[str, _Examples]) -> Tensor:
    """Whose each example is, [n] int64."""
    counts = torch.tensor([len(part.targets) for part in parts.values()])
    return torch.arange(len(parts)).repeat_interleave(counts)


def _raised(name: str, what: str, error: Exception) -> DataError:
    """The user's code raised: with the file and the line."""
    module = sys.modules.get(name.partition(":")[0])
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == getattr(module, "__file__", None)]
    frame = (own or frames)[-1]
    where = f"{Path(frame.filename).name}, line {frame.lineno}"
    return DataError(f"{name}: {what} raised {type(error).__name__}: {error} ({where}); mend it")
