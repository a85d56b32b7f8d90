"""The page of a run on a live federation: real seconds, clients that come and go, a model that nobody need judge."""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import math
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pages import OVERFLOWING, UNDRAWN, figures_of, opened, painted, tables_of, words

from fedecho import Config, RecordError, resume, run
from fedecho.cli.main import main
from fedecho.core.errors import Interrupted
from fedecho.core.keys import Key
from fedecho.core.messages import (
    Arrived,
    Command,
    Dispatch,
    Event,
    Joined,
    Left,
    LogEntry,
    Lost,
    Model,
    Rejected,
    TrainResult,
)
from fedecho.experiment.live import prepare_live
from fedecho.experiment.live_recorder import LiveRecorder
from fedecho.experiment.run import drive
from fedecho.report import events, write_report
from fedecho.report.data import EVERYONE
from fedecho.runs.folder import RunFolder
from fedecho.runs.schema import BOOKKEEPING
from fedecho.simulation.build import build
from fedecho.studies.runs import find_runs, read_run
from fedecho.studies.summary import summarize

TABLES: dict[str, Any] = {
    "experiment": {"name": "clinics", "versions": 12, "seed": 5},
    "data": {"dataset": "flower", "clients": 3},
    "server": {"concurrency": EVERYONE},
    "algorithm": {"name": "fedbuff", "buffer_size": 3},
    "transport": {"name": "flower"},
}
DELAYS_S = {0: 2.0, 1: 3.0, 2: 20.0, 3: 4.0, 4: 1e6}
DIED = "error 3: " + "the node died with a long story " * 9
LATECOMERS_S = {3: 10.0, 4: 44.9}
"""Client 4 comes just before the end."""


class Nodes:
    """A live federation as its server sees it: five clients, of which three are there from the start."""

    def __init__(self) -> None:
        self.now_s, self._number = 0.0, 0
        self._jobs = dict.fromkeys(DELAYS_S, 0)
        self._due: list[tuple[float, int, Event]] = []
        for client in DELAYS_S:
            self._say(Joined(LATECOMERS_S.get(client, 0.5), client, f"77{client}"))

    def _say(self, event: Event) -> None:
        self._number += 1
        heapq.heappush(self._due, (event.at_s, self._number, event))

    def send(self, commands: Iterable[Command]) -> None:
        for command in commands:
            assert isinstance(command, Dispatch)
            task, model = command.task, command.model
            at_s = task.issued_at_s + DELAYS_S[task.client]
            self._jobs[task.client] += 1
            if task.client == 1 and self._jobs[1] % 3 != 1:
                self._say(Left(at_s, 1))
                self._say(Lost(at_s, task.id, DIED + str(task.id)))
                self._say(Joined(at_s + 1.0, 1, "771"))
            elif task.client == 3 and self._jobs[3] % 2 == 0:
                self._say(Rejected(at_s, task.id, "its arrays are <unreadable>"))
            else:
                weights = model.weights + 0.01 * (1 + task.client)
                self._say(Arrived(at_s, TrainResult(task.id, weights, model.buffers, 10, {"loss": 1 / (1 + task.id)})))

    def next(self) -> Event:
        self.now_s, _, event = heapq.heappop(self._due)
        return event


def serve(
    out: Path, judge: Callable[[Model], Mapping[str, float | None]] = lambda model: {}, stop: float = math.inf
) -> Path:
    """A run as a ServerApp would leave it; `stop` is the number of updates at which it is interrupted."""
    config = Config.from_dict(TABLES)
    start = Model(0, torch.zeros(6), torch.zeros(0))
    setup = prepare_live(config, lambda learner: start, None, None, judge, lambda learner, m: {"x": m.weights})
    folder = RunFolder.create(out, config.to_toml(), setup.environment())
    folder.save_start({"weights": start.weights, "buffers": start.buffers})
    journal = _Journal(setup, folder, stop)
    with contextlib.suppress(Interrupted):
        drive(setup, journal, Nodes())
    return out


