"""Rules that step at every arrival or round, against numbers worked out by hand; selection; memory."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedecho.algorithms.ace import ACE, ACED
from fedecho.algorithms.async_sgd import AsyncSGD, DelayAdaptiveASGD
from fedecho.algorithms.asyncfeded import AsyncFedED
from fedecho.algorithms.base import Algorithm, sample
from fedecho.algorithms.ca2fl import CA2FL
from fedecho.algorithms.fadas import FADAS
from fedecho.algorithms.fedac import FedAC
from fedecho.algorithms.fedasmu import FedASMU
from fedecho.algorithms.fedasync import FedAsync, Proximal
from fedecho.algorithms.fedavg import FedAvg
from fedecho.algorithms.fedbuff import FedBuff
from fedecho.algorithms.fedfa import FedFa
from fedecho.algorithms.port import Port
from fedecho.config.config import Config
from fedecho.core.errors import ConfigError
from fedecho.core.keys import Key
from fedecho.core.messages import Task
from fedecho.experiment.build import prepare
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
    assert sorted(rule.cancelled(one, view(waiting))) == [1, 2]


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


# ------------------------------------------------------------------------------------------- delay-adaptive async SGD


@pytest.mark.parametrize(
    ("tau", "adaptive", "eta"),
    [(0, True, 0.5), (4, True, 0.5), (5, True, 0.5 * 4 / 5), (16, True, 0.5 / 4), (16, False, 0.5)],
)
def test_async_sgd_shrinks_its_step_above_the_concurrency(tau: int, adaptive: bool, eta: float) -> None:
    rule = DelayAdaptiveASGD(lr=0.5, concurrency=4) if adaptive else AsyncSGD(lr=0.5)
    arrived = change(vec(2, -4), start=vec(9, 9), current=vec(1, 1), staleness=tau)
    x, _ = feed(rule, rule.init(vec(0, 0), 3), vec(1, 1), arrived)
    near(x, 1 + eta * 2, 1 - eta * 4)


def test_async_sgd_steps_at_every_arrival_and_forgets_the_last() -> None:
    rule = DelayAdaptiveASGD(lr=0.5, concurrency=2)
    state, x = rule.init(vec(0), 3), vec(0.0)
    for delta, tau in ((4.0, 0), (8.0, 4), (-2.0, 1)):
        x, state = feed(rule, state, x, change(vec(delta), staleness=tau))
    near(x, 0.5 * 4 + 0.5 * 2 / 4 * 8 - 0.5 * 2)


# ----------------------------------------------------------------------------------------------------------- AsyncFedED


@pytest.mark.parametrize(
    ("current", "delta", "step"),
    [
        (vec(0, 0), vec(3, 4), 0.6 / 0.5),  # fresh: λ/ε
        (vec(6, 8), vec(3, 4), 0.6 / (10 / 5 + 0.5)),
        (vec(0, -5), vec(30, 40), 0.6 / (5 / 50 + 0.5)),
    ],
)
def test_asyncfeded_measures_staleness_by_distance(current: torch.Tensor, delta: torch.Tensor, step: float) -> None:
    rule = AsyncFedED(lr=0.6, eps=0.5)
    arrived = change(delta, start=vec(0, 0), current=current, staleness=7)  # the count does not matter
    x, _ = feed(rule, rule.init(vec(0, 0), 3), current, arrived)
    near(x, *(current + step * delta).tolist())


@pytest.mark.parametrize("current", [vec(1, 2), vec(5, 5)])
def test_asyncfeded_does_not_move_by_a_change_of_length_zero(current: torch.Tensor) -> None:
    rule = AsyncFedED()
    x, _ = feed(rule, rule.init(vec(0, 0), 3), current, change(vec(0, 0), start=vec(1, 2), current=current))
    assert torch.equal(x, current)


# ---------------------------------------------------------------------------------------------------------------- FedFa


def test_fedfa_is_the_mean_of_the_last_models_once_there_are_enough() -> None:
    rule = FedFa(window=3)
    first = [change(vec(1, 0), start=vec(2, 2)), change(vec(0, 3)), change(vec(6, 0), staleness=9)]
    x, state = feed(rule, rule.init(vec(0, 0), 4), vec(7, 7), *first)
    near(x, (3 + 0 + 6) / 3, (2 + 3 + 0) / 3)  # models, not changes; nothing of where the server was
    x, state = feed(rule, state, x, change(vec(9, 1)))  # from then on at every arrival; the oldest is gone
    near(x, (0 + 6 + 9) / 3, (3 + 0 + 1) / 3)
    x, state = feed(
        rule,
        state,
        x,
        change(vec(0, 0)),
    )
    near(x, (6 + 9 + 0) / 3, (0 + 1 + 0) / 3)
    assert len(state.models) == 3


def test_fedfa_averages_buffers_over_the_same_models() -> None:
    rule = FedFa(window=2)
    state = rule.init(vec(0), 4)
    for buffers in (vec(100.0), vec(2.0), vec(4.0)):
        state = rule.receive(state, change(vec(1), buffers=buffers))
    near(rule.mix_buffers(state, vec(50.0), vec(4.0)), 3)


# -------------------------------------------------------------------------------------------------------------- FedASMU


@pytest.mark.parametrize(
    ("rule", "version", "tau", "alpha"),
    [
        (FedASMU(iota=0), 0, 0, 1 / 2),  # t = 1: ξ = 1
        (FedASMU(iota=0), 3, 3, 0.25 / 1.25),  # ξ = 1/(√4·√4)
        (FedASMU(iota=0, sigma=1), 3, 3, 0.125 / 1.125),
        (FedASMU(iota=0, lam=2), 3, 3, 0.5 / 1.5),
        (FedASMU(iota=0.25), 3, 3, 0.5 / 1.5),
        (FedASMU(iota=0, mu_alpha=3), 3, 3, 0.75 / 1.75),
        (FedASMU(iota=0), 99, 0, 0.1 / 1.1),
    ],
)
def test_fedasmu_mixes_by_staleness_and_time(rule: FedASMU, version: int, tau: int, alpha: float) -> None:
    arrived = change(vec(1, -1), start=vec(7, 7), current=vec(2, 2), staleness=tau, version=version)
    x, _ = feed(rule, rule.init(vec(0, 0), 3), vec(2, 2), arrived)
    near(x, (1 - alpha) * 2 + alpha * 8, (1 - alpha) * 2 + alpha * 6)
    state = rule.receive(rule.init(vec(0, 0), 3), arrived)
    near(rule.mix_buffers(state, vec(4.0), vec(8.0)), 4 + alpha * 4)


def test_fedasmu_refuses_only_what_is_staler_than_allowed() -> None:
    assert [FedASMU(max_staleness=3).is_stale(tau) for tau in (0, 3, 4)] == [False, False, True]
    assert not FedASMU().is_stale(10**6)


# --------------------------------------------------------------------------------------------------------- ACE and ACED


def test_ace_steps_by_the_mean_of_the_latest_changes_of_those_heard() -> None:
    rule = ACE(lr=0.5)
    x, state = feed(rule, rule.init(vec(0, 0), 9), vec(1, 1), change(vec(4, 0), client=3, staleness=8))
    near(x, 1 + 0.5 * 4, 1)
    x, state = feed(rule, state, x, change(vec(0, 6), client=5))
    near(x, 3 + 0.5 * 4 / 2, 1 + 0.5 * 6 / 2)
    x, state = feed(rule, state, x, change(vec(-2, 0), client=3))  # in the place of its first
    near(x, 4 + 0.5 * -2 / 2, 2.5 + 0.5 * 6 / 2)
    assert set(state.rows) == {3, 5}


def test_ace_waits_for_its_warm_up_and_then_steps_at_every_arrival() -> None:
    rule = ACE(lr=1.0, warm_up=2)
    first = [change(vec(7), client=0), change(vec(1), client=0), change(vec(3), client=1)]  # two clients, three updates
    x, state = feed(rule, rule.init(vec(0), 9), vec(0), *first)
    near(x, (1 + 3) / 2)
    x, _ = feed(rule, state, x, change(vec(5), client=1))
    near(x, 2 + (1 + 5) / 2)


def test_aced_leaves_out_what_has_grown_too_old() -> None:
    rule = ACED(lr=0.5, tau_algo=2)
    x, state = feed(rule, rule.init(vec(0), 9), vec(0), change(vec(4), client=0, version=5, staleness=1))  # from 4
    near(x, 2)
    x, state = feed(rule, state, x, change(vec(8), client=1, version=6, staleness=0))  # 6 − 4 = 2: both count
    near(x, 2 + 0.5 * (4 + 8) / 2)
    x, state = feed(
        rule, state, x, change(vec(100), client=2, version=7, staleness=3)
    )  # too old itself; so is client 0
    near(x, 5 + 0.5 * 8)
    assert set(state.rows) == {1}
    x, state = feed(rule, state, x, change(vec(-100), client=2, version=9, staleness=3))  # nobody: stays, and goes on
    near(x, 9)
    x, state = feed(rule, state, x, change(vec(2), client=0, version=10))
    near(x, 9 + 0.5 * 2)


def test_aced_keeps_few_changes_of_many_clients() -> None:
    rule = ACED(tau_algo=3)
    state, x = rule.init(vec(0), 50), vec(0)
    for t in range(50):
        x, state = feed(rule, state, x, change(vec(1), client=t, version=t))
        assert len(state.rows) <= rule.memory(50) == 4
    assert rule.memory(2) == 2


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
    [
        *(FedAvg(cohort=1), FedAsync(staleness="constant", mixing=1.0), FedBuff(1), CA2FL(1), FADAS(1, rule="paper")),
        *(DelayAdaptiveASGD(), AsyncFedED(), FedFa(1), Port(1), FedASMU(), FedAC(1), ACE(), ACED()),
    ],
    ids=lambda rule: rule.name,
)
def test_the_schedule_scales_the_server_step(rule: Algorithm) -> None:
    start = vec(1, 2)
    extra = {report: vec(0, 0) for report in rule.reports}
    state = rule.receive(rule.init(start, 3), change(vec(1, -1), start=start, extra=extra))
    full, _ = rule.aggregate(state, start, 1.0)
    half, _ = rule.aggregate(state, start, 0.5)
    torch.testing.assert_close(half - start, 0.5 * (full - start))


# --------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize(("method", "gb"), [("ca2fl", 54), ("fedac", 55), ("ace", 51), ("aced", 21)])
def test_a_cache_that_cannot_fit_into_the_machine_is_refused(
    method: str, gb: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {"data": {"unlabeled_size": 40, "clients": 50}, "model": {"name": "mlp", "hidden": [8]}}
    rule = {"name": method} | ({"tau_algo": 20} if method == "aced" else {})
    config = Config.from_dict({"experiment": {"updates": 1}, "algorithm": rule, **tables})
    d = 64 * 8 + 8 + 8 * 10 + 10  # digits' pixels to 8 to 10 classes
    sizes = {"SC_PAGE_SIZE": 4 * d, "SC_PHYS_PAGES": gb}
    monkeypatch.setattr("fedecho.experiment.limits.os.sysconf", sizes.get)
    assert prepare(config).server.model.weights.shape == (d,)
    sizes["SC_PHYS_PAGES"] -= 1
    with pytest.raises(ConfigError, match=rf"'{method}' keeps up to {gb} vectors of the model's {d} weights for 50 c"):
        prepare(config)


@pytest.mark.parametrize(
    ("stage", "bank"),
    [({}, 50 * 400 * 4), ({"max_rows": 10}, 10 * 400 * 4), ({"max_rows": 99, "row_dtype": "float16"}, 50 * 400 * 2)],
)
def test_a_bank_that_cannot_fit_is_refused_with_what_can_be_done(
    stage: dict[str, Any], bank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {"data": {"unlabeled_size": 40, "clients": 50}, "model": {"name": "mlp", "hidden": [8]}}
    config = Config.from_dict({"experiment": {"updates": 1}, "stages": {"name": "echo", **stage}, **tables})
    d = 64 * 8 + 8 + 8 * 10 + 10
    sums = 8 * 400  # the rows' running sum, float64
    sizes = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 4 * 4 * d + bank + sums}
    monkeypatch.setattr("fedecho.experiment.limits.os.sysconf", sizes.get)
    prepare(config)
    sizes["SC_PHYS_PAGES"] -= 1
    message = r"'echo' keeps the predictions of every client, 40 of 10 classes, for 50 clients, .*: set stages.max_rows"
    with pytest.raises(ConfigError, match=message):
        prepare(config)
