"""Who is slow, who drops out, who is away: the population's promises to the virtual clock."""

from __future__ import annotations

import heapq
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist, fmean, median, stdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedecho.core.errors import ConfigError
from fedecho.core.keys import Key
from fedecho.simulation.build import build
from fedecho.simulation.job_times import Exponential, LogNormal, standard_normal
from fedecho.simulation.population import Plan, Population
from fedecho.simulation.settings import GROUPS, PopulationConfig, default_counts, names

RANGES_S = {
    "none": {"fast": (1, 2)},
    "mild": {"fast": (1, 2), "medium": (3, 5), "slow": (5, 8)},
    "large": {"fast": (1, 2), "medium": (3, 5), "slow": (50, 80)},
}
SYNTHETIC = ("none", "mild", "large", "exponential", "lognormal")


def faults(clients: int = 50, **changed: object) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        build(clients, Key(0), **changed)
    return caught.value.faults


def job_s(people: Population, client: int, task: int) -> float:
    return people.plan(client, task, 0.0, 0, 0).ends_at_s


# ----------------------------------------------------------------------------------------------------- every population


everything = st.fixed_dictionaries(
    {
        "name": st.sampled_from(SYNTHETIC),
        "dropout": st.sampled_from([0.0, 0.3]),
        "timeout_s": st.sampled_from([None, 0.5, 100.0]),
        "down_mbps": st.sampled_from([0.0, 8.0]),
        "up_mbps": st.sampled_from([0.0, 2.0]),
        "network_sigma": st.sampled_from([0.0, 1.0]),
        "latency_s": st.sampled_from([0.0, 0.1]),
        "available_fraction": st.one_of(st.just(1.0), st.floats(0.001, 0.999)),
        "day_s": st.floats(0.01, 1e5),
    }
)
jobs = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 10**9), st.floats(0, 1e7), st.integers(0, 10**9)),
    min_size=1,
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(everything, jobs, st.integers(0, 2**32))
def test_a_plan_is_a_function_of_its_job_alone(config, jobs, seed):
    one, other = build(10, Key(seed), **config), build(10, Key(seed), **config)
    forwards = [one.plan(client, task, at_s, size, size) for client, task, at_s, size in jobs]
    backwards = [other.plan(client, task, at_s, size, size) for client, task, at_s, size in reversed(jobs)]
    assert forwards == backwards[::-1]
    for (client, _, at_s, _), plan in zip(jobs, forwards, strict=True):
        assert plan.ends_at_s >= at_s
        assert plan.lost in (None, "dropout", "left")
        if plan.lost == "left":
            assert not one.present(client, plan.ends_at_s)
        else:
            assert one.present(client, at_s)


def test_seeds_differ_and_settings_of_one_thing_leave_the_others_alone():
    mild, large = build(50, Key(0), name="mild"), build(50, Key(0), name="large", dropout=0.5, network_sigma=1.0)
    assert mild.groups == large.groups != build(50, Key(1), name="mild").groups
    fast = mild.members("fast")
    assert [job_s(mild, c, 7) for c in fast] == [job_s(large, c, 7) for c in fast]


@pytest.mark.parametrize("name", RANGES_S)
def test_times_lie_in_the_range_of_their_class(name):
    people = build(50, Key(3), name=name)
    for client, group in enumerate(people.groups):
        low, high = RANGES_S[name][group]
        times = [job_s(people, client, task) for task in range(200)]
        assert low <= min(times) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < max(times) <= high
        assert fmean(times) == pytest.approx(people.expected_time_s(client), rel=0.1)


def test_issue_time_only_shifts_a_plan():
    people = build(5, Key(0), name="mild")
    assert people.plan(2, 4, 100.0, 0, 0).ends_at_s == pytest.approx(100 + job_s(people, 2, 4))


def test_names():
    assert names() == ("exponential", "large", "lognormal", "mild", "none", "phones", "run:RUN_DIR", "trace:PATH")


