"""The limits on how long a change may be: what is usual, who can move it, and whom it never refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fedecho.algorithms.fedbuff import FedBuff
from fedecho.server.norms import ENOUGH, RECENT_CLIENTS, NormHistory
from fedecho.server.settings import ServerConfig
from fedecho.stages.central_dp import CentralDP
from helpers import Hand, through_json, vec

ALL = ServerConfig(concurrency=20)


def from_client(hand: Hand, client: int, norm: float) -> None:
    """An answer of this client, whose task is in flight."""
    task = next(number for number in hand.waiting if hand.sent[number].task.client == client)
    hand.arrive(task, delta=vec(0, norm))


def after_a_round(hand: Hand, norm: float = 1.0) -> Hand:
    """Every client has sent one change of this norm."""
    for client in range(hand.server.clients):
        from_client(hand, client, norm)
    return hand


def test_ten_changes_of_ten_clients_are_enough() -> None:
    hand = Hand(FedBuff(1), clients=20, config=ALL)
    for client in range(ENOUGH):
        assert hand.server.state.norms.usual == 0
        from_client(hand, client, 500.0 if client == 0 else 2.0)
    assert hand.server.state.norms.usual == 2.0
    from_client(hand, 10, 39.9)
    assert not hand.log.reasons
    from_client(hand, 11, 40.1)
    assert hand.log.reasons == ["change has an absurd norm, 40.1: the usual one is 2"]


def test_one_client_cannot_talk_the_median_up_however_often_it_answers() -> None:
    hand = after_a_round(Hand(FedBuff(1), clients=20, config=ALL))
    for _ in range(3 * RECENT_CLIENTS):
        from_client(hand, 7, 9000.0)
    assert len(hand.log.reasons) == 3 * RECENT_CLIENTS
    assert hand.server.state.norms.usual == 1.0
    assert len(hand.log.of("accept")) == 20


def test_one_client_that_answers_first_does_not_decide_what_is_usual() -> None:
    hand = Hand(FedBuff(1), clients=20, config=ALL)
    for _ in range(2 * ENOUGH):
        from_client(hand, 7, 9000.0)
    assert hand.server.state.norms.usual == 0
    for client in range(7):
        from_client(hand, client, 1.0)
    for client in (8, 9):
        from_client(hand, client, 1.0)
    assert hand.server.state.norms.usual == 1.0
    from_client(hand, 7, 9000.0)
    assert len(hand.log.reasons) == 1


def test_norms_that_creep_up_are_stopped_by_what_is_usual_for_the_others() -> None:
    hand = after_a_round(Hand(FedBuff(1), clients=20, config=ALL))
    for norm in (10.0, 19.0, 100.0, 190.0):
        from_client(hand, 7, norm)
    assert len(hand.log.reasons) == 2


@pytest.mark.parametrize("clients", [1, 2, 3, 6, 20])
def test_a_change_of_regime_is_accepted_once_more_than_half_of_the_clients_show_it(clients: int) -> None:
    hand = Hand(FedBuff(1), clients=clients, config=ALL)
    for _ in range(ENOUGH):
        after_a_round(hand, 1.0)
    for client in range(clients):
        from_client(hand, client, 100.0)
    assert len(hand.log.reasons) == clients // 2 + 1
    after_a_round(hand, 100.0)
    assert len(hand.log.reasons) == clients // 2 + 1
    assert max(hand.server.state.refused_in_a_row.values(), default=0) == 0


def test_a_client_whose_changes_stay_as_long_as_all_were_is_not_refused_when_the_others_have_fitted_their_data() -> (
    None
):
    """A straggler or a client with unusual data, which a limit relative to the others' latest norms refuses."""
    hand = after_a_round(Hand(FedBuff(1), clients=20, config=ALL), norm=1.0)
    for _ in range(3):
        for client in range(1, 20):
            from_client(hand, client, 0.001)
    for _ in range(5):
        from_client(hand, 0, 1.0)
    assert not hand.log.reasons


def test_other_refused_answers_leave_no_norm_behind() -> None:
    hand = after_a_round(Hand(FedBuff(1), clients=20, config=ALL))
    for client in range(20):
        task = next(number for number in hand.waiting if hand.sent[number].task.client == client)
        hand.arrive(task, delta=vec(0, 15), num_examples=0)
        from_client(hand, client, 2e4)  # beyond max_change_norm
    assert set(hand.server.state.norms.latest.values()) == {1.0}


def test_the_history_is_bounded_and_goes_through_a_checkpoint() -> None:
    history = NormHistory()
    for client in range(3 * RECENT_CLIENTS):
        history.remember(client, float(client), clients=1000)
    assert list(history.latest) == list(range(2 * RECENT_CLIENTS, 3 * RECENT_CLIENTS))
    assert history.usual == 2 * RECENT_CLIENTS + RECENT_CLIENTS // 2
    again = through_json(history)
    assert again == history
    copy = history.copy()
    copy.remember(5, 1.0, 1000)
    assert again == history


# -------------------------------------------------------------------------------------- under differential privacy


class Free(CentralDP):
    """The stage without the optional accountant, which these tests do not need."""

    def epsilon(self, state: object) -> float:
        return 0.0


def test_no_refusal_depends_on_norms_that_a_stage_protects() -> None:
    """Whether an update counts must not depend on the raw changes of others, nor on its own before it is clipped."""
    hand = Hand(FedBuff(1), clients=20, config=ALL, stages=[Free(clip=2.0, noise_multiplier=1e-9)])
    after_a_round(hand, 0.01)
    before = hand.server.model.weights
    from_client(hand, 3, 1e6)
    assert not hand.log.reasons
    moved = float(torch.linalg.vector_norm(hand.server.model.weights - before))
    assert moved == pytest.approx(2.0, rel=1e-3), "clipped"
    assert hand.server.state.norms == NormHistory(), "no norm is remembered"
    hand.arrive(hand.waiting[0], weights=vec(float("nan"), 0))
    assert hand.log.reasons == ["weights are not finite"]


def test_the_same_changes_are_refused_without_such_a_stage() -> None:
    hand = after_a_round(Hand(FedBuff(1), clients=20, config=replace(ALL, max_change_norm=1e9)), 0.01)
    from_client(hand, 3, 1e6)
    assert len(hand.log.reasons) == 1
