"""The virtual federation: the order of events, when work is done, and that the host's speed never shows."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedecho.algorithms.fedasync import FedAsync
from fedecho.algorithms.fedavg import FedAvg
from fedecho.algorithms.fedbuff import FedBuff
from fedecho.core.errors import RecordError, Stalled
from fedecho.core.messages import (
    Arrived,
    Cancel,
    Dispatch,
    Event,
    Joined,
    Left,
    Lost,
    Model,
    Task,
    TrainResult,
    Wake,
    WakeAt,
)
from fedecho.executors.inline import Inline
from fedecho.server.settings import ServerConfig, Stop
from fedecho.simulation.population import Population
from fedecho.simulation.replay import ReplayTransport
from fedecho.simulation.transport import SimulatedTransport
from helpers import Log, Quadratics, drive, make_server, population, through_json, transport_for

MODEL = Model(0, torch.zeros(1), torch.zeros(0))


@dataclass
class Echoing:
    """Trains nothing, and notes what it was asked."""

    trained: list[int] = field(default_factory=list)

    def train(self, task: Task, model: Model) -> TrainResult:
        self.trained.append(task.id)
        return TrainResult(task.id, model.weights, model.buffers, 1)


def send(transport: SimulatedTransport, *jobs: tuple[int, int], at_s: float = 0.0) -> None:
    transport.send([Dispatch(Task(task, client, 0, at_s), MODEL) for task, client in jobs])


def number(event: Event) -> int:
    return event.result.task if isinstance(event, Arrived) else event.task if isinstance(event, Lost) else -1


def all_events(transport: SimulatedTransport) -> list[Event]:
    """Until nothing is left."""
    events: list[Event] = []
    with contextlib.suppress(Stalled):
        while len(events) < 10_000:
            event = transport.next()
            events.append(event)
    return events


# ------------------------------------------------------------------------------------------------------------ the queue

queues = st.fixed_dictionaries(
    {
        "times": st.lists(st.sampled_from([1.0, 2.0, 2.5, 7.0]), min_size=1, max_size=5),
        "clients": st.lists(st.integers(0, 4), max_size=25),
        "cancelled": st.sets(st.integers(0, 24)),
        "timers": st.lists(st.sampled_from([0.5, 1.0, 2.0, 9.0]), max_size=3, unique=True),
        "dropout": st.sampled_from([0.0, 0.4]),
        "steps": st.integers(0, 10),
    }
)


@given(queues)
def test_time_never_decreases_and_every_job_ends_exactly_once_unless_cancelled(queue: dict[str, Any]) -> None:
    people = population([[1.0, 2.0, 2.5]] * 4 + [queue["times"]], dropout=queue["dropout"])
    worker = Echoing()
    transport = SimulatedTransport(people, Inline(worker))
    transport.send([WakeAt(at_s) for at_s in queue["timers"]])
    half = len(queue["clients"]) // 2
    send(transport, *enumerate(queue["clients"][:half]))
    events = [transport.next() for _ in range(min(queue["steps"], half))]
    now = transport.now_s
    send(transport, *enumerate(queue["clients"][half:], start=half), at_s=now)
    ended = {number(event) for event in events}
    cancelled = {task for task in queue["cancelled"] if task < len(queue["clients"])} - ended
    transport.send([Cancel(task) for task in sorted(cancelled)])
    events += all_events(transport)

    times = [event.at_s for event in events]
    assert times == sorted(times)
    jobs = [event for event in events if number(event) >= 0]
    assert sorted(number(event) for event in jobs) == sorted(set(range(len(queue["clients"]))) - cancelled)
    assert sorted(event.at_s for event in events if isinstance(event, Wake)) == sorted(queue["timers"])
    for event in jobs:  # each when the population said
        task = number(event)
        plan = people.plan(queue["clients"][task], task, now if task >= half else 0.0, 0, 0)
        assert event.at_s == plan.ends_at_s
        assert isinstance(event, Lost) == (plan.lost is not None)
    assert worker.trained == [number(event) for event in jobs if isinstance(event, Arrived)]


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12))
def test_ties_come_in_the_order_in_which_jobs_were_sent_and_timers_before_jobs(clients: list[int]) -> None:
    transport = SimulatedTransport(population([[2.0]] * 3), Inline(Echoing()))
    send(transport, *enumerate(clients))
    transport.send([WakeAt(2.0)])
    events = all_events(transport)
    assert isinstance(events[0], Wake)
    assert [number(event) for event in events[1:]] == list(range(len(clients)))


def test_nobody_waits_for_a_cancelled_job() -> None:
    transport = SimulatedTransport(population([[1.0], [500.0]]), Inline(Echoing()))
    send(transport, (0, 0), (1, 1))
    transport.send([Cancel(1), Cancel(77)])
    assert [number(event) for event in all_events(transport)] == [0]
    assert transport.now_s == 1.0


def test_the_network_takes_its_time_both_ways() -> None:
    people = population([[1.0]], down_mbps=8.0, up_mbps=4.0, latency_s=0.25)
    transport = SimulatedTransport(people, Inline(Echoing()), down_bytes=10**6, up_bytes=10**6)
    send(transport, (0, 0))
    assert transport.next().at_s == pytest.approx(1.0 + 2 * 0.25 + 1.0 + 2.0)


# ----------------------------------------------------------------------------------------------------------- whole runs

SLOW = [[1.0, 1.5, 2.0]] * 4 + [[4.0, 6.5]] * 2 + [[40.0]] * 2
CONFIG = ServerConfig(concurrency=5, aggregate_s=0.125)


def run(people: Population, worker: Quadratics, stop: Stop, rule: Any = None) -> Log:
    rule = rule or FedBuff(3)
    server, log = make_server(rule, people, worker, stop, CONFIG), Log()
    drive(server, transport_for(server, people, worker), log)
    return log


def quadratics(**more: Any) -> Quadratics:
    return Quadratics(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), **more)


@pytest.mark.parametrize(
    ("stop", "rule"),
    [
        (Stop(virtual_time_s=30.0), FedBuff(3)),
        (Stop(updates=25), FedAsync()),
        (Stop(versions=6), FedAvg(cohort=3, over_selection=0.6)),
    ],
)
def test_a_job_whose_result_cannot_arrive_before_the_runs_end_is_never_computed(stop: Stop, rule: Any) -> None:
    worker, people = quadratics(), population(SLOW, dropout=0.2)
    log = run(people, worker, stop, rule)
    arrived = [event.result.task for event in log.events if isinstance(event, Arrived)]
    assert worker.trained == arrived
    assert len(arrived) < len(log.of("dispatch"))


def test_a_job_that_ends_with_the_run_or_later_is_not_even_handed_out() -> None:
    people, worker = population([[1.0], [2.0], [3.0]]), Echoing()
    executor = Inline(worker)
    transport = SimulatedTransport(people, executor, ends_at_s=2.0)
    send(transport, (0, 0), (1, 1), (2, 2))
    assert set(executor._jobs) == {0}
    assert number(transport.next()) == 0


def test_the_hosts_speed_never_shows_in_the_events() -> None:
    people = population(SLOW, dropout=0.1, available_fraction=0.8, day_s=25.0)
    delays = iter([0.0, 0.004, 0.001, 0.008] * 50)
    quick, slow = quadratics(), quadratics(before=lambda task: time.sleep(next(delays)))
    first, second = (run(people, worker, Stop(updates=60)) for worker in (quick, slow))
    assert [(type(e), e.at_s) for e in first.events] == [(type(e), e.at_s) for e in second.events]
    assert first.facts == second.facts


class Eager(Inline):
    """Computes every job as soon as it is sent, last one first where several are sent at once."""

    def __init__(self, worker: Quadratics) -> None:
        super().__init__(worker)
        self.early: dict[int, TrainResult] = {}

    def compute(self) -> None:
        for task in sorted(self._jobs, reverse=True):
            self.early[task] = super().result(task)

    def result(self, task: int) -> TrainResult:
        self.compute()
        return self.early.pop(task)


def test_when_a_job_is_computed_never_shows_in_the_result() -> None:
    people, worker = population(SLOW, dropout=0.1), quadratics()
    log = run(people, worker, Stop(updates=60))
    early = Eager(quadratics())
    server, log_early = make_server(FedBuff(3), people, worker, Stop(updates=60), CONFIG), Log()
    drive(server, transport_for(server, people, early), log_early)
    assert log_early.facts == log.facts
    pairs = zip(log.events, log_early.events, strict=True)
    assert all(torch.equal(a.result.weights, b.result.weights) for a, b in pairs if isinstance(a, Arrived))


RESTARTS = {
    "fedbuff": (FedBuff(3), Stop(updates=40)),
    "fedavg": (FedAvg(cohort=3, over_selection=0.6, round_deadline_s=5.0), Stop(virtual_time_s=45.0)),
}


@pytest.mark.parametrize("case", RESTARTS)
def test_a_restart_from_the_tasks_in_flight_gives_the_same_events_wherever_it_happens(case: str) -> None:
    rule, stop = RESTARTS[case]
    people = population(SLOW, dropout=0.15, available_fraction=0.75, day_s=20.0)
    whole = run(people, quadratics(), stop, rule)
    told = [(type(e), e.at_s, number(e)) for e in whole.events]
    for at in range(len(whole.events)):
        worker, before, after = quadratics(), Log(), Log()
        part = make_server(rule, people, worker, stop, CONFIG)
        drive(part, transport_for(part, people, worker), before, at)
        rest = make_server(rule, people, worker, stop, CONFIG)
        rest.restore(through_json(part.snapshot()))
        drive(rest, transport_for(rest, people, worker), after)
        assert [(type(e), e.at_s, number(e)) for e in before.events + after.events] == told
        assert before.facts + after.facts == whole.facts


@settings(max_examples=40)
@given(fraction=st.sampled_from([0.3, 0.6, 0.9]), day_s=st.sampled_from([3.0, 8.0, 20.0]), stop_at=st.integers(0, 30))
def test_comings_and_goings_alternate_and_agree_with_the_population(
    fraction: float, day_s: float, stop_at: int
) -> None:
    people = population([[1.0]] * 4, available_fraction=fraction, day_s=day_s)
    absent = {client for client in range(4) if not people.present(client, 0.0)}
    transport = SimulatedTransport(people, Inline(Echoing()), away=absent)
    for _ in range(stop_at):
        event = transport.next()
        assert isinstance(event, Joined | Left)
        assert isinstance(event, Joined) == people.present(event.client, event.at_s) == (event.client in absent)
        absent ^= {event.client}
    again = SimulatedTransport(people, Inline(Echoing()), now_s=transport.now_s, away=absent)
    assert [transport.next() for _ in range(8)] == [again.next() for _ in range(8)]


def test_a_change_that_the_server_has_not_heard_of_is_told_after_a_restart() -> None:
    people = population([[1.0]], available_fraction=0.5, day_s=10.0)
    at_s = people.next_change(0, 0.0)
    assert at_s is not None
    gone = not people.present(0, at_s)
    transport = SimulatedTransport(people, Inline(Echoing()), now_s=at_s, away=[] if gone else [0])
    assert transport.next() == (Left(at_s, 0) if gone else Joined(at_s, 0))


def test_stalled_says_when_and_why() -> None:
    # batches of three, and slots for two: the third answer never comes
    people, worker = population([[1.0], [2.0]]), Quadratics(torch.ones(2, 1))
    server = make_server(FedBuff(3), people, worker, Stop(updates=9), ServerConfig(2, refill="batch"))
    transport = transport_for(server, people, worker)
    with pytest.raises(Stalled, match=r"at 2\.0 s although the run is not done.*buffer_size or the cohort"):
        drive(server, transport, Log())


# --------------------------------------------------------------------------------------------------------------- replay


def inbox(log: Log) -> list[tuple[float, str, int, str]]:
    return [
        (
            e.at_s,
            type(e).__name__.lower(),
            e.client if isinstance(e, Joined | Left) else max(number(e), 0),
            e.reason if isinstance(e, Lost) else "",
        )
        for e in log.events
    ]


def replayed(entries: list[tuple[float, str, int, str]], stop: Stop, people: Population) -> Log:
    worker, log = quadratics(), Log()
    server = make_server(FedAvg(cohort=3, over_selection=0.6, round_deadline_s=5.0), people, worker, stop, CONFIG)
    drive(server, ReplayTransport(entries, Inline(worker)), log)  # type: ignore[arg-type]
    return log


def test_a_recording_replays_to_the_same_facts_and_says_when_it_does_not_fit() -> None:
    rule, stop = RESTARTS["fedavg"]
    people = population(SLOW, dropout=0.15, available_fraction=0.75, day_s=20.0)
    log = run(people, quadratics(), stop, rule)
    entries = inbox(log)
    assert {kind for _, kind, _, _ in entries} == {"arrived", "lost", "joined", "left", "wake"}
    assert replayed(entries, stop, people).facts == log.facts
    executor = Inline(quadratics())
    transport = ReplayTransport(entries, executor)
    transport.send([Dispatch(Task(task, 0, 0, 0.0), MODEL) for task in range(8)])
    arrived = {number for _, kind, number, _ in entries if kind == "arrived"}
    assert set(executor._jobs) == arrived & set(range(8)) != set(range(8)), "others are not computed"
    with pytest.raises(RecordError, match="the record ends"):
        replayed(entries[:-5], stop, people)
    with pytest.raises(RecordError, match="never sent"):
        replayed([(1.0, "arrived", 500, ""), *entries], stop, people)