def test_a_plan_takes_microseconds():
    people = build(50, Key(0), name="lognormal", dropout=0.1, down_mbps=8.0, network_sigma=1.0, available_fraction=0.5)
    best = float("inf")
    for _ in range(3):
        started = time.process_time()
        for task in range(5000):
            people.plan(task % 50, task, float(task), 1000, 1000)
        best = min(best, time.process_time() - started)
    assert best / 5000 < 50e-6


# --------------------------------------------------------------------------------------------------------------- groups


@pytest.mark.parametrize(
    ("clients", "expected"),
    [(1, (1, 0, 0)), (2, (1, 1, 0)), (7, (4, 2, 1)), (10, (6, 3, 1)), (50, (29, 14, 7)), (1000, (580, 280, 140))],
)
def test_default_class_counts(clients, expected):
    people = build(clients, Key(0), name="large")
    assert tuple(len(people.members(group)) for group in GROUPS) == expected


@given(st.integers(1, 3000))
def test_default_class_counts_of_any_number(clients):
    fast, medium, slow = default_counts(clients)
    assert fast + medium + slow == clients
    assert min(medium, slow) >= 0
    assert fast >= 1
    assert clients < 7 or slow >= 1


def test_slow_clients_can_be_given_another_speed_and_stay_the_same_clients():
    there, gone = build(50, Key(3), name="large"), build(50, Key(3), name="large", slow_s=(1, 2))
    assert there.members("slow") == gone.members("slow")
    for task, client in enumerate(range(50)):
        slow = client in gone.members("slow")
        assert (job_s(gone, client, task) == job_s(there, client, task)) is not slow
        assert not slow or 1 <= job_s(gone, client, task) <= 2


def test_given_class_counts_are_dealt_in_random_order():
    people = build(6, Key(0), name="mild", class_counts=[3, 2, 1])
    assert Counter(people.groups) == {"fast": 3, "medium": 2, "slow": 1}
    slow = Counter(build(6, Key(seed), name="mild", class_counts=(3, 2, 1)).members("slow")[0] for seed in range(300))
    assert set(slow) == set(range(6))
    assert max(slow.values()) < 100


def test_members_partition_the_clients():
    people = build(50, Key(0), name="lognormal")
    assert sorted(client for group in GROUPS for client in people.members(group)) == list(range(50))
    with pytest.raises(ConfigError, match="no speed group is called 'Slow': use one of fast, medium, slow"):
        people.members("Slow")


def test_continuous_populations_group_by_expected_time():
    people = build(50, Key(0), name="lognormal")
    times = {group: [people.expected_time_s(client) for client in people.members(group)] for group in GROUPS}
    assert [len(times[group]) for group in GROUPS] == [29, 14, 7]
    assert max(times["fast"]) < min(times["medium"])
    assert max(times["medium"]) < min(times["slow"])
    assert len(build(50, Key(0), name="exponential", sigma=1.0, class_counts=(30, 10, 10)).members("slow")) == 10


def test_nobody_is_slow_where_all_are_alike():
    for name in ("none", "exponential"):
        assert set(build(50, Key(0), name=name).groups) == {"fast"}


def test_dirichlet_assignment_draws_classes_as_the_fadas_code():
    # By hand, with Gammas of shapes 3, 2, 1: P(slow) = ∫ e^-x F₃(x) F₂(x) dx = 1 - 3/4 - 7/8 + 19/27.
    drawn = [build(50, Key(seed), name="large", assignment="dirichlet") for seed in range(200)]
    slow = [len(people.members("slow")) for people in drawn]
    assert fmean(slow) / 50 == pytest.approx(1 - 3 / 4 - 7 / 8 + 19 / 27, abs=0.01)
    assert sorted(slow)[5] >= 1
    assert sorted(slow)[-6] <= 8


# ------------------------------------------------------------------------------------------------- the regimes of FADAS


