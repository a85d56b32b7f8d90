"""Settings without effect: what one setting makes of others is known by the object that holds them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any


def unused_settings(settings: Any) -> dict[str, str]:
    """The settings of a dataclass without effect as its others are, each with the reason."""
    unused = getattr(settings, "unused_settings", None)
    return unused() if unused is not None else {}


def is_default(settings: Any, field: dataclasses.Field[Any]) -> bool:
    """Is this setting at its default?"""
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return bool(getattr(settings, field.name) == default)


def unused_lines(path: str, settings: Any, table: Mapping[str, Any] | None = None) -> Iterator[str]:
    """A line for each setting without effect that the user chose.

    Args:
        path: the table's name, with which each line begins.
        settings: a dataclass.
        table: the settings that are written in a file; None: those that differ from their default.
    """
    reasons = unused_settings(settings)
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.name in reasons and (not is_default(settings, field) if table is None else field.name in table):
            yield f"{path}.{field.name} ({value!r}) has no effect: {reasons[field.name]}; leave it out"
        if dataclasses.is_dataclass(value):
            inner = table.get(field.name, {}) if table is not None else None
            if inner is None or isinstance(inner, Mapping):
                yield from unused_lines(f"{path}.{field.name}", value, inner)


def all_unused(parts: Mapping[str, Any], tables: Mapping[str, Any] | None = None) -> list[str]:
    """The lines of all tables of a configuration.

    Args:
        parts: the tables as dataclasses, `stages` as a tuple of them.
        tables: the same as they are written in a file; None: compare with the defaults.
    """
    lines: list[str] = []
    for name, part in parts.items():
        written = None if tables is None else tables.get(name, {})
        several = part if isinstance(part, tuple) else (part,)
        tables_written = written if isinstance(written, list | tuple) else [written] * len(several)
        for settings, table in zip(several, tables_written, strict=False):
            if dataclasses.is_dataclass(settings):
                lines += unused_lines(name, settings, table)
    return lines
