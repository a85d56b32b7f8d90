"""The server: what it refuses, what it keeps, whom it gives work, when it stops."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from fedecho.algorithms.base import Algorithm
from fedecho.algorithms.ca2fl import CA2FL
from fedecho.algorithms.fadas import FADAS, DelayAdaptiveFADAS
from fedecho.algorithms.fedac import FedAC
from fedecho.algorithms.fedasync import FedAsync
from fedecho.algorithms.fedavg import FedAvg
from fedecho.algorithms.fedbuff import FedBuff
from fedecho.core.errors import ConfigError, Diverged
from fedecho.core.keys import Key
from fedecho.core.messages import Arrived, Dispatch, Joined, Left, Lost, Model, Wake
from fedecho.core.schedules import Schedule
from fedecho.objectives.predictions import ClassPredictions
from fedecho.server.server import Server
from fedecho.server.settings import RECENT_NORMS, ServerConfig, Stop
from fedecho.stages.compute import LOGITS, PredictionFormat
from fedecho.stages.echo import Echo
from helpers import Hand, Log, Quadratics, drive, make_server, population, transport_for, vec

# ------------------------------------------------------------------------------------------------------------- refusals

NAN, INF = math.nan, math.inf
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nan": ({"weights": vec(NAN, 0)}, "weights are not finite"),
    "inf": ({"weights": vec(0, INF)}, "weights are not finite"),
    "shape": ({"weights": vec(1, 2, 3)}, "weights have shape (3,), not (2,)"),
    "dtype": ({"weights": vec(1, 2).double()}, "weights have dtype torch.float64, not torch.float32"),
    "norm": ({"weights": vec(3e4, 4e4)}, "change has an absurd norm, 5e+04 > 1e+04"),
    "buffers nan": ({"buffers": vec(NAN)}, "buffers are not finite"),
    "buffers shape": ({"buffers": vec(1, 2)}, "buffers have shape (2,), not (1,)"),
    "no examples": ({"num_examples": 0}, "num_examples is 0"),
    "negative examples": ({"num_examples": -3}, "num_examples is -3"),
    "nan examples": ({"num_examples": NAN}, "num_examples is nan"),
    "predictions nan": ({"predictions": torch.full((4, 3), NAN)}, "predictions are not finite"),
    "predictions shape": ({"predictions": torch.zeros(3, 4)}, "predictions have shape (3, 4), not (4, 3)"),
}


class Compute:
    """Predictions that a test chooses; nothing is ever distilled."""

    predictions = ClassPredictions()
    answer = torch.zeros(4, 3)

    def predict(
        self, model: Model, inputs: torch.Tensor | None = None, form: PredictionFormat = LOGITS
    ) -> torch.Tensor:
        return self.answer

    def distill(self, model: Model, *rest: Any) -> tuple[torch.Tensor, float]:
        return model.weights, 0.0


@pytest.mark.parametrize("case", BAD)
def test_a_bad_update_is_refused_with_its_reason_and_the_run_goes_on(case: str) -> None:
    changed, reason = BAD[case]
    hand = Hand(FedBuff(2), buffers=1, stages=[Echo()], compute=Compute(), outputs=(4, 3))
    first, bad, third = hand.waiting
    hand.arrive(first)
    before = hand.server.snapshot()
    hand.arrive(bad, **changed)
    after = hand.server.state
    assert hand.log.reasons == [reason]
    (fact,) = hand.log.of("refuse")
    assert (fact.task, fact.client, fact.staleness) == (bad, hand.sent[bad].task.client, 0)
    assert (after.model, after.algorithm, after.stages) == (before.model, before.algorithm, before.stages)
    assert (after.updates, after.refused, after.since_aggregation) == (1, 1, 1)
    assert len(hand.waiting) == 3, "the freed slot has new work"
    hand.arrive(third)
    assert hand.server.model.weights.tolist() == [1, 1]
    assert hand.server.model.version == 1


def test_a_change_many_times_longer_than_the_recent_ones_is_refused_once_there_are_enough_to_know() -> None:
    hand = Hand(FedBuff(1), config=ServerConfig(concurrency=3, max_change_ratio=20.0))
    for i in range(RECENT_NORMS):  # the first, of length 500, is no reason to refuse anything yet
        hand.arrive(hand.waiting[0], delta=vec(300, 400) if i == 0 else vec(0, 2))
    hand.arrive(hand.waiting[0], delta=vec(0, 39.9))  # 20 times the median of 2, not of the mean, is the limit
    assert not hand.log.reasons
    hand.arrive(hand.waiting[0], delta=vec(0, 40.1))
    assert hand.log.reasons == ["change has an absurd norm, 40.1: the recent ones' median is 2"]
    hand.arrive(hand.waiting[0], delta=vec(0, 2))
    assert hand.server.state.updates == RECENT_NORMS + 2
    assert len(hand.server.state.norms) == RECENT_NORMS


def test_changes_that_all_become_long_are_refused_only_until_they_are_usual() -> None:
    hand = Hand(FedBuff(1))
    for _ in range(RECENT_NORMS):
        hand.arrive(hand.waiting[0], delta=vec(0, 1))
    for _ in range(RECENT_NORMS):
        hand.arrive(hand.waiting[0], delta=vec(0, 100))
    assert len(hand.log.reasons) == RECENT_NORMS // 2 + 1, "until they are the median"
    assert hand.server.state.updates == RECENT_NORMS + RECENT_NORMS // 2


def test_predictions_that_the_server_makes_are_judged_too() -> None:
    compute = Compute()
    hand = Hand(FedBuff(1), stages=[Echo()], compute=compute, outputs=(4, 3))
    compute.answer = torch.full((4, 3), INF)
    hand.arrive(hand.waiting[0])
    assert hand.log.reasons == ["predictions are not finite"]
    assert not hand.server.state.stages[0].rows


def test_an_answer_to_an_unknown_or_an_answered_task_is_refused() -> None:
    hand = Hand(FedBuff(1))
    task = hand.waiting[0]
    update = hand.update(task)
    hand.event(Arrived(1.0, replace(update, task=999)))
    assert hand.server.model.version == 0
    hand.event(Arrived(1.0, update))
    weights = hand.server.model.weights
    hand.event(Arrived(2.0, update))
    lost = hand.waiting[0]
    hand.lose(lost)
    hand.arrive(lost)
    hand.event(Lost(2.0, lost, "dropout"))  # lost twice: nothing happens
    over = "already answered, lost or cancelled"
    assert hand.log.reasons == ["unknown task", over, over]
    assert hand.server.model.weights is weights
    assert hand.server.state.updates == 1
    assert len(hand.log.of("lost")) == 1
    assert len(hand.waiting) == 3


def test_a_lost_tasks_client_may_work_again_and_its_slot_is_refilled() -> None:
    hand = Hand(FedBuff(2), clients=3)
    task = hand.waiting[0]
    hand.lose(task)
    (fact,) = hand.log.of("lost")
    assert fact.detail == {"reason": "dropout"}
    assert [hand.sent[t].task.client for t in hand.waiting[-1:]] == [hand.sent[task].task.client]


# ------------------------------------------------------------------------------------------------------------- versions


def test_a_version_is_kept_only_while_a_job_needs_it() -> None:
    hand = Hand(FedBuff(1))
    straggler, *_ = hand.waiting
    for i in range(5):
        hand.arrive(hand.waiting[-1], at_s=float(i))
        needed = {hand.sent[task].task.version for task in hand.waiting} | {hand.server.model.version}
        assert set(hand.server.state.versions) == needed
    assert 0 in hand.server.state.versions
    hand.arrive(straggler, delta=vec(2, 0))
    assert hand.server.model.weights.tolist() == [5 + 2, 5], "its change counts from version 0, where it started"
    assert hand.log.of("accept")[-1].staleness == 5
    assert set(hand.server.state.versions) <= {0, 4, 5, 6}
    for task in hand.waiting:
        hand.lose(task)
    assert set(hand.server.state.versions) == {6}


def test_versions_stay_few_through_a_long_run() -> None:
    people = population([[1.0, 2.0]] * 6 + [[90.0]] * 2, dropout=0.2)
    worker = Quadratics(torch.ones(8, 2))
    server = make_server(FedAsync(), people, worker, Stop(updates=400), ServerConfig(concurrency=4))

    class Watch(Log):
        most = 0

        def accept(self, event: Any) -> None:
            state = server.state
            assert set(state.versions) == {t.version for t in state.in_flight.values()} | {state.model.version}
            assert len(state.in_flight) == len({t.client for t in state.in_flight.values()}) <= 4
            assert not {t.client for t in state.in_flight.values()} & set(state.idle)
            self.most = max(self.most, len(state.versions))

    log = Watch()
    drive(server, transport_for(server, people, worker), log)
    assert 2 < log.most <= 5


# --------------------------------------------------------------------------------------------------------------- refill


def test_immediate_refill_gives_the_slot_of_the_mth_arrival_the_new_version() -> None:
    hand = Hand(FedBuff(2))
    hand.arrive(0)
    assert hand.sent[3].task.version == 0
    hand.arrive(1)
    assert hand.sent[4].task.version == 1
    assert torch.equal(hand.sent[4].model.weights, hand.server.model.weights)
    assert len(hand.waiting) == 3


def test_batch_refill_waits_for_the_aggregation_but_replaces_what_was_lost() -> None:
    hand = Hand(FedBuff(2), config=ServerConfig(concurrency=3, refill="batch"))
    hand.arrive(0)
    assert hand.waiting == [1, 2]
    hand.lose(1)
    assert hand.waiting == [2, 3]
    hand.arrive(2)
    assert hand.waiting == [3, 4, 5]
    assert [hand.sent[task].task.version for task in hand.waiting] == [0, 1, 1]


# --------------------------------------------------------------------------------------------------------------- FedAvg


def test_over_selection_cancels_those_who_are_late() -> None:
    hand = Hand(FedAvg(cohort=2, over_selection=0.5), clients=6)
    assert hand.waiting == [0, 1, 2]
    hand.arrive(1, num_examples=3, delta=vec(4, 0))
    assert hand.waiting == [0, 2]
    hand.arrive(2, num_examples=1, delta=vec(0, 8))
    assert hand.server.model.weights.tolist() == [3, 2]
    assert hand.cancelled == [0]
    assert hand.waiting == [3, 4, 5]
    assert {hand.sent[task].task.version for task in hand.waiting} == {1}
    hand.arrive(0, at_s=2)
    assert hand.log.reasons == ["already answered, lost or cancelled"]
    assert set(hand.server.state.versions) == {1}


def test_a_round_ends_at_its_deadline_with_those_who_answered() -> None:
    hand = Hand(FedAvg(cohort=3, round_deadline_s=10), clients=6)
    assert hand.timers == [10.0]
    hand.arrive(0, at_s=4)
    hand.event(Wake(10.0))
    assert hand.server.model.version == 1
    assert hand.cancelled == [1, 2]
    assert hand.timers == [10.0, 20.0]
    hand.event(Wake(20.0))
    assert hand.server.model.version == 1, "nobody has answered"
    hand.arrive(3, at_s=23)
    assert hand.server.model.version == 2, "the first answer after the deadline ends the round"


# ----------------------------------------------------------------------------------------------------------------- stop


@pytest.mark.parametrize(
    ("stop", "updates", "versions"),
    [
        (Stop(updates=7), 7, 3),
        (Stop(versions=3), 6, 3),
        (Stop(updates=100, versions=2), 4, 2),
        (Stop(virtual_time_s=5.0), 8, 4),  # two clients, a job a second; at 5 s the timer comes first
        (Stop(virtual_time_s=4.5, updates=10**6), 8, 4),
    ],
)
def test_a_run_stops_at_the_first_limit(stop: Stop, updates: int, versions: int) -> None:
    people, worker = population([[1.0], [1.0]]), Quadratics(torch.ones(2, 2))
    server = make_server(FedBuff(2), people, worker, stop, ServerConfig(concurrency=2))
    drive(server, transport_for(server, people, worker), Log())
    assert (server.state.updates, server.model.version) == (updates, versions)
    assert server.progress == 1.0
    assert server.state.now_s == stop.virtual_time_s or stop.virtual_time_s is None


def test_nobody_is_given_work_once_the_run_is_done() -> None:
    hand = Hand(FedBuff(1), stop=Stop(updates=1))
    hand.arrive(0)
    assert hand.server.done
    assert hand.waiting == [1, 2]


def test_progress_is_that_of_the_nearest_limit() -> None:
    stop = Stop(updates=10, versions=4, virtual_time_s=100)
    assert stop.progress(2, 1, 10) == 0.25
    assert stop.progress(2, 1, 60) == 0.6
    assert stop.progress(5, 1, 10) == 0.5


# -------------------------------------------------------------------------------------------------- averages, schedules


def test_ema_judges_the_average_but_sends_the_model() -> None:
    hand = Hand(FedBuff(1), config=ServerConfig(concurrency=1, ema=0.75))
    average = x = 0.0
    for task in range(3):
        hand.arrive(task)
        x += 1
        average = 0.75 * average + 0.25 * x
        assert hand.server.output.weights.tolist() == pytest.approx([average, average])
        assert hand.sent[task + 1].model.weights.tolist() == [x, x]
        assert hand.server.output.version == hand.server.model.version == task + 1
    assert Hand(FedBuff(1)).server.output.weights.tolist() == [0, 0]


def test_the_schedules_scale_the_servers_step_and_tell_the_clients_theirs() -> None:
    config = ServerConfig(
        concurrency=1, schedule=Schedule("linear", final=0.0), client_schedule=Schedule("step", milestones=(0.5,))
    )
    hand = Hand(FedBuff(1, lr=1.0), config=config, stop=Stop(updates=4))
    for task in range(3):
        hand.arrive(task)
    assert hand.server.model.weights[0] == pytest.approx(0.75 + 0.5 + 0.25)
    scales = [hand.sent[task].task.extra["lr_scale"] for task in range(4)]
    assert scales == pytest.approx([1, 1, 0.1, 0.1])


@pytest.mark.parametrize(
    ("schedule", "at", "factor"),
    [
        (Schedule(), 0.7, 1.0),
        (Schedule("linear", final=0.2), 0.5, 0.6),
        (Schedule("cosine", final=0.0), 0.5, 0.5),
        (Schedule("cosine", final=0.1), 1.0, 0.1),
        (Schedule("cosine"), 0.0, 1.0),
        (Schedule("step", milestones=(0.5, 0.75), gamma=0.1), 0.49, 1.0),
        (Schedule("step", milestones=(0.5, 0.75), gamma=0.1), 0.75, 0.01),
        (Schedule("linear", final=0.0, warmup=0.2), 0.1, 0.45),
        (Schedule(warmup=0.2), 0.2, 1.0),
        (Schedule("linear", final=0.5), 7.0, 0.5),
    ],
)
def test_schedules_by_hand(schedule: Schedule, at: float, factor: float) -> None:
    assert schedule(at) == pytest.approx(factor)


# ---------------------------------------------------------------------------------------------------------------- clock


def test_what_the_server_is_charged_for_delays_what_comes_next() -> None:
    config = ServerConfig(concurrency=2, aggregate_s=3.0, stage_s=1.0, predict_s=0.5)
    hand = Hand(FedBuff(2), stages=[Echo()], compute=Compute(), outputs=(4, 3), config=config)
    hand.arrive(0, at_s=10.0)  # 0.5 s to predict
    assert hand.sent[2].task.issued_at_s == 10.5
    hand.arrive(1, at_s=10.2)  # comes while the server is busy until 10.5; then 0.5 + 3 + 1 s of work
    assert hand.log.of("accept")[-1].at_s == 10.5
    assert hand.sent[3].task.issued_at_s == 15.0
    hand.arrive(2, at_s=12.0, predictions=torch.zeros(4, 3))  # waits until 15; its predictions cost nothing
    assert hand.log.of("accept")[-1].detail["waited_s"] == 15.0 - 10.5
    assert hand.sent[4].task.issued_at_s == 15.0
    assert hand.server.state.event_s == 12.0


# ----------------------------------------------------------------------------------------------------- joining, leaving


def test_only_clients_that_are_there_are_given_work() -> None:
    hand = Hand(FedBuff(1), clients=4, away=[2], config=ServerConfig(concurrency=4))
    assert {d.task.client for d in hand.sent.values()} == {0, 1, 3}
    hand.event(Joined(1.0, 2))
    assert hand.sent[3].task.client == 2
    hand.event(Joined(1.0, 2))  # heard twice
    task = next(t for t in hand.waiting if hand.sent[t].task.client == 1)
    hand.event(Left(2.0, 1))
    hand.event(Left(2.0, 1))
    hand.arrive(task, at_s=3.0)  # it had left, and yet its answer comes: it counts, and it gets no new work
    assert hand.server.state.updates == 1
    assert all(hand.sent[t].task.client != 1 for t in hand.waiting)
    assert hand.server.state.idle == []
    hand.event(Joined(4.0, 1))
    assert hand.sent[max(hand.sent)].task.client == 1
    kinds = [fact.kind for fact in hand.log.facts if fact.kind in ("join", "leave")]
    assert kinds == ["join", "leave", "join"]


def test_a_client_that_comes_back_before_its_answer_is_not_given_a_second_task() -> None:
    hand = Hand(FedBuff(1), clients=2, config=ServerConfig(concurrency=2))
    client = hand.sent[0].task.client
    hand.event(Left(1.0, client))
    hand.event(Joined(2.0, client))
    assert hand.waiting == [0, 1]
    hand.arrive(0)
    assert hand.sent[2].task.client == client
    assert hand.waiting == [1, 2]


# -------------------------------------------------------------------------------------------------------------- buffers


@pytest.mark.parametrize(
    "rule", [FedAvg(2), FedBuff(2), CA2FL(2), FADAS(2), DelayAdaptiveFADAS(2)], ids=lambda r: r.name
)
def test_buffers_are_the_plain_mean_of_those_that_arrived(rule: Algorithm) -> None:
    hand = Hand(rule, buffers=2, config=ServerConfig(concurrency=2))
    for buffers in ((vec(1, 10), vec(3, 30)), (vec(-5, 0), vec(5, 2))):  # of the second round, nothing of the first
        for task, value in zip(list(hand.waiting), buffers, strict=True):
            hand.arrive(task, buffers=value, num_examples=1 + task, delta=vec(0, 1))
        assert torch.equal(hand.server.model.buffers, (buffers[0] + buffers[1]) / 2)


def test_a_refused_updates_buffers_count_for_nothing() -> None:
    hand = Hand(FedBuff(1, max_staleness=0), buffers=1)
    hand.arrive(0, buffers=vec(2))
    hand.arrive(1, buffers=vec(50))
    hand.arrive(3, buffers=vec(4), at_s=2)
    assert hand.log.reasons == ["too late"]
    assert hand.server.model.buffers.tolist() == [4]


# ------------------------------------------------------------------------------------------------------------ contracts


def test_a_stage_without_anybody_to_compute_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="compute"):
        Server(FedBuff(), Model(0, vec(0), vec()), 2, Key(0), Stop(updates=1), stages=[Echo()])


def test_restarting_sends_again_what_was_in_flight_and_every_timer() -> None:
    hand = Hand(FedAvg(cohort=3, round_deadline_s=10), clients=6, stop=Stop(virtual_time_s=50))
    hand.arrive(1)
    other = Hand(FedAvg(cohort=3, round_deadline_s=10), clients=6, stop=Stop(virtual_time_s=50))
    other.server.restore(hand.server.snapshot())
    commands, facts = other.server.start(1.0)
    sent = [command for command in commands if isinstance(command, Dispatch)]
    assert [command.task.id for command in sent] == [0, 2]
    assert all(command.model.weights is hand.sent[command.task.id].model.weights for command in sent)
    assert [command.at_s for command in commands if not isinstance(command, Dispatch)] == [50.0, 10.0]
    assert not facts


@dataclass(frozen=True)
class Impatient(FedBuff):
    """Stops everybody else after each aggregation, one by one."""

    def cancelled(self, state: Any, view: Any) -> Any:
        return (task for task in view.in_flight)


def test_a_rule_may_abandon_lazily() -> None:
    hand = Hand(Impatient(1))
    hand.arrive(0)
    assert hand.cancelled == [1, 2]
    assert hand.waiting == [3, 4, 5]


def test_a_model_that_is_not_finite_any_more_ends_the_run_with_its_reason() -> None:
    hand = Hand(FedBuff(1, lr=3e39), config=ServerConfig(concurrency=1))
    with pytest.raises(Diverged, match=r"not finite after aggregation 1 .*lower the algorithm's or the stage's step"):
        hand.arrive(0)


def test_an_update_without_what_its_rules_clients_report_is_refused() -> None:
    hand = Hand(FedAC(buffer_size=3), clients=6)
    hand.arrive(0)
    hand.arrive(1, extra={"c_i": torch.zeros(3)})
    hand.arrive(2, extra={"c_i": 0.0})
    hand.arrive(3, extra={"c_i": torch.tensor([1.0, math.inf])})
    wrong = "c_i is missing, or not of shape (2,)"
    assert hand.log.reasons == [wrong, wrong, wrong, "c_i is not finite"]
    hand.arrive(4, extra={"c_i": torch.zeros(2)})
    assert [fact.task for fact in hand.log.of("accept")] == [4]
