"""Every data set that ships is found by its name, and says where its files come from."""

from __future__ import annotations

import re

import pytest

from fedecho.data.archive import COMMANDS
from fedecho.data.datasets import ImageDataset, TextDataset, shipped_datasets, text_datasets
from fedecho.data.fetch import ARCHIVES
from fedecho.data.sources import is_text, names


@pytest.mark.parametrize("name", shipped_datasets())
def test_a_data_set_is_found_by_its_name(name: str) -> None:
    entry = shipped_datasets()[name]
    assert entry.name == name
    assert name in names()
    assert isinstance(entry, ImageDataset | TextDataset)
    assert is_text(name) == isinstance(entry, TextDataset) == (name in text_datasets())
    assert entry.archive is None or entry.archive in ARCHIVES


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_is_pinned(name: str) -> None:
    archive = ARCHIVES[name]
    assert archive.name == name
    assert archive.client in COMMANDS
    assert re.fullmatch(r"[0-9a-f]{64}", archive.sha256)
    assert archive.files >= 1
    re.compile(archive.members)
    assert archive.client == "apt" or re.search(r"(==|@)\d", archive.package), "a version"