class _Journal(LiveRecorder):
    """With what clients found who evaluated, and the server's own metrics, as the Flower strategies record them."""

    def __init__(self, setup: Any, folder: RunFolder, stop: float) -> None:
        super().__init__(setup, folder)
        self._stop = stop

    def commit(self, log: Any) -> None:
        assert self.folder is not None
        for entry in log:
            if entry.kind == "aggregate":
                detail: dict[str, float | str] = {"accuracy": 0.5, "num-examples": 3.0, "node": "770"}
                self.folder.add_log_entry(
                    self.seq, LogEntry("evaluate", entry.at_s, version=entry.version, detail=detail)
                )
                self.folder.add_log_entry(
                    self.seq, LogEntry("judge", entry.at_s, version=entry.version, detail={"f1": 0.25})
                )
        self.stop_requested = self.setup.server.state.updates >= self._stop
        super().commit(log)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nobody judged it."""
    return serve(tmp_path_factory.mktemp("live") / "state")


@pytest.fixture(scope="module")
def page(live: Path) -> str:
    return write_report([live]).read_text(encoding="utf-8")


# ----------------------------------------------------------------------------------------------------------- the events


def test_clients_are_those_that_ever_joined_in_classes_by_their_job_times(live: Path) -> None:
    found = events.read(read_run(live))
    assert found.clients == 5
    assert found.groups == ("fast", "fast", "slow", "medium", "unknown"), "the last had no time to answer"
    assert {group: share.clients for group, share in found.shares.items()} == {
        group: found.groups.count(group) for group in events.CLASSES if group in found.groups
    }
    assert sum(share.updates for share in found.shares.values()) == 36
    assert {reason for _, reason in found.refused} == {"its arrays are <unreadable>"}
    assert all(reason.startswith(DIED) for _, reason in found.lost)
    assert found.totals[0].judged["accuracy"] == 0.5, "node 770 is client 0"
    assert found.totals[3].refused
    assert not found.totals[0].refused
    fitted = build(4, Key(0), name=f"run:{live}")
    assert fitted.groups == found.groups[:4], "a population that is fitted to the run has the same classes"


def test_nobody_is_slow_where_nobody_is_slower(live: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("test_report_live.DELAYS_S", dict.fromkeys(range(3), 2.0))
    path = serve(tmp_path / "alike")
    assert events.read(read_run(path)).groups == ()
    text = words(write_report([path]).read_text(encoding="utf-8"))
    assert "speed class" not in text
    assert "t-shares" not in text


# ------------------------------------------------------------------------------------------------------------ the page


def test_it_says_that_nobody_judged(live: Path, page: str) -> None:
    text = words(page)
    assert "fedbuff ran for 36 updates on the live federation “clinics”; nobody judged the model." in text
    assert "Nobody judged the accuracy of fedbuff: the ServerApp gave no `evaluate_fn`" in text
    assert "not finished" not in text
    assert not {"t-accuracy", "t-cost", "t-pairs-accuracy"} & set(tables_of(page))
    assert list(figures_of(page)["time"]) == ["train_loss"]
    assert "Clients' training loss over time" in text.replace("&#39;", "'")
    assert "Lower at the same time is faster" in text


def test_its_seconds_are_real(page: str) -> None:
    assert "virtual" not in words(page)
    assert figures_of(page)["timeline"]["0"]["layout"]["xaxis"]["title"]["text"] == "time, seconds"
    assert "simulated" not in words(page)


def test_it_tells_settings_that_a_live_run_has(page: str) -> None:
    text = words(page)
    assert "5 clients, all at work at a time" in text
    assert "server.concurrency all that are there" in text
    assert "transport.evaluate_every 1" in text
    for absent in ("population.", "client.", "data.", "eval_every ", "model mlp", "delays “", "split ", str(EVERYONE)):
        assert not re.search(rf"(?<!\w){re.escape(absent)}", text.replace("transport.evaluate_every", "")), absent


def test_it_says_why_answers_were_refused_and_tasks_lost(page: str) -> None:
    rows = tables_of(page)["t-refused"]["csv"].splitlines()
    assert [row.rpartition(",")[0] for row in rows if ",refused," in row] == [
        "fedbuff,refused,–,its arrays are <unreadable>"
    ]
    assert "its arrays are &lt;unreadable&gt;" in page
    lost = [row for row in rows if ",lost," in row]
    assert len(lost) == 1, "their long reasons differ at the end alone"
    assert lost[0].startswith("fedbuff,lost,–,error 3: the node died")
    assert max(map(len, rows)) < 200
    clients = tables_of(page)["t-clients-0"]["csv"].splitlines()
    assert clients[0].endswith('refused,lost,"its own accuracy, %"')
    assert clients[1].startswith("0,fast,")
    assert clients[1].endswith(",50.0"), "node 770 evaluated"
    assert "its arrays are <unreadable>" in next(row for row in clients if row.startswith("3,"))
    bars = {trace["name"] for trace in figures_of(page)["timeline"]["0"]["data"]}
    assert bars == {"accepted", "refused", "lost", "still at work at the end"}
    ticks = figures_of(page)["timeline"]["0"]["layout"]["yaxis"]["ticktext"]
    assert [tick.split("<br>")[0] for tick in ticks] == ["fast", "medium", "slow", "unknown"]
    assert "by the rank of their mean job time" in page
    assert "Unknown: too little was heard of them." in page


def test_every_figure_has_something_in_it(page: str, live: Path, tmp_path: Path) -> None:
    from plotly.graph_objects import Figure

    short = {n: write_report([serve(tmp_path / f"{n}", stop=n)]).read_text(encoding="utf-8") for n in (1, 8)}
    assert "norms" not in figures_of(short[1]), "one update is no line"
    assert "norms" in figures_of(short[8])
    for text in (page, *short.values()):
        for name, variants in figures_of(text).items():
            for variant, figure in variants.items():
                Figure(painted({part: figure[part] for part in ("data", "layout")}))
                assert figure["data"], (name, variant)


def test_a_judged_run(tmp_path: Path) -> None:
    path = serve(tmp_path / "judged", lambda model: {"accuracy": 0.1 + 0.05 * model.version, "loss": 2.0})
    page = write_report([path]).read_text(encoding="utf-8")
    text = words(page)
    assert "fedbuff has an accuracy of 60.0 % with one seed." in text
    assert "s to 57 %" in text
    assert "virtual" not in text
    assert "on the machine that served the clients." in text
    assert "Nobody judged" not in text


def test_live_and_simulated_runs_on_one_page(live: Path, tmp_path: Path) -> None:
    tables = {"experiment": {"updates": 12, "eval_every": 6}, "data": {"clients": 5, "unlabeled_size": 20}}
    config = Config.from_dict(
        {**tables, "server": {"concurrency": 4, "buffer_size": 3}, "population": {"from": str(live)}}
    )
    run(config, tmp_path / "what-if")
    page = write_report([live, tmp_path / "what-if"], tmp_path / "both.html").read_text(encoding="utf-8")
    text = words(page)
    assert "After 12 updates on digits, fedbuff has an accuracy of" in text
    assert "nobody judged the model" in text
    assert "g1-timeline" in figures_of(page)
    assert figures_of(page)["g1-timeline"]["0"]["layout"]["xaxis"]["title"]["text"] == "time, seconds"
    assert figures_of(page)["g2-timeline"]["0"]["layout"]["xaxis"]["title"]["text"].startswith("virtual time, ")
    assert "live federation “clinics”" in text


def test_one_that_goes_on_is_drawn_as_far_as_it_got(tmp_path: Path) -> None:
    path = serve(tmp_path / "half", stop=20)
    text = words(write_report([path]).read_text(encoding="utf-8"))
    assert "No run on the live federation “clinics” is finished yet" in text
    assert "seed 5 is not finished: it is drawn as far as it got, 18 updates" in text


def test_a_new_one_has_a_page_too(tmp_path: Path) -> None:
    config = Config.from_dict(TABLES)
    RunFolder.create(tmp_path / "new", config.to_toml(), {}).close()
    assert "0 clients" in words(write_report([tmp_path / "new"]).read_text(encoding="utf-8"))


@pytest.mark.parametrize("width", [360, 1280])
def test_in_a_browser(live: Path, page: str, browser: Any, width: int) -> None:
    with opened(browser, live / "report.html", width) as shown:
        assert shown.evaluate(UNDRAWN) == []
        shown.evaluate("document.querySelectorAll('details').forEach((e) => (e.open = true))")
        assert shown.evaluate("document.documentElement.scrollWidth") == width
        assert shown.evaluate(OVERFLOWING) == []


# ------------------------------------------------------------------------------------------------------------ beside it


def test_a_summary_of_runs_without_accuracy(live: Path) -> None:
    (row,) = summarize(find_runs([live])).rows
    assert row.metrics["accuracy"].last_5_mean is None
    assert (row.area, row.reached, row.target_s, row.difference) == (None, 0, None, None)
    assert row.wall_s is not None


def test_tensorboard_without_accuracy(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from fedecho.runs.tensorboard import TensorBoardSink

    board = TensorBoardSink(tmp_path)
    board.evaluated({**dict.fromkeys([*BOOKKEEPING, "accuracy"]), "updates": 3, "version": 1, "train_loss": 0.5})
    board.close()
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    assert set(read.Tags()["scalars"]) == {"metrics/updates", "metrics/version", "metrics/train_loss"}


def test_resume_leaves_what_a_replay_needs(live: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "copy"
    shutil.copytree(live, path)
    kept = sorted(file.name for file in path.glob("checkpoint-*"))
    assert kept
    with pytest.raises(RecordError, match="start its ServerApp again"):
        resume(path)
    assert main(["resume", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert sorted(file.name for file in path.glob("checkpoint-*")) == kept


def test_a_model_without_a_name_stays_without(live: Path) -> None:
    config = Config.load(live / "config.toml")
    assert config.model.name == ""
    assert Config.from_dict(config.to_dict()) == config
    named = dataclasses.replace(config, model=dataclasses.replace(config.model, name="app.task:Net"))
    assert Config.from_dict(named.to_dict()).model.name == "app.task:Net"
