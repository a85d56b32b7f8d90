"""Immutable mappings: against dictionaries, and older copies that later ones do not change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedecho.stages.persistent import RadixTree, RecencyMap

NUMBERS = st.integers(0, 40) | st.integers(1000, 1100) | st.integers(0, 2**40)


@given(st.lists(st.tuples(NUMBERS, st.booleans()), max_size=60))
def test_a_radix_tree_is_a_sorted_dictionary(changes: list[tuple[int, bool]]) -> None:
    tree: RadixTree[int] = RadixTree()
    expected: dict[int, int] = {}
    for step, (number, remove) in enumerate(changes):
        if remove and number in expected:
            del expected[number]
            tree = tree.without(number)
        else:
            expected[number] = step
            tree = tree.set(number, step)
        assert tree.get(number) == expected.get(number)
        assert list(tree.values()) == [expected[key] for key in sorted(expected)]
    assert tree.get(-1) is None
    assert list(RadixTree.of(expected).values()) == list(tree.values())
    assert all(tree.get(key) == value for key, value in expected.items())


@given(st.lists(st.tuples(NUMBERS, st.booleans()), max_size=60))
def test_a_recency_map_is_a_dictionary_in_the_order_of_writing_and_all_its_versions_stay(
    changes: list[tuple[int, bool]],
) -> None:
    versions: list[tuple[RecencyMap[int], list[tuple[int, int]]]] = [(RecencyMap(), [])]
    expected: dict[int, int] = {}
    for step, (client, remove) in enumerate(changes):
        current = versions[-1][0]
        if remove and client in expected:
            del expected[client]
            current = current.without(client)
        else:
            expected.pop(client, None)
            expected[client] = step
            current = current.put(client, step)
        versions.append((current, list(expected.items())))
    for version, items in versions:
        assert list(version.items()) == items
        assert len(version) == len(items)
        assert version == dict(items)
        assert list(RecencyMap(dict(items)).items()) == items


def test_a_branch_from_an_older_version_does_not_disturb_the_newer_one() -> None:
    old = RecencyMap({1: "a", 2: "b"})
    left, right = old.put(1, "c"), old.without(2).put(3, "d")
    assert list(old.items()) == [(1, "a"), (2, "b")]
    assert list(left.items()) == [(2, "b"), (1, "c")]
    assert list(right.items()) == [(1, "a"), (3, "d")]


def test_what_is_not_there_and_what_cannot_be() -> None:
    values = RecencyMap({4: 1})
    assert RecencyMap.of(values) is values
    for client in (-1, 3, 10**9):
        assert client not in values
        with pytest.raises(KeyError):
            values.without(client)
    with pytest.raises(ValueError, match="counted from 0"):
        values.put(-1, 2)
    with pytest.raises(ValueError, match="counted from 0"):
        RecencyMap({3: 1, -1: 2})
