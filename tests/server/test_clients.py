"""What a rule is shown, and who is idle or away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from fedecho.algorithms.base import sample
from fedecho.algorithms.fedbuff import FedBuff
from fedecho.core.keys import Key
from fedecho.core.messages import Joined, Left, Task, View
from fedecho.server.settings import ServerConfig
from fedecho.server.snapshots import ClientList, Snapshots, TaskTable
from helpers import Hand, through_json


@dataclass(frozen=True)
class Collector(FedBuff):
    """Keeps every view that it is shown, with copies of what was in it."""

    views: ClassVar[list[tuple[View, list[int], dict[int, Task]]]] = []

    def ready(self, state: Any, view: View) -> bool:
        self.views.append((view, list(view.idle), dict(view.in_flight)))
        return super().ready(state, view)


def test_a_view_that_is_kept_does_not_change() -> None:
    Collector.views.clear()
    hand = Hand(Collector(1), clients=6)
    for _ in range(5):
        hand.arrive(hand.waiting[0])
    hand.event(Left(2.0, hand.server.state.idle[0]))
    hand.lose(hand.waiting[0])
    assert len(Collector.views) == 7
    assert len({tuple(idle) for _, idle, _ in Collector.views}) > 2
    for view, idle, in_flight in Collector.views:
        assert list(view.idle) == idle
        assert dict(view.in_flight) == in_flight


@dataclass(frozen=True)
class Everybody(FedBuff):
    """Selects the idle clients as they are shown, or one by one."""

    lazily: bool = False

    def select(self, state: Any, view: View, key: Key) -> Any:
        return (client for client in view.idle) if self.lazily else view.idle


def test_a_rule_may_select_what_it_is_shown() -> None:
    for lazily in (False, True):
        hand = Hand(Everybody(1, lazily=lazily), clients=6)
        assert [hand.sent[task].task.client for task in hand.waiting] == list(range(6))


def test_a_snapshot_is_copied_only_where_it_is_still_in_use() -> None:
    clients = [1, 2, 3]
    snapshots = Snapshots(ClientList, clients)
    kept = snapshots.take()
    assert snapshots.take() is kept
    assert kept._content is clients
    snapshots.before_change()
    clients.append(4)
    assert list(kept) == [1, 2, 3]
    assert kept._content is not clients
    del kept
    assert snapshots.take()[-1] == 4
    snapshots.before_change()
    assert list(snapshots.take()[1:]) == [2, 3, 4]


def test_a_snapshot_is_read_like_what_it_shows() -> None:
    clients = Snapshots(ClientList, [5, 6, 7]).take()
    assert (len(clients), clients[0], clients[-1], 6 in clients, clients.index(7)) == (3, 5, 7, True, 2)
    assert sample(clients, 2, Key(0)) == sample([5, 6, 7], 2, Key(0))
    task = Task(4, 0, 0, 0.0)
    tasks = Snapshots(TaskTable, {4: task}).take()
    assert (len(tasks), tasks[4], tasks.get(5), 4 in tasks, list(tasks.values())) == (1, task, None, True, [task])


def test_the_absent_are_found_without_a_search_and_keep_their_order() -> None:
    """A list of those away would be searched at every event."""
    hand = Hand(FedBuff(1), clients=6, away=[5, 3], config=ServerConfig(concurrency=1))
    hand.event(Left(1.0, 4))
    hand.event(Left(1.0, 0))
    hand.event(Joined(1.0, 5))
    away = hand.server.state.away
    assert isinstance(away, dict)
    assert list(away) == [3, 4, 0]
    snapshot = hand.server.snapshot()
    hand.event(Joined(1.0, 4))
    hand.event(Joined(2.0, 6))
    assert list(snapshot.away) == [3, 4, 0]
    assert list(through_json(snapshot).away) == [3, 4, 0]
    assert list(hand.server.state.away) == [3, 0]
    assert hand.server.clients == 7
    other = Hand(FedBuff(1), clients=6, config=ServerConfig(concurrency=1))
    other.server.restore(through_json(snapshot))
    assert list(other.server.state.away) == [3, 4, 0]
    assert other.server.state.idle == snapshot.idle
