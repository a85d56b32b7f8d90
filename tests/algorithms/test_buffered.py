"""Rules that step after M updates, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from fedecho.algorithms.ca2fl import CA2FL
from fedecho.algorithms.fadas import FADAS, DelayAdaptiveFADAS
from fedecho.algorithms.fedac import Control, FedAC
from fedecho.algorithms.fedbuff import FedBuff
from fedecho.algorithms.port import Port
from fedecho.core.messages import Model, Task
from helpers import Quadratics, change, feed, vec, view


def near(got: torch.Tensor, *want: float) -> None:
    assert got.tolist() == pytest.approx(list(want), rel=2e-6, abs=1e-7)


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
    assert [FedBuff(max_staleness=3).is_stale(tau) for tau in (0, 3, 4)] == [False, False, True]
    assert not FedBuff().is_stale(10**6)


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
    fadas = DelayAdaptiveFADAS(2, 0.1, B1, B2, EPS, rule, tau_c=1)  # type: ignore[arg-type]
    late, late_too = (change(vec(2.0), staleness=tau) for tau in taus)
    x, state = feed(fadas, fadas.init(vec(0), 5), vec(0.0), late, late_too)
    x, _ = feed(fadas, state, x, change(vec(1.0)), change(vec(1.0)))  # a fresh round steps in full again
    near(x, fadas_by_hand(0, [2, 1], [eta, 0.1], rule == "code")[0])


# ----------------------------------------------------------------------------------------------------------------- Port


def test_port_weighs_by_examples_staleness_and_interference() -> None:
    rule = Port(buffer_size=4, lr=0.5, staleness_bound=10, staleness_weight=3, similarity_weight=2)
    here = vec(1, 1)
    changes = [
        change(vec(6, 0), start=here, current=here, n=2),  # 2·(3·10/10 + 2·1) = 10
        change(vec(0, 5), start=vec(0, 1), current=here, staleness=10),  # moved (1, 0), cos 0: 3·10/20 + 2·½ = 2.5
        change(vec(-4, 0), start=vec(0, 1), current=here, staleness=5),  # cos −1: 3·10/15 + 0 = 2
        change(vec(3, 3), start=vec(0, 0), current=here, staleness=20, n=3),  # cos 1: 3·(3·10/30 + 2) = 9
    ]
    x, state = feed(rule, rule.init(here, 5), here, *changes)
    total = 10 + 2.5 + 2 + 9
    near(x, 1 + 0.5 * (10 * 6 - 2 * 4 + 9 * 3) / total, 1 + 0.5 * (2.5 * 5 + 9 * 3) / total)
    x, _ = feed(
        rule, state, x, *[change(vec(2, 0), start=here, current=here)] * 4
    )  # the next buffer starts from nothing
    near(x, 1 + 0.5 * (10 * 6 - 2 * 4 + 9 * 3) / total + 1, 1 + 0.5 * (2.5 * 5 + 9 * 3) / total)


def test_where_a_change_points() -> None:
    here, there = vec(0, 0), vec(3, 4)
    assert change(vec(1, 0), start=here, current=here, staleness=3).alignment == 1.0, "the model has not moved"
    assert change(vec(0, 0), start=here, current=there, staleness=3).alignment == 0.0, "the change has no direction"
    assert change(vec(2, 0), start=here, current=there, staleness=3).alignment == pytest.approx(3 / 5)
    assert change(vec(0, -2), start=here, current=there, staleness=3).alignment == pytest.approx(-4 / 5)


# ---------------------------------------------------------------------------------------------------------------- FedAC


def test_fedac_by_hand_over_two_rounds() -> None:
    b1, b2, eta, eps = 0.6, 0.9, 0.1, 1e-3
    rule, here = FedAC(buffer_size=2, lr=eta, eps=eps), vec(0, 0)
    fresh = change(vec(2, 0), client=0, start=here, current=here, extra={"c_i": vec(5, 0)})  # w 1
    away = change(vec(-4, 0), client=1, start=vec(-1, 0), current=here, staleness=3, extra={"c_i": vec(0, 3)})  # cos −1
    x, state = feed(rule, rule.init(here, 8), here, fresh, away)
    d = (1 * 2 + 0.1 * -4) / 1.1
    m, v = (1 - b1) * d, (1 - b2) * d * d
    first = eta * (b1 * m + (1 - b1) * d) / (math.sqrt(v) + eps)
    near(x, first, 0)
    near(state.c, 2 / 8 * (1 * 5) / 1.1, 2 / 8 * (0.1 * 3) / 1.1)
    assert rule.task_extra(state, 7).keys() == {"C"}
    assert torch.equal(rule.task_extra(state, 0)["c_i"], vec(5, 0))  # type: ignore[arg-type]

    # the same client twice in one buffer: its control variate moves from 5 to 6 to 1
    half = change(vec(1, 0), client=0, start=vec(-3, -4), current=here, staleness=1, extra={"c_i": vec(6, 0)})  # cos .6
    full = change(vec(3, 0), client=0, start=here, current=here, extra={"c_i": vec(1, 0)})
    x, after = feed(rule, state, x, half, full)
    d = (0.6 * 1 + 1 * 3) / 1.6
    m, v = b1 * m + (1 - b1) * d, b2 * v + (1 - b2) * d * d
    near(x, first + eta * (b1 * m + (1 - b1) * d) / (math.sqrt(v) + eps), 0)
    near(after.c, 2 / 8 * 5 / 1.1 + 2 / 8 * (0.6 * (6 - 5) + 1 * (1 - 6)) / 1.6, 2 / 8 * (0.1 * 3) / 1.1)
    near(after.rows[0], 1, 0)


def test_fedacs_clients_correct_their_gradient_and_report_its_mean() -> None:
    extra = {"C": vec(10.0, 20.0), "c_i": vec(1.0, 2.0)}
    gradient = vec(100, 100)
    Control().direct(gradient, vec(0, 0), vec(0, 0), extra)
    near(gradient, 100 - 1 + 10, 100 - 2 + 20)
    gradient = vec(100, 100)
    Control().direct(gradient, vec(0, 0), vec(0, 0), {"C": extra["C"]})
    near(gradient, 110, 120)
    # three steps of 0.5 moved the model by −6: a mean direction of 4, of which C − c_i = 9 is not the gradient
    near(Control().report(vec(6, 0), vec(0, 0), 3, 0.5, extra)["c_i"], 4 - 10 + 1, 0 - 20 + 2)  # type: ignore[arg-type]
    near(Control().report(vec(6, 0), vec(0, 0), 3, 0.5, {"C": extra["C"]})["c_i"], 4 - 10, -20)  # type: ignore[arg-type]


def test_fedacs_control_variates_are_mean_gradients_whatever_the_correction() -> None:
    """On ½‖x − c‖² with one step the gradient is x − c; and C is the mean of the c_i where all weigh the same."""
    centres = torch.tensor([[1.0, 2.0], [3.0, -4.0]])
    rule, start = FedAC(buffer_size=2), vec(5, 5)
    worker, state = Quadratics(centres, lr=0.25, steps=1, rule=rule.client_rule), rule.init(start, 2)
    for _ in range(3):
        for client in (0, 1):
            task = Task(0, client, 0, 0.0, rule.task_extra(state, client))
            update = worker.train(task, Model(0, start, torch.zeros(0)))
            near(update.extra["c_i"], *(start - centres[client]).tolist())  # type: ignore[arg-type]
            item = change(update.weights - start, client=client, start=start, current=start, extra=dict(update.extra))
            state = rule.receive(state, item)
        _, state = rule.aggregate(state, start, 1.0)
        near(state.c, *(start - centres.mean(0)).tolist())