def replay(people: Population, versions: int = 500, running: int = 25, buffer: int = 5) -> tuple[list[int], float]:
    """The FADAS code's loop without a model: staleness of every update, and the share that slow clients sent."""
    idle, heap, task, staleness, slow = set(range(people.clients)), [], 0, [], 0

    def dispatch(count: int, now_s: float, version: int) -> None:
        nonlocal task
        for _ in range(count):
            client = sorted(idle)[Key(9).fold("who", task).below(len(idle))]
            idle.remove(client)
            heapq.heappush(heap, (people.plan(client, task, now_s, 0, 0).ends_at_s, task, client, version))
            task += 1

    dispatch(running, 0.0, 0)
    for version in range(versions):
        for _ in range(buffer):
            now_s, _, client, born = heapq.heappop(heap)
            staleness.append(version - born)
            slow += people.groups[client] == "slow"
            idle.add(client)
        dispatch(buffer, now_s, version + 1)
    return staleness, slow / len(staleness)


def test_the_mild_regime_is_that_of_the_fadas_code():
    staleness, slow = replay(build(50, Key(0), name="mild"))
    assert 3.5 <= fmean(staleness) <= 4.2
    assert 10 <= max(staleness) <= 25
    assert 0.03 <= slow <= 0.08


def test_the_large_regime_is_that_of_the_fadas_code():
    staleness, slow = replay(build(50, Key(0), name="large"))
    assert 3.2 <= fmean(staleness) <= 4.2
    assert 75 <= max(staleness) <= 150
    assert 0.004 <= slow <= 0.014


# ----------------------------------------------------------------------------------------------- continuous job times


def test_exponential_times():
    people = build(3, Key(0), name="exponential", mean_s=4.0)
    times = [job_s(people, 1, task) for task in range(5000)]
    assert fmean(times) == pytest.approx(4, rel=0.05)
    assert stdev(times) == pytest.approx(4, rel=0.08)
    assert sum(t < 4 * 0.6931 for t in times) / 5000 == pytest.approx(0.5, abs=0.02)
    assert {people.expected_time_s(client) for client in range(3)} == {4.0}


def test_lognormal_times_vary_between_clients_and_between_jobs():
    people = build(4000, Key(0), name="lognormal", mean_s=10.0, sigma=0.5, job_sigma=0.2)
    means = [people.expected_time_s(client) for client in range(4000)]
    assert fmean(means) == pytest.approx(10, rel=0.03)
    assert median(means) == pytest.approx(10 * 2.718281828 ** (-0.125), rel=0.03)
    times = [job_s(people, 5, task) for task in range(4000)]
    assert fmean(times) == pytest.approx(means[5], rel=0.02)
    assert stdev(times) / fmean(times) == pytest.approx(0.202, rel=0.08)


def test_a_draw_of_zero_is_harmless():
    class Zero(Key):
        def uniform(self, draw: int = 0) -> float:
            return 0.0

    assert LogNormal(1.0, 1.0).draw(Zero(0)) > 0
    assert Exponential(1.0).draw(Zero(0)) == 0
    assert standard_normal(Zero(0)) == NormalDist().inv_cdf(2.0**-54)


def test_phones_keep_the_ratios_of_the_devices(monkeypatch):
    monkeypatch.setattr("fedecho.simulation.delay_models.phones._device_fps", lambda: [60.0, 30.0, 0.0, 10.0])
    people = build(60, Key(0), name="phones", mean_s=6.0, job_sigma=0.0)
    # Of the three measured devices the median one, of 30 frames a second, takes `mean_s`.
    assert {round(people.expected_time_s(client), 9) for client in range(60)} == {3.0, 6.0, 18.0}
    assert job_s(people, 0, 0) == pytest.approx(people.expected_time_s(0))
    assert len(people.members("slow")) == 8


@pytest.mark.skipif(shutil.which("npm") is None, reason="the phones' frame rates come with npm")
def test_real_phones():
    people = build(1000, Key(0), name="phones", mean_s=10.0)
    times = sorted(people.expected_time_s(client) for client in range(1000))
    assert times[500] == pytest.approx(10, rel=0.25)
    # Frame rates at 5 and 95 % are 4 and 69.
    assert 8 < times[950] / times[50] < 40
    assert len(people.members("slow")) == 140


# -------------------------------------------------------------------------------------------------------------- network


