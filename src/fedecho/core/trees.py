"""Trees of plain values (the evolving state of algorithms and stages) to tensors plus JSON, and back.

A tree is made of tensors, numbers, strings, None, tuples, lists, dicts and dataclasses. The JSON half names a dataclass
by `module:Class`; reading looks it up among modules that are already imported and never imports or unpickles anything.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .errors import RecordError


def flatten(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """Split a tree into a JSON-able skeleton and its tensors by path."""
    tensors: dict[str, Tensor] = {}
    return _flatten(tree, "", tensors, {}), tensors


def _flatten(node: Any, path: str, tensors: dict[str, Tensor], paths: dict[int, str]) -> Any:
    if node is None or isinstance(node, bool | int | float | str):
        return node
    if isinstance(node, Tensor):
        if id(node) not in paths:  # the current model is often also a version in flight: written once
            while path in tensors:  # keys such as 1 and "1" give the same path
                path += "'"
            paths[id(node)] = path
            tensors[path] = node
        return {"tensor": paths[id(node)]}
    if isinstance(node, tuple | list):
        items = [_flatten(item, f"{path}/{i}", tensors, paths) for i, item in enumerate(node)]
        return {"tuple" if isinstance(node, tuple) else "list": items}
    if isinstance(node, Mapping):
        # pairs, because keys are often integers and their order is part of the value
        return {"dict": [[key, _flatten(value, f"{path}/{key}", tensors, paths)] for key, value in node.items()]}
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        cls = type(node)
        fields = {
            f.name: _flatten(getattr(node, f.name), f"{path}/{f.name}", tensors, paths) for f in dataclasses.fields(cls)
        }
        return {"dataclass": f"{cls.__module__}:{cls.__qualname__}", "fields": fields}
    raise TypeError(f"state at {path or '/'} is a {type(node).__name__}: use tensors, numbers, containers, dataclasses")


def unflatten(skeleton: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The tree that `flatten` split. Raises RecordError when a class it names is unknown here."""
    if not isinstance(skeleton, dict):
        return skeleton
    if "tensor" in skeleton:
        return tensors[skeleton["tensor"]]
    if "tuple" in skeleton:
        return tuple(unflatten(item, tensors) for item in skeleton["tuple"])
    if "list" in skeleton:
        return [unflatten(item, tensors) for item in skeleton["list"]]
    if "dict" in skeleton:
        return {key: unflatten(value, tensors) for key, value in skeleton["dict"]}
    module, _, name = skeleton["dataclass"].partition(":")
    cls: Any = sys.modules.get(module)
    for part in name.split("."):
        cls = getattr(cls, part, None)
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise RecordError(f"the checkpoint holds a {skeleton['dataclass']}, which this version does not have")
    return cls(**{key: unflatten(value, tensors) for key, value in skeleton["fields"].items()})
