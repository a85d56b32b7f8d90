from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedecho.core.errors import ConfigError, DataError
from fedecho.core.keys import Key
from fedecho.data.partition import _log_dirichlet, partition, schemes

BALANCED = np.repeat(np.arange(10), 6000)


def histogram(labels: np.ndarray, parts: list[np.ndarray]) -> np.ndarray:
    classes = np.unique(labels, return_inverse=True)[1]
    return np.stack([np.bincount(classes[part], minlength=classes.max() + 1) for part in parts])


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, int, int]:
    """(labels with unequal classes and gaps between the numbers, clients, seed)."""
    sizes = draw(st.lists(st.integers(5, 60), min_size=3, max_size=8))
    labels = np.repeat(np.arange(len(sizes)) * 3 + 1, sizes)
    seed = draw(st.integers(0, 2**32))
    return np.random.default_rng(seed).permutation(labels), draw(st.integers(2, 9)), seed


@pytest.mark.parametrize("scheme", schemes())
@settings(max_examples=25, deadline=None)
@given(problem=problems(), alpha=st.sampled_from([0.01, 0.1, 1.0, 100.0]))
def test_deals_valid_disjoint_reproducible_parts(
    scheme: str, problem: tuple[np.ndarray, int, int], alpha: float
) -> None:
    labels, clients, seed = problem
    classes = len(np.unique(labels))
    arguments = {"alpha": alpha, "slow": [0], "min_examples": 0, "classes_per_client": classes // 2 + 1}
    parts = partition(labels, clients, scheme, Key(seed), **arguments)
    assert len(parts) == clients
    assert all(part.dtype == np.int64 and (np.diff(part) > 0).all() for part in parts)
    dealt = np.concatenate(parts)
    assert len(np.unique(dealt)) == len(dealt)
    assert dealt.min() >= 0
    assert dealt.max() < len(labels)
    if scheme == "dirichlet_mix":
        assert {len(part) for part in parts} == {len(labels) // clients}
    else:
        assert len(dealt) == len(labels), "every class is conserved"
    if scheme == "iid":
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    again = partition(labels, clients, scheme, Key(seed), **arguments)
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))


@settings(max_examples=40, deadline=None)
@given(
    problem=problems(),
    coupling=st.floats(0.3, 1),
    slow_classes=st.integers(1, 2),
    slow=st.sets(st.integers(0, 8), min_size=1),
)
def test_coupled_gives_the_slow_clients_the_fraction_asked(
    problem: tuple[np.ndarray, int, int], coupling: float, slow_classes: int, slow: set[int]
) -> None:
    labels, clients, seed = problem
    members = sorted(client for client in slow if client < clients - 1) or [clients - 1]
    parts = partition(
        labels, clients, "coupled", Key(seed), alpha=1, slow=members, slow_classes=slow_classes, coupling=coupling,
        min_examples=0,
    )  # fmt: skip
    table = histogram(labels, parts)
    owned, total = table[members].sum(0), table.sum(0)
    chosen = owned > 0
    assert chosen.sum() == slow_classes
    assert (owned[chosen] == np.rint(coupling * total[chosen])).all()
    for group in (members, np.setdiff1d(np.arange(clients), members)):
        sizes = table[group].sum(1)
        assert sizes.max() - sizes.min() <= 1


@settings(max_examples=30, deadline=None)
@given(problem=problems(), each=st.integers(1, 3))
def test_pathological_gives_every_client_its_number_of_classes(problem: tuple[np.ndarray, int, int], each: int) -> None:
    labels, clients, seed = problem
    if clients * each < len(np.unique(labels)):
        with pytest.raises(ConfigError, match="nobody would hold some"):
            partition(labels, clients, "pathological", Key(seed), classes_per_client=each)
        return
    labels = np.tile(labels, 3)  # enough of every class for nine clients
    table = histogram(labels, partition(labels, clients, "pathological", Key(seed), classes_per_client=each))
    assert ((table > 0).sum(1) == each).all()
    holders = (table > 0).sum(0)
    assert holders.max() - holders.min() <= 1


@pytest.mark.parametrize("scheme", ["dirichlet", "dirichlet_mix", "quantity"])
def test_a_large_alpha_comes_near_iid_and_a_small_one_does_not(scheme: str) -> None:
    def distance(alpha: float) -> float:
        table = histogram(BALANCED, partition(BALANCED, 10, scheme, Key(3), alpha=alpha))
        return float(np.abs(table / 6000 - 0.1).max())

    assert distance(1e5) < 0.02 < 0.15 < distance(0.3)