def test_network_time_by_hand():
    # 2 MB down at 8 Mbit/s is 2 s, 1 MB up at 2 Mbit/s is 4 s, and 0.05 s of latency each way.
    people = build(3, Key(0), down_mbps=8.0, up_mbps=2.0, latency_s=0.05)
    training_s = job_s(build(3, Key(0)), 1, 4)
    assert people.network_s(1, 2_000_000, 1_000_000) == pytest.approx(6.1)
    assert people.plan(1, 4, 10.0, 2_000_000, 1_000_000).ends_at_s == pytest.approx(10 + training_s + 6.1)
    assert people.expected_time_s(1) == 1.5


def test_no_bandwidth_given_is_an_instant_network():
    assert build(3, Key(0)).network_s(0, 10**12, 10**12) == 0


def test_bandwidth_varies_between_clients_around_its_median():
    people = build(2001, Key(0), down_mbps=8.0, up_mbps=2.0, network_sigma=0.5)
    down = [people.network_s(client, 10**6, 0) for client in range(2001)]
    assert median(down) == pytest.approx(1, rel=0.05)
    assert people.network_s(3, 0, 10**6) == pytest.approx(4 * down[3])
    assert len(set(down)) == 2001


# -------------------------------------------------------------------------------------------------------------- dropout


def test_dropout_loses_its_share_of_the_jobs():
    lossy, sound = build(10, Key(0), name="mild", dropout=0.2), build(10, Key(0), name="mild")
    plans = [lossy.plan(task % 10, task, 5.0, 0, 0) for task in range(5000)]
    assert sum(plan.lost == "dropout" for plan in plans) / 5000 == pytest.approx(0.2, abs=0.02)
    # Without a timeout a loss is heard of when the result would have come.
    assert [plan.ends_at_s for plan in plans] == [sound.plan(t % 10, t, 5.0, 0, 0).ends_at_s for t in range(5000)]


def test_timeout_is_when_a_silent_loss_is_noticed_and_touches_no_other_job():
    people, sound = build(10, Key(0), name="large", dropout=0.3, timeout_s=3.0), build(10, Key(0), name="large")
    for task in range(500):
        plan = people.plan(task % 10, task, 100.0, 0, 0)
        assert plan == (Plan(103.0, "dropout") if plan.lost else sound.plan(task % 10, task, 100.0, 0, 0))


# --------------------------------------------------------------------------------------------------------- availability


def test_always_there_by_default():
    people = build(2, Key(0))
    assert people.present(0, 1e9)
    assert people.next_change(0, 0.0) is None


@settings(max_examples=200, deadline=None)
@given(st.floats(0.001, 0.999), st.floats(0.01, 1e6), st.floats(0, 1e7), st.integers(0, 4))
def test_changes_are_where_presence_changes(fraction, day_s, at_s, client):
    people = build(5, Key(1), available_fraction=fraction, day_s=day_s)
    for _ in range(4):
        change_s = people.next_change(client, at_s)
        assert change_s is not None
        assert at_s < change_s <= at_s + day_s * (1 + 1e-6) + 1e-6
        assert people.present(client, (at_s + change_s) / 2) == people.present(client, at_s)
        assert people.present(client, change_s) != people.present(client, at_s)
        at_s = change_s


def test_windows_take_their_fraction_of_the_day_and_begin_apart():
    people = build(200, Key(0), available_fraction=0.3, day_s=100.0)
    present = fmean(people.present(client, float(at_s)) for client in range(200) for at_s in range(100))
    assert present == pytest.approx(0.3, abs=0.01)
    at_once = [sum(people.present(client, float(at_s)) for client in range(200)) for at_s in range(0, 100, 10)]
    assert 30 < min(at_once) <= max(at_once) < 95


