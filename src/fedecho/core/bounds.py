"""The numbers that a setting may take, declared beside the field with annotated-types.

    from annotated_types import Ge, Gt, Interval

    @dataclass(frozen=True)
    class Rule:
        lr: Annotated[float, Gt(0)] = 0.1
        share: Annotated[float, Interval(ge=0, le=1)] = 0.5
        max_staleness: Annotated[int, Ge(0)] | None = None

`settings_faults("algorithm", Rule(lr=-1))` is then ["algorithm.lr is -1; it must be above 0 and finite"].

`Gt`, `Ge`, `Lt`, `Le` and `Interval` are checked, also inside tuples and beside None. A float must be finite unless its
field is marked `AllowInf()`. What other marks say is documentation alone.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt

from .errors import ConfigError

UNIONS = (Union, types.UnionType)


@dataclass(frozen=True)
class AllowInf:
    """Marks a float that may be infinite: `limit: Annotated[float, Gt(0), AllowInf()] = math.inf`."""


def field_types(cls: type) -> dict[str, Any]:
    """The type of each field of a dataclass with its marks, by the field's name.

    Raises:
        ConfigError: where a type cannot be evaluated.
    """
    try:
        hints = get_type_hints(cls, include_extras=True)
    except (NameError, TypeError) as error:
        raise ConfigError(
            f"the settings of {cls.__name__} have a type that cannot be evaluated ({error}); import it at the top of "
            f"the module {cls.__module__}"
        ) from None
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def settings_faults(path: str, settings: Any) -> list[str]:
    """A line for each number out of its bounds in a dataclass, and in the dataclasses and tuples that it holds.

    Args:
        path: the table's name, with which each line begins.
        settings: an instance of a dataclass.

    Raises:
        ConfigError: where a field's type cannot be evaluated.
    """
    return [
        fault
        for name, hint in field_types(type(settings)).items()
        for fault in value_faults(f"{path}.{name}", hint, getattr(settings, name))
    ]


def value_faults(path: str, hint: Any, value: Any) -> list[str]:
    """The same for one value whose field has the type `hint`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return settings_faults(path, value)
    marks: tuple[Any, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *rest = get_args(hint)
        marks = tuple(_unpacked(rest))
    if get_origin(hint) in UNIONS:
        inner = [Annotated[option, marks] if marks else option for option in get_args(hint)]
        return [fault for option in inner for fault in value_faults(path, option, value)]
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        each = get_args(hint)
        each = each[:1] * len(value) if each[1:] == (Ellipsis,) else each
        return [fault for kind, item in zip(each, value, strict=False) for fault in value_faults(path, kind, item)]
    if hint in (int, float) and isinstance(value, int | float) and not isinstance(value, bool):
        return _number_faults(path, hint, marks, value)
    return []


def _unpacked(marks: Iterable[Any]) -> Iterator[Any]:
    """The single marks of grouped ones: an `Interval(ge=0, le=1)` is `Ge(0)` and `Le(1)`."""
    for mark in marks:
        if isinstance(mark, tuple | GroupedMetadata):
            yield from _unpacked(mark)
        else:
            yield mark


def _number_faults(path: str, kind: type, marks: tuple[Any, ...], value: float) -> list[str]:
    finite = kind is float and not any(isinstance(mark, AllowInf) for mark in marks)
    within = all(_holds(mark, value) for mark in marks) and not math.isnan(value)
    if within and (math.isfinite(value) or not finite):
        return []
    return [f"{path} is {value}; it must be {_in_words(marks, finite)}"]


def _holds(mark: Any, value: Any) -> bool:
    match mark:
        case Gt(gt=bound):
            return bool(value > bound)
        case Ge(ge=bound):
            return bool(value >= bound)
        case Lt(lt=bound):
            return bool(value < bound)
        case Le(le=bound):
            return bool(value <= bound)
    return True


def _in_words(marks: tuple[Any, ...], finite: bool) -> str:
    """The bounds as words: "above 0 and finite", "from 0 to 1"."""
    low = [f"above {mark.gt}" for mark in marks if isinstance(mark, Gt)]
    low += [f"at least {mark.ge}" for mark in marks if isinstance(mark, Ge)]
    high = [f"below {mark.lt}" for mark in marks if isinstance(mark, Lt)]
    high += [f"at most {mark.le}" for mark in marks if isinstance(mark, Le)]
    closed = [mark.ge for mark in marks if isinstance(mark, Ge)] + [mark.le for mark in marks if isinstance(mark, Le)]
    if len(low) == len(high) == 1 and len(closed) == 2:
        return f"from {closed[0]} to {closed[1]}"
    words = low + high + (["finite"] if finite and not (low and high) else [])
    return " and ".join(words) or "a number"
