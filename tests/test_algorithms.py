"""Every update rule, agreed with numbers worked out by hand."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedecho.algorithms.base import sample
from fedecho.algorithms.ca2fl import CA2FL
from fedecho.algorithms.fadas import FADAS, DelayAdaptiveFADAS
from fedecho.algorithms.fedasync import FedAsync, Proximal
from fedecho.algorithms.fedavg import FedAvg
from fedecho.algorithms.fedbuff import FedBuff
from fedecho.messages import Task
from fedecho.rng import Key
from helpers import change, feed, vec, view


def near(got: torch.Tensor, *want: float) -> None:
    assert got.tolist() == pytest.approx(list(want), rel=2e-6, abs=1e-7)


# --------------------------------------------------------------------------------------------------------------- FedAvg


def test_fedavg_weighs_changes_by_examples() -> None:
    rule = FedAvg(cohort=2, lr=0.5)
    x, _ = feed(rule, rule.init(vec(0, 0), 4), vec(1, 1), change(vec(4, 0), n=3), change(vec(0, 8), n=1))
    near(x, 1 + 0.5 * (3 * 4) / 4, 1 + 0.5 * (1 * 8) / 4)


def test_fedavg_starts_the_next_round_from_nothing() -> None:
    rule = FedAvg(cohort=1)
    x, state = feed(rule, rule.init(vec(0, 0), 4), vec(0, 0), change(vec(4, 4), n=100))
    x, _ = feed(rule, state, x, change(vec(1, 2), n=1))
    near(x, 5, 6)


def test_fedavg_asks_the_cohort_and_a_fraction_more_then_only_replaces_what_was_lost() -> None:
    rule = FedAvg(cohort=4, over_selection=0.3)
    state = rule.init(vec(0), 20)
    assert len(rule.select(state, view(idle=range(20), slots=6), Key(0))) == math.ceil(4 * 1.3) == 6
    five = {i: Task(i, i, 0, 0.0) for i in range(5)}
    assert not rule.select(state, view(five, idle=range(5, 20), slots=1), Key(0)), (
        "one of six lost: five are still enough"
    )
    three = {i: Task(i, i, 0, 0.0) for i in range(3)}
    assert len(rule.select(state, view(three, idle=range(5, 20), slots=3), Key(0))) == 1
    assert len(rule.select(state, view(idle=range(20), slots=5), Key(0))) == 5, "never more than there are slots"


def test_fedavg_asks_nobody_twice_in_a_round_and_ends_it_when_nobody_is_left() -> None:
    rule = FedAvg(cohort=3)
    one = rule.receive(rule.init(vec(0), 3), change(vec(1), client=0))
    assert sorted(rule.select(one, view(idle=[0, 1, 2], slots=3), Key(0))) == [1, 2]
    assert not rule.ready(one, view(idle=[0, 1])), "client 1 can still be asked"
    assert rule.ready(one, view(idle=[0]))


def test_fedavg_ends_a_round_at_its_deadline_but_never_with_nobody() -> None:
    rule = FedAvg(cohort=3, round_deadline_s=10)
    waiting = {1: Task(1, 1, 0, 2.0), 2: Task(2, 2, 0, 2.0)}
    none = rule.init(vec(0), 5)
    one = rule.receive(none, change(vec(1), issued_at_s=2.0))
    assert rule.deadline_s(one, view(waiting)) == 12.0
    late = {3: Task(3, 3, 0, 7.0)}
    assert rule.deadline_s(one, view(late)) == 12.0, "a replacement does not move it"
    assert not rule.ready(one, view(waiting, now_s=11.9))
    assert rule.ready(one, view(waiting, now_s=12.0))
    assert not rule.ready(none, view(waiting, now_s=99.0))
    assert sorted(rule.abandon(one, view(waiting))) == [1, 2]


# ------------------------------------------------------------------------------------------------------------- FedAsync


@pytest.mark.parametrize(
    ("rule", "tau", "alpha"),
    [
        (FedAsync(mixing=0.6, staleness="constant"), 9, 0.6),
        (FedAsync(mixing=0.6, staleness="polynomial", a=0.5), 0, 0.6),
        (FedAsync(mixing=0.6, staleness="polynomial", a=0.5), 3, 0.6 / 2),
        (FedAsync(mixing=0.6, staleness="polynomial", a=2.0), 2, 0.6 / 9),
        (FedAsync(mixing=0.6, staleness="hinge", a=10, b=4), 4, 0.6),
        (FedAsync(mixing=0.6, staleness="hinge", a=10, b=4), 5, 0.6 / 11),
        (FedAsync(mixing=0.6, staleness="hinge", a=10, b=4), 7, 0.6 / 31),
    ],
)
def test_fedasync_mixes_the_clients_model_by_its_staleness(rule: FedAsync, tau: int, alpha: float) -> None:
    arrived = change(
        vec(1, -1), start=vec(7, 7), current=vec(2, 2), staleness=tau
    )  # the model (8, 6), whatever it started from
    x, _ = feed(rule, rule.init(vec(0, 0), 3), vec(2, 2), arrived)
    near(x, (1 - alpha) * 2 + alpha * 8, (1 - alpha) * 2 + alpha * 6)


def test_fedasync_never_compounds_the_mixing_factor() -> None:
    rule = FedAsync(mixing=0.5, staleness="polynomial", a=1.0)
    state, x, by_hand = rule.init(vec(0), 3), vec(0.0), 0.0
    for tau in (1, 3, 0, 1):
        x, state = feed(rule, state, x, change(vec(8), staleness=tau))
        alpha = 0.5 / (1 + tau)
        by_hand = (1 - alpha) * by_hand + alpha * 8
    near(x, by_hand)


def test_fedasync_mixes_buffers_by_the_same_factor_as_weights() -> None:
    rule = FedAsync(mixing=0.5, staleness="polynomial", a=1.0)
    state = rule.receive(rule.init(vec(0), 3), change(vec(1), staleness=1))
    near(rule.mix_buffers(state, vec(4.0), vec(8.0)), 0.75 * 4 + 0.25 * 8)


def test_proximal_clients_are_pulled_back_to_where_they_started() -> None:
    gradient = vec(1, 1)
    Proximal(0.5).direct(gradient, vec(3, -1), vec(1, 1), {})
    near(gradient, 1 + 0.5 * 2, 1 - 0.5 * 2)
    assert FedAsync(mu=0.25).client_rule == Proximal(0.25)
    assert FedAsync(mu=0.0).client_rule is None


# -------------------------------------------------------------------------------------------------------------- FedBuff


def test_fedbuff_averages_changes_not_models() -> None:
    rule = FedBuff(buffer_size=2, lr=0.5)
    changes = change(vec(2, 0), start=vec(9, 9), staleness=3), change(vec(0, 6), start=vec(5, 5))
    x, _ = feed(rule, rule.init(vec(0, 0), 3), vec(1, 1), *changes)
    near(x, 1 + 0.5 * 2 / 2, 1 + 0.5 * 6 / 2)


def test_fedbuff_polynomial_divides_by_the_root_and_still_by_m() -> None:
    rule = FedBuff(buffer_size=2, weighting="polynomial")
    changes = change(vec(2, 0), staleness=3), change(vec(0, 6), staleness=8)
    x, _ = feed(rule, rule.init(vec(0, 0), 3), vec(0, 0), *changes)
    near(x, 2 / math.sqrt(4) / 2, 6 / math.sqrt(9) / 2)


def test_fedbuff_momentum_over_three_steps() -> None:
    rule = FedBuff(buffer_size=1, lr=0.1, momentum=0.9)
    state, x, by_hand, velocity = rule.init(vec(0), 3), vec(1.0), 1.0, 0.0
    for delta in (1.0, -2.0, 0.5):
        x, state = feed(rule, state, x, change(vec(delta)))
        velocity = 0.9 * velocity + delta
        by_hand += 0.1 * velocity
    near(x, by_hand)


def test_fedbuff_refuses_only_what_is_staler_than_allowed() -> None:
    assert [FedBuff(max_staleness=3).too_late(tau) for tau in (0, 3, 4)] == [False, False, True]
    assert not FedBuff().too_late(10**6)


# ---------------------------------------------------------------------------------------------------------------- CA2FL


def test_ca2fl_by_hand_over_three_rounds_with_a_client_twice_in_one_buffer() -> None:
    rule, clients = CA2FL(buffer_size=2, lr=0.5), 4
    x, state = feed(
        rule,
        rule.init(vec(0, 0), clients),
        vec(0, 0),
        change(vec(4, 0), client=0),
        change(vec(0, 8), client=1),
    )
    near(x, 0.5 * 4 / 2, 0.5 * 8 / 2)  # the cache was empty: h = 0, v is the plain mean

    # h = (4, 8)/4 = (1, 2). Client 0 comes twice: (6,2) − (4,0), then (10,0) − (6,2); together (10,0) − (4,0).
    x, state = feed(rule, state, x, change(vec(6, 2), client=0), change(vec(10, 0), client=0))
    near(x, 1 + 0.5 * (1 + (10 - 4) / 2), 2 + 0.5 * (2 + (0 - 0) / 2))

    # h = (10, 8)/4 = (2.5, 2) at the round's start, although both updates below change the cache.
    x, state = feed(rule, state, x, change(vec(0, 0), client=0), change(vec(0, 4), client=2))
    near(x, 3 + 0.5 * (2.5 + (0 - 10 + 0) / 2), 3 + 0.5 * (2 + (0 + 4) / 2))
    near(state.start, 0, (8 + 4) / 4)


def test_ca2fl_mean_stays_the_mean_of_the_cache() -> None:
    rule, generator = CA2FL(buffer_size=3), torch.Generator().manual_seed(0)
    state, x = rule.init(torch.zeros(3), 7), torch.zeros(3)
    for i in range(300):
        state = rule.receive(state, change(torch.randn(3, generator=generator), client=(i * i) % 7))
        if rule.ready(state, view()):
            x, state = rule.aggregate(state, x, 1.0)
    torch.testing.assert_close(state.mean, torch.stack(list(state.rows.values())).sum(0) / 7, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------------------------------------------- FADAS

B1, B2, EPS = 0.8, 0.9, 1e-3


def fadas_by_hand(x: float, deltas: list[float], lr: list[float], corrected: bool) -> tuple[float, list[float]]:
    m = v = v_hat = 0.0
    peaks = []
    for t, (delta, eta) in enumerate(zip(deltas, lr, strict=True), start=1):
        m = B1 * m + (1 - B1) * delta
        v = B2 * v + (1 - B2) * delta**2
        v_hat = max(v_hat, v)
        peaks.append(v_hat)
        c1, c2 = (1 - B1**t, 1 - B2**t) if corrected else (1.0, 1.0)
        x += eta / c1 * m / (math.sqrt(v_hat) / math.sqrt(c2) + EPS)
    return x, peaks


@pytest.mark.parametrize("rule", ["code", "paper"])
def test_fadas_by_hand_over_three_steps_with_the_second_moment_falling(rule: str) -> None:
    fadas = FADAS(buffer_size=2, lr=0.1, beta1=B1, beta2=B2, eps=EPS, rule=rule)  # type: ignore[arg-type]
    state, x = fadas.init(vec(0, 0), 5), vec(1, -1)
    for step in (vec(4, 1), vec(0, 0.5), vec(-1, 3)):
        x, state = feed(fadas, state, x, change(step - 0.5), change(step + 0.5))  # their mean is `step`
    first, peaks = fadas_by_hand(1, [4, 0, -1], [0.1] * 3, rule == "code")
    second, _ = fadas_by_hand(-1, [1, 0.5, 3], [0.1] * 3, rule == "code")
    assert peaks[0] == peaks[1] == peaks[2], "the case has v falling below its maximum"
    near(x, first, second)
    assert state.v[0] < state.v_hat[0]


def test_the_first_corrected_step_of_fadas_is_nearly_the_sign() -> None:
    x, _ = feed(FADAS(buffer_size=1, lr=0.1), FADAS().init(vec(0, 0), 2), vec(0, 0), change(vec(3, -0.2)))
    near(x, 0.1, -0.1)


@pytest.mark.parametrize(
    ("rule", "taus", "eta"),
    [
        ("code", (0, 1), 0.1),
        ("code", (2, 0), 0.1 / 2),
        ("code", (3, 50), 0.1 / 50),
        ("paper", (0, 1), 0.1),
        ("paper", (4, 0), 0.1),  # min(0.1, 1/4)
        ("paper", (40, 0), 1 / 40),
    ],
)
def test_delay_adaptive_fadas_shrinks_by_the_rounds_largest_staleness(
    rule: str, taus: tuple[int, int], eta: float
) -> None:
    fadas = DelayAdaptiveFADAS(2, 0.1, 1, B1, B2, EPS, rule)  # type: ignore[arg-type]
    late, late_too = (change(vec(2.0), staleness=tau) for tau in taus)
    x, state = feed(fadas, fadas.init(vec(0), 5), vec(0.0), late, late_too)
    x, _ = feed(fadas, state, x, change(vec(1.0)), change(vec(1.0)))  # a fresh round steps in full again
    near(x, fadas_by_hand(0, [2, 1], [eta, 0.1], rule == "code")[0])


# --------------------------------------------------------------------------------------------------------------- select


@given(n=st.integers(0, 60), k=st.integers(-3, 70), seed=st.integers(0, 10**6))
def test_a_sample_is_distinct_members_and_the_same_for_the_same_key(n: int, k: int, seed: int) -> None:
    pool = [100 + i for i in range(n)]
    chosen = sample(pool, k, Key(seed))
    assert len(chosen) == len(set(chosen)) == max(0, min(k, n))
    assert set(chosen) <= set(pool)
    assert chosen == sample(pool, k, Key(seed))


def test_a_sample_gives_every_ordered_pair_the_same_chance() -> None:
    draws = 12_000
    counts = Counter(tuple(sample([0, 1, 2, 3], 2, Key(0).fold(i))) for i in range(draws))
    assert len(counts) == 12
    chi2 = sum((count - draws / 12) ** 2 / (draws / 12) for count in counts.values())
    assert chi2 < 31.3  # the 0.999 quantile for 11 degrees of freedom; the draws are fixed


def test_by_default_every_slot_is_filled_from_the_idle_while_there_are_any() -> None:
    rule = FedBuff()
    state = rule.init(vec(0), 9)
    assert len(rule.select(state, view(idle=[4, 5, 6], slots=2), Key(0))) == 2
    assert sorted(rule.select(state, view(idle=[4, 5, 6], slots=5), Key(0))) == [4, 5, 6]


@pytest.mark.parametrize(
    "rule",
    [FedAvg(cohort=1), FedAsync(staleness="constant", mixing=1.0), FedBuff(1), CA2FL(1), FADAS(1, rule="paper")],
    ids=lambda rule: rule.name,
)
def test_the_schedule_scales_the_server_step(rule: FedBuff) -> None:
    start = vec(1, 2)
    state = rule.receive(rule.init(start, 3), change(vec(1, -1), start=start))
    full, _ = rule.aggregate(state, start, 1.0)
    half, _ = rule.aggregate(state, start, 0.5)
    torch.testing.assert_close(half - start, 0.5 * (full - start))