def test_a_job_that_crosses_the_end_of_a_window_is_lost_at_that_moment():
    people, always = build(20, Key(0), name="mild", available_fraction=0.5, day_s=20.0), build(20, Key(0), name="mild")
    lost = Counter()
    for task in range(2000):
        client, at_s = task % 20, task * 0.37
        plan, end_s = people.plan(client, task, at_s, 0, 0), always.plan(client, task, at_s, 0, 0).ends_at_s
        if not people.present(client, at_s):
            assert plan == Plan(at_s, "left")
        elif people.next_change(client, at_s) < end_s:
            assert plan == Plan(people.next_change(client, at_s), "left")
            lost["crossed"] += 1
        else:
            assert plan == Plan(end_s)
            lost["arrived"] += 1
    assert min(lost["crossed"], lost["arrived"]) > 200


def test_a_departure_is_heard_of_before_a_later_timeout():
    people = build(1, Key(0), dropout=0.999, timeout_s=1000.0, available_fraction=0.5, day_s=100.0)
    joins_s = people.next_change(0, 0.0)
    if not people.present(0, joins_s):
        joins_s = people.next_change(0, joins_s)
    assert people.plan(0, 0, joins_s, 0, 0) == Plan(people.next_change(0, joins_s), "left")


@settings(max_examples=200, deadline=None)
@given(st.sets(st.integers(0, 23), min_size=1, max_size=23), st.floats(0.01, 1e6), st.floats(0, 1e7))
def test_changes_of_hours_are_where_presence_changes(hours, day_s, at_s):
    people = build(1, Key(1), availability="data", day_s=day_s).at_hours([tuple(hours)])
    for _ in range(4):
        change_s = people.next_change(0, at_s)
        assert change_s is not None
        assert at_s < change_s <= at_s + day_s * (1 + 1e-6) + 1e-6
        middle_s = min((at_s + change_s) / 2, math.nextafter(change_s, 0))  # at_s may be the last float before it
        assert people.present(0, middle_s) == people.present(0, at_s)
        assert people.present(0, change_s) != people.present(0, at_s)
        at_s = change_s


def test_hours_are_the_same_for_all_and_every_day():
    people = build(3, Key(0), availability="data").at_hours([(0, 1, 23), (7,), tuple(range(24))])
    there = [[h for h in range(48) if people.present(client, 3600.0 * h + 1800)] for client in range(3)]
    assert there == [[0, 1, 23, 24, 25, 47], [7, 31], list(range(48))]
    assert people.next_change(0, 0.0) == 2 * 3600
    assert people.next_change(1, 0.0) == 7 * 3600
    assert people.next_change(2, 0.0) is None
    assert people.plan(1, 0, 8 * 3600 - 0.5, 0, 0) == Plan(8 * 3600, "left")


def test_hours_that_are_none_are_refused():
    people = build(2, Key(0), availability="data")
    for hours, message in (([(1,)], "those of 1"), ([(1,), ()], r"client 1 has \[\]"), ([(24,), (1,)], r"has \[24\]")):
        with pytest.raises(ConfigError, match=message):
            people.at_hours(hours)
    (fault,) = faults(availability="data", available_fraction=0.5)
    assert "leave one of them out" in fault


# ---------------------------------------------------------------------------------------------------------------- trace