def test_dirichlet_mix_follows_the_mixes_where_the_classes_suffice() -> None:
    """With alpha 0.1 a client's largest class holds about 0.72 of its mix; sharing full classes dilutes it somewhat."""
    table = histogram(BALANCED, partition(BALANCED, 100, "dirichlet_mix", Key(0), alpha=0.1))
    assert 0.5 < table.max(1).mean() / 600 < 0.8
    one_client_in_six = partition(BALANCED, 100, "dirichlet_mix", Key(0), alpha=0.1, max_examples=100)
    table = histogram(BALANCED, one_client_in_six)
    mixes = _log_dirichlet(Key(0).numpy(), 0.1, 100, 10)
    mixes = np.exp(mixes - mixes.max(1, keepdims=True))
    mixes /= mixes.sum(1, keepdims=True)
    assert np.abs(table / 100 - mixes).max() < 0.2, "nothing ran out, so only the multinomial's noise is left"


def test_dirichlet_mix_favours_no_client() -> None:
    """First and last clients get mixes equally pure (a deal in turn leaves the last with the remains)."""
    purity = np.mean(
        [histogram(BALANCED[::10], partition(BALANCED[::10], 60, "dirichlet_mix", Key(s))).max(1) for s in range(60)], 0
    )
    assert abs(purity[:20].mean() / purity[-20:].mean() - 1) < 0.06


def test_log_dirichlet_has_the_moments_of_the_dirichlet() -> None:
    logs = _log_dirichlet(Key(0).numpy(), 0.5, 20_000, 4)
    draws = np.exp(logs - logs.max(1, keepdims=True))
    draws /= draws.sum(1, keepdims=True)
    np.testing.assert_allclose(draws.mean(0), 0.25, atol=0.01)
    np.testing.assert_allclose(draws.var(0), 0.25 * 0.75 / 3, atol=0.003)


def test_dirichlet_mix_is_fast_and_survives_tiny_alphas() -> None:
    start = time.process_time()
    parts = partition(BALANCED, 1000, "dirichlet_mix", Key(0), alpha=1e-6)
    assert time.process_time() - start < 1
    assert {len(part) for part in parts} == {60}


def test_quantity_sizes_are_uneven_and_at_least_the_minimum() -> None:
    sizes = [len(part) for part in partition(BALANCED, 50, "quantity", Key(1), alpha=0.2, min_examples=20)]
    assert min(sizes) >= 20
    assert max(sizes) > 3 * np.mean(sizes)


@pytest.mark.parametrize("scheme", schemes())
def test_max_examples_caps_every_client(scheme: str) -> None:
    parts = partition(BALANCED, 20, scheme, Key(0), alpha=1, slow=[1, 5], max_examples=37)
    assert max(map(len, parts)) == 37


def test_another_key_gives_another_deal() -> None:
    a, b = (partition(BALANCED, 5, "iid", Key(seed))[0] for seed in (0, 1))
    assert (a != b).any()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"clients": 0}, "`clients`"),
        ({"scheme": "shards"}, "dirichlet_mix"),
        ({"alpha": 0.0}, "`alpha`"),
        ({"alpha": float("nan")}, "`alpha`"),
        ({"min_examples": -1}, "`min_examples`"),
        ({"min_examples": 7000}, "`min_examples`"),
        ({"max_examples": 0}, "`max_examples`"),
        ({"max_examples": 3, "min_examples": 4}, "`max_examples`"),
        ({"scheme": "pathological", "classes_per_client": 11}, "`classes_per_client`"),
        ({"scheme": "pathological", "classes_per_client": 0}, "`classes_per_client`"),
        ({"scheme": "coupled"}, "`slow`"),
        ({"scheme": "coupled", "slow": [10]}, "`slow`"),
        ({"scheme": "coupled", "slow": [-1]}, "`slow`"),
        ({"scheme": "coupled", "slow": [1, 1]}, "twice"),
        ({"scheme": "coupled", "slow": range(10)}, "not all"),
        ({"scheme": "coupled", "slow": [1], "slow_classes": 10}, "`slow_classes`"),
        ({"scheme": "coupled", "slow": [1], "coupling": 0.0}, "`coupling`"),
        ({"scheme": "coupled", "slow": [1], "coupling": 1.1}, "`coupling`"),
        ({"labels": np.zeros((3, 3), int)}, "`labels`"),
        ({"labels": np.zeros(3)}, "`labels`"),
    ],
)
def test_a_bad_argument_is_named_with_its_remedy(changed: dict[str, object], named: str) -> None:
    arguments: dict[str, object] = {"labels": BALANCED, "clients": 10, "scheme": "iid", "key": Key(0)}
    with pytest.raises(ConfigError, match=named) as caught:
        partition(**{**arguments, **changed})  # type: ignore[arg-type]
    assert all("\n" not in fault for fault in caught.value.faults)


def test_every_bad_argument_is_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        partition(BALANCED, 0, "shards", Key(0), alpha=-1)
    assert len(caught.value.faults) == 3


def test_what_the_labels_do_not_allow_is_a_data_error() -> None:
    with pytest.raises(DataError, match="raise `alpha`"):
        partition(BALANCED, 1000, "dirichlet", Key(0), alpha=0.01, min_examples=10)
    with pytest.raises(DataError, match="lower `min_examples`"):
        partition(np.repeat([0, 1], [3, 97]), 4, "pathological", Key(0), classes_per_client=1, min_examples=5)
