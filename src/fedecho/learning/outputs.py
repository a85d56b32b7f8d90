"""The one tensor of outputs that a module returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..core.errors import ConfigError


def output_tensor(returned: Any) -> Tensor:
    """What the objective takes of what a module returned: the tensor itself, `logits` of an object or a dictionary, or
    the first of a tuple or list.

    Raises:
        ConfigError: when there is no such tensor.
    """
    if isinstance(returned, Tensor):
        return returned
    logits = returned.get("logits") if isinstance(returned, Mapping) else getattr(returned, "logits", None)
    if logits is None and isinstance(returned, list | tuple) and returned:
        logits = returned[0]
    if isinstance(logits, Tensor):
        return logits
    raise ConfigError(
        f"the model returns a {type(returned).__name__} without logits; let its forward return a tensor, a tuple that "
        "begins with one, or a dictionary or object with `logits`"
    )