@pytest.fixture
def trace(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "times.csv"
        path.write_text(text, encoding="utf-8")
        return f"trace:{path}"

    return write


def test_trace_by_client(trace):
    people = build(3, Key(0), name=trace("client,seconds\n0,1.5\n2, 90\n1,4\n0,2.5\n7,1\n"))
    assert {job_s(people, 0, task) for task in range(50)} == {1.5, 2.5}
    assert [job_s(people, 1, 8), job_s(people, 2, 8)] == [4, 90]
    assert people.expected_time_s(0) == 2


def test_trace_by_device_draws_a_device_for_each_client(trace):
    lines = ["pixel,2", "pixel,3", '"old, slow",60']
    people = build(40, Key(0), name=trace("\ufeffnote,device,seconds\n" + "".join(f"x,{line}\n" for line in lines)))
    assert {people.expected_time_s(client) for client in range(40)} == {2.5, 60}
    shuffled = build(40, Key(0), name=trace("device,seconds\n" + "".join(f"{line}\n" for line in lines[::-1])))
    assert [shuffled.expected_time_s(c) for c in range(40)] == [people.expected_time_s(c) for c in range(40)]
    assert len(people.members("slow")) == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the first line must name the columns"),
        ("0,1\n1,2\n", "must name the columns `client,seconds` or `device,seconds`, got '0,1'"),
        ("client,seconds\n", "holds no times"),
        ("client,seconds\n0,1\n1,fast\n1,-2\n", r"line 3: `seconds` must be a number above 0, got 'fast' \(and 1 more"),
        ("client,seconds\n0\n", "line 2: `seconds` must be a number above 0, got None"),
        ("client,seconds\n,1\n", "line 2: `client` must be a name, got ''"),
        ("client,seconds\nanna,1\nben,2\n", "has times for 2 clients, and the run has 3: add lines for them"),
        ("who,ms\n0,1\n", "or set population.client_column and population.seconds_column"),
        ("device,seconds\n,1\n", "line 2: `device` must be a name, got ''"),
        ("client,seconds\n0,1\n", r"no times for 2 of 3 clients \(1, 2\)"),
    ],
)
def test_a_bad_trace_is_refused_in_one_line(trace, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build(3, Key(0), name=trace(text))
    assert len(str(caught.value).splitlines()) == 1
    assert "times.csv" in str(caught.value)


def test_an_unreadable_trace_is_refused_in_one_line(tmp_path):
    path = tmp_path / "times.csv"
    path.write_bytes(b"client,seconds\n0,\xff\n")
    (fault,) = faults(name=f"trace:{path}")
    assert "cannot be read as a CSV file" in fault
    (fault,) = faults(name=f"trace:{tmp_path}/none.csv")
    assert "there is no trace file at" in fault


# --------------------------------------------------------------------------------------------------------------- faults


def test_every_fault_at_once():
    found = faults(
        name="larg",
        class_counts=(1, 2),
        assignment="dealt",
        slow_s=(2.0, 1.0),
        mean_s=0.0,
        sigma=9.0,
        job_sigma="much",
        down_mbps=-1.0,
        up_mbps=float("nan"),
        network_sigma=None,
        latency_s=True,
        dropout=1.0,
        timeout_s=0.0,
        available_fraction=0.0,
        day_s=0,
        drop_out=0.5,
        availability="nights",
        client_column="",
        seconds_column=3,
        unit="days",
        options=5,
    )
    every = {*PopulationConfig.__dataclass_fields__, "drop_out"}
    assert {fault.split("`")[1] for fault in found} == every
    assert len(found) == len(every) + 1  # a regime that is none has no slow class either
    assert all("\n" not in fault and ":" in fault for fault in found)
    assert any("did you mean 'large'?" in fault for fault in found)
    assert any("did you mean `dropout`?" in fault for fault in found)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"class_counts": (1, 2, 3)},
            "add up to 6, but there are 50 clients: change the counts, or leave them out for [29",
        ),
        ({"class_counts": (29, 14, 7), "assignment": "dirichlet"}, "leave out the counts"),
        ({"class_counts": (50, 1, -1)}, "three integers"),
        ({"name": "large", "slow_s": (2, 1)}, "as [1, 2]"),
        ({"name": "large", "slow_s": (0, 1)}, "as [1, 2]"),
        ({"name": "lognormal", "slow_s": (1, 2)}, "leave it out"),
        ({"name": 3}, "no known population, got 3"),
        ({"dropout": 1.0}, "`dropout` must be a number from 0 to below 1, got 1.0: at 1 no result would ever arrive"),
    ],
)
def test_a_fault_says_what_is_wrong_and_what_to_do(changed, message):
    (fault,) = faults(**changed)
    assert message in fault


@pytest.mark.parametrize("clients", [0, -1, 2.5, True])
def test_the_number_of_clients_is_checked_with_the_rest(clients):
    assert len(faults(clients, dropout=2.0)) == 2


def test_the_defaults_are_sound():
    assert PopulationConfig().faults() == PopulationConfig().faults(50) == []
    for name in SYNTHETIC:
        assert PopulationConfig(name=name).faults(1) == []
        assert build(1, Key(0), name=name).clients == 1
