"""The data sets that ship, one file each: what is fetched, and what reads it. They are found by scanning."""

from __future__ import annotations

from ...core.plugins import shipped_instances
from .base import ImageDataset as ImageDataset
from .base import ShippedDataset as ShippedDataset
from .base import TextDataset as TextDataset


def shipped_datasets() -> dict[str, ShippedDataset]:
    """Every data set that ships, by name."""
    return shipped_instances(__name__, ShippedDataset)


def text_datasets() -> dict[str, TextDataset]:
    """Those of text, by name."""
    return {name: entry for name, entry in shipped_datasets().items() if isinstance(entry, TextDataset)}
