"""The page: true sentences, every table and figure, small and quick, and in a real browser nothing that goes wrong."""

from __future__ import annotations

import builtins
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fedecho import Config, MissingExtra, RecordError, run
from fedecho.cli.main import main
from fedecho.core.errors import Interrupted
from fedecho.report import events as facts
from fedecho.report import write_report
from fedecho.report.curves import Bundle, curves, mean_line
from fedecho.report.data import collect
from fedecho.report.figures import bins_of
from fedecho.report.style import MethodStyle
from fedecho.report.tables import Cell, Table, digits, plus_minus
from fedecho.report.timelines import MOST_JOBS, rows_of, timeline, window_of
from fedecho.runs import delays as observed
from fedecho.studies import compare
from fedecho.studies.summary import Spread
from support.pages import OVERFLOWING, browser, data_of, painted  # noqa: F401

METHODS = ["fedbuff", "fadas", "fedecho"]
SEEDS = [0, 1, 2]
LOSSY = {"name": "mild", "class_counts": [6, 4, 2], "dropout": 0.1}
TABLES: dict[str, Any] = {
    "experiment": {"name": "a <small> one", "updates": 60, "eval_every": 10},
    "data": {"clients": 12, "unlabeled_size": 60},
    "model": {"hidden": [16]},
    "client": {"epochs": 1, "batch_size": 20},
    "server": {"concurrency": 6, "buffer_size": 3},
    "stages": {"name": "echo", "steps": 3},
    "population": LOSSY,
}

SVG_FIGURES = {"time", "updates", "staleness", "speed", "timeline", "seconds", "norms"}
TABLE_IDS = {"t-comparison", "t-cost", "t-pairs", "t-shares", "t-differ", "t-common", "t-environment", "t-runs"}


class Stopper:
    """Stops a run after so many evaluations, as Ctrl-C would."""

    def __init__(self, evaluations: int) -> None:
        self.left = evaluations

    def started(self, setup: object) -> None: ...

    def progressed(self, setup: object) -> None:
        if self.left <= 0:
            raise Interrupted("stopped")

    def evaluated(self, row: object) -> None:
        self.left -= 1


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three methods × three seeds, as `fedecho compare` leaves them."""
    out = tmp_path_factory.mktemp("report") / "cmp"
    for job in compare.plan(TABLES, METHODS, SEEDS, [], out):
        compare.do(job)
    compare.note(out, METHODS, SEEDS, "fedecho")
    return out


@pytest.fixture(scope="module")
def page(comparison: Path) -> str:
    return write_report([comparison]).read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Every attribute of every element, and the text outside scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, {name: value or "" for name, value in attrs}))
        self._in_script = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if not self._in_script:
            self.text += data


# ------------------------------------------------------------------------------------------------------------ the page


def test_small_and_quick(comparison: Path, tmp_path: Path) -> None:
    began = time.perf_counter()
    file = write_report([comparison], tmp_path / "deep" / "page.html")
    assert time.perf_counter() - began < 20
    assert file.stat().st_size < 8e6


def test_asks_nothing_of_any_network(page: str) -> None:
    reader = Reader(page)
    for tag, attributes in reader.seen:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            if tag != "a" and name in attributes:
                assert attributes[name].startswith(("data:", "#")), (tag, attributes)
    policy = next(a["content"] for tag, a in reader.seen if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_every_figure_and_table_is_there(page: str) -> None:
    reader, data = Reader(page), data_of(page)
    places = {a["data-figure"] for tag, a in reader.seen if tag == "figure"}
    refined = {f"stages-{name}" for name in ("uncertainty", "alpha", "loss", "rows")}
    assert places == set(data["figures"]) >= SVG_FIGURES | refined
    tables = {a["id"] for tag, a in reader.seen if tag == "table"}
    assert tables == set(data["tables"]) == TABLE_IDS
    assert set(data["figures"]["time"]) == {
        "accuracy", "loss", "slow_client_accuracy", "fast_client_accuracy", "train_loss"
    }  # fmt: skip
    assert list(data["figures"]["timeline"]) == METHODS
    assert len(data["citations"]) == 3
    assert all(citation.startswith("@") and citation.endswith("\n}") for citation in data["citations"])


def test_accessible(page: str) -> None:
    reader = Reader(page)
    assert [tag for tag, _ in reader.seen].count("h1") == 1
    assert [tag for tag, _ in reader.seen].count("main") == 1
    ids = [a["id"] for _, a in reader.seen if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attributes in reader.seen:
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids
        if attributes.get("class") == "plot":
            assert attributes["role"] == "img"
            assert len(attributes["aria-label"]) > 30
        if tag == "label":
            assert attributes["for"] in ids
    assert [a["lang"] for tag, a in reader.seen if tag == "html"] == ["en"]


def test_names_are_escaped(page: str) -> None:
    assert "a &lt;small&gt; one" in page
    assert "<small> one" not in page


def test_plotly_accepts_every_figure(page: str) -> None:
    from plotly.graph_objects import Figure

    for name, variants in data_of(page)["figures"].items():
        for variant, figure in variants.items():
            Figure(painted(figure))
            assert figure["data"], (name, variant)


def test_lost_jobs_are_marked(page: str) -> None:
    bars = {trace["name"] for trace in data_of(page)["figures"]["timeline"]["fedecho"]["data"]}
    assert {"accepted", "lost", "still at work at the end"} <= bars
    assert "× marks a lost job" in page


def test_copied_tables(page: str) -> None:
    for name, dresses in data_of(page)["tables"].items():
        lines = dresses["md"].splitlines()
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1, name
        assert dresses["tex"].count("\\begin{tabular}") == dresses["tex"].count("\\end{tabular}") == 1
        assert not re.search(r"(?<!\\)[#_]", dresses["tex"]), name


# ------------------------------------------------------------------------------------------------------ the sentences


def test_the_headline_is_true(comparison: Path) -> None:
    study = collect([comparison])
    best, final = study.ranked[0]
    assert final.mean == max(row.final.mean for row in study.table.rows if row.final is not None)
    assert f"{best.label} has the highest mean accuracy, {100 * final.mean:.1f} %" in study.headline
    assert study.headline.startswith("After 60 updates on digits, ")
    for other, _ in study.ranked[1:]:
        gap = study.difference(best, other)
        assert gap is not None
        assert (gap.verdict == "tie") == (f"in a tie with {other.label}" in study.headline) or gap.verdict != "tie"
    assert "3 seeds" in study.headline


def with_results(monkeypatch: pytest.MonkeyPatch, comparison: Path, accuracies: dict[str, list[float]]) -> str:
    """The headline if the final accuracies had been these."""
    import dataclasses

    from fedecho.report import data as room

    found = [
        dataclasses.replace(r, result=dataclasses.replace(r.result, final_accuracy=accuracies[r.label][r.seed]))
        for r in room.find_runs([comparison])
        if r.result is not None and r.seed < len(accuracies.get(r.label, []))
    ]
    monkeypatch.setattr(room, "find_runs", lambda paths: found)
    return collect([comparison]).headline


@pytest.mark.parametrize(
    ("accuracies", "said"),
    [
        (
            {"fedecho": [0.90, 0.92, 0.94], "fedbuff": [0.80, 0.83, 0.83], "fadas": [0.93, 0.90, 0.92]},
            "After 60 updates on digits, fedecho has the highest mean accuracy, 92.0 %: ahead of fedbuff by 10.0 "
            "points; "
            "in a tie with fadas (0.3 points apart) (paired over 3 seeds).",
        ),
        ({"fedecho": [0.9], "fedbuff": [0.8]}, "One seed is not enough to judge fedbuff (−10.0 points)."),
        (
            {"fedecho": [0.92, 0.94]},
            "After 60 updates on digits, fedecho gets 93.0 % of the test examples right on average over 2 seeds.",
        ),
        (
            {"fedecho": [0.5, 0.6, 1.0], "fedbuff": [0.6, 0.7]},
            "has the highest mean accuracy, 70.0 %: behind fedbuff by 10.0 points over the seeds that both have",
        ),
    ],
)
def test_headlines(
    comparison: Path, monkeypatch: pytest.MonkeyPatch, accuracies: dict[str, list[float]], said: str
) -> None:
    assert said in with_results(monkeypatch, comparison, accuracies)


def test_unfinished_runs_are_shown_as_far_as_they_got(tmp_path: Path) -> None:
    config = Config.from_dict({**TABLES, "records": {"checkpoint_every_s": 1e-6}})
    with pytest.raises(Interrupted):
        run(config, tmp_path / "half", Stopper(4))
    text = write_report([tmp_path / "half"]).read_text(encoding="utf-8")
    assert "No run on digits is finished yet" in text
    assert "seed 0 is not finished: it is drawn as far as it got, 30 of 60 updates" in text
    line = data_of(text)["figures"]["updates"]["accuracy"]["data"][-1]
    assert line["x"] == [0, 10, 20, 30]
    with pytest.raises(Interrupted):
        run(config, tmp_path / "none", Stopper(0))
    assert "0 of 60 updates" in write_report([tmp_path / "none"]).read_text(encoding="utf-8")
    both = write_report([tmp_path], tmp_path / "both.html").read_text(
        encoding="utf-8"
    )  # the same method and seed twice
    assert "fedbuff+echo (half)" in both
    assert "fedbuff+echo (none)" in both


def test_other_settings_are_told(comparison: Path, tmp_path: Path) -> None:
    changed = {**TABLES, "data": {**TABLES["data"], "alpha": 0.5}, "experiment": {"updates": 12, "seed": 7}}
    run(Config.from_dict(changed), tmp_path / "other")
    study = collect([comparison / "fadas", tmp_path / "other"])
    assert [method.label for method in study.methods] == ["fadas", "fedbuff+echo"]
    said = " ".join(study.remarks)
    assert "The methods differ in more than the method (experiment.name, experiment.updates" in said
    assert "data.alpha" in said
    assert "different seeds" in said
    assert "no seed in common" in study.headline


# --------------------------------------------------------------------------------------------------------- the numbers


def test_facts_agree_with_the_records(comparison: Path) -> None:
    for study_run in collect([comparison]).finished:
        found = facts.read(study_run.path, study_run.config)
        result = study_run.result
        assert result is not None
        assert sum(found.staleness.values()) == result.updates == sum(share.updates for share in found.shares.values())
        assert [share.clients for share in found.shares.values()] == [6, 4, 2]
        assert sum(found.lost.values()) == result.lost
        assert found.norms[-1][0] == result.updates
        jobs, last_s = facts.jobs(study_run.path)
        how = [job.how for job in jobs]
        assert (how.count("accept"), how.count("lost")) == (result.updates, result.lost)
        assert last_s == pytest.approx(result.virtual_time_s)
        assert all(job.begins_s <= job.ends_s <= last_s for job in jobs)
        if study_run.label == "fedecho":
            assert [x for x, _ in found.refined["echo.alpha"]] == list(range(3, 61, 3))


def test_mean_lines() -> None:
    lines = {0: [(0.0, 0.0), (2.0, 1.0)], 1: [(0.0, 1.0), (1.0, 1.0), (4.0, 0.0)], 2: [(0.0, 9.0), (1.0, 9.0)]}
    found = mean_line(Bundle("a", lines, frozenset({0, 1})))
    assert found is not None
    x, mean, std = found
    assert x.tolist() == [0, 1, 2]  # as far as both go
    assert mean == pytest.approx([0.5, 0.75, (1 + 2 / 3) / 2])
    assert std[0] == pytest.approx(Spread.of([0.0, 1.0]).std)
    assert mean_line(Bundle("a", {0: []}, frozenset())) is None
    figure = curves([Bundle("a", lines, frozenset({0, 1}))], {"a": MethodStyle(0)}, "x", "y", percent=True)
    assert figure["layout"]["yaxis"]["range"][1] <= 1.005


def test_bins() -> None:
    assert bins_of(0) == [(0, 0)]
    assert bins_of(9) == [(0, 0), (1, 1), (2, 2), (3, 4), (5, 8), (9, 16)]


def test_the_timeline_stays_small() -> None:
    classes = ["fast"] * 600 + ["medium"] * 300 + ["slow"] * 100
    rows = rows_of(classes, 1000)
    assert len(rows) == 50
    assert [sum(classes[c] == group for c in rows) for group in ("fast", "medium", "slow")] == [30, 15, 5]
    jobs = [facts.Job(c % 1000, float(c), c + 2.5, "accept", 1, "") for c in range(100_000)]
    until_s = window_of(jobs, rows, 1e5)
    shown = timeline(jobs, classes, rows, until_s, MethodStyle(0), "time")
    assert 0 < sum(len(trace["x"]) for trace in shown["data"]) <= MOST_JOBS
    assert len(rows_of([], 80)) == 50


def test_tables() -> None:
    table = Table("t", "T", ["a_b", "c | d"], [[Cell("x&y"), Cell("1.0 ± 0.1", "best")]])
    assert table.markdown() == "| a_b | c \\| d |\n| --- | ---: |\n| x&y | **1.0 ± 0.1** |\n"
    assert r"x\&y & \textbf{1.0 $\pm$ 0.1} \\" in table.latex()
    assert plus_minus(None, 1) == "–"
    assert plus_minus(Spread(0.5, 0.012, 3), digits([Spread(0.5, 0.012, 3)], 100), 100) == "50.0 ± 1.2"
    assert plus_minus(Spread(0.5, 0.0002, 3), digits([Spread(0.5, 0.0002, 3)], 100), 100) == "50.00 ± 0.02"
    assert plus_minus(Spread(-0.5, 0.0, 1), 1) == "−0.5"


# ---------------------------------------------------------------------------------------------------- the command line


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_report_command(comparison: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "report", str(comparison))
    assert (code, err) == (0, "")
    assert re.fullmatch(rf"{re.escape(str(comparison))}/report\.html \(\d\.\d MB\)\n", out)
    file = tmp_path / "x.html"
    one = str(comparison / "fedecho" / "seed-0")
    assert call(capsys, "report", one, "-o", str(file), "--title", "My <title>", "--target", "0.3")[0] == 0
    text = file.read_text(encoding="utf-8")
    assert "<h1>My &lt;title&gt;</h1>" in text
    assert "virtual s to 30 %" in text
    assert "t-pairs" not in data_of(text)["tables"]


def test_bad_input(comparison: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(comparison / "fadas" / "seed-0", broken)
    (broken / "records.sqlite").write_bytes(b"no database" * 100)
    (tmp_path / "empty").mkdir()
    for arguments in (
        [str(tmp_path / "nothing")],
        [str(tmp_path / "empty")],
        [str(comparison / "fadas" / "seed-0" / "config.toml")],
        [str(broken)],
        [str(comparison), "--target", "90"],
        [str(comparison), "-o", str(comparison / "fadas" / "seed-0" / "config.toml" / "x.html")],
    ):
        code, out, err = call(capsys, "report", *arguments)
        assert (code, out) == (2, ""), arguments
        assert re.fullmatch(r"fedecho: [^\n]+\n", err), err


def test_without_plotly(comparison: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.startswith("plotly"):
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"pip install 'fedecho\[report\]'"):
        write_report([comparison])


def test_a_report_changes_nothing_in_the_runs(comparison: Path) -> None:
    def state() -> dict[str, bytes]:
        return {
            str(file): file.read_bytes()
            for file in comparison.rglob("*")
            if file.is_file() and file.suffix != ".html" and "-wal" not in file.name and "-shm" not in file.name
        }

    before = state()
    write_report([comparison])
    assert state() == before


# -------------------------------------------------------------------------------------------------------------- pandas


def test_pandas_reads_the_records(comparison: Path) -> None:
    """The lines in docs/records.md, and plain columns behind them."""
    import pandas as pd

    path = comparison / "fedecho" / "seed-0"
    text = (Path(__file__).parents[2] / "docs" / "records.md").read_text(encoding="utf-8")
    lines = re.findall(r"pd\.read_sql\(.*\)", text)
    assert len(lines) >= 3
    for line in lines:
        frame = eval(line.replace("RUN/", f"{path}/"), {"pd": pd, "sqlite3": sqlite3})
        assert len(frame), line
        assert not any(frame[name].astype(str).str.startswith("{").any() for name in frame), line
    with sqlite3.connect(path / "records.sqlite") as db:
        accepted, jobs, refined = (pd.read_sql(f"select * from {n}", db) for n in ("accepted", "jobs", "refined"))
    db.close()
    assert len(accepted) == 60
    assert accepted.change_norm.dtype.kind == accepted.loss.dtype.kind == accepted.waited_s.dtype.kind == "f"
    assert jobs.task.is_unique
    assert (jobs.ended == "accept").sum() == 60
    assert set(jobs[jobs.ended == "lost"].reason) == {"dropout"}
    ended = jobs[jobs.ended == "accept"].set_index("task")
    waited = accepted.set_index("task").waited_s
    assert (ended.ended_s - ended.began_s - waited).abs().max() < 1e-9
    assert set(refined.stage) == {"echo"}
    assert refined.alpha.between(0, 1).all()


# ------------------------------------------------------------------------------------------------------- in a browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_in_a_browser(comparison: Path, page: str, browser: Any, width: int, scheme: str, tmp_path: Path) -> None:  # noqa: F811
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, has_touch=width < 500, accept_downloads=True
    )
    shown = context.new_page()
    shown.set_default_timeout(120_000)  # a machine that others share
    said: list[str] = []
    asked: list[str] = []
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda fault: said.append(str(fault)))
    shown.on("request", lambda request: asked.append(request.url))
    shown.goto((comparison / "report.html").as_uri())
    shown.wait_for_selector("html[data-drawn=yes]", state="attached")
    drawn = (
        "() => [...document.querySelectorAll('[data-figure]')].filter((f) => !f.querySelector('svg.main-svg')).length"
    )
    assert shown.evaluate(drawn) == 0
    assert shown.evaluate("document.documentElement.scrollWidth") == width
    assert shown.evaluate(OVERFLOWING) == []
    background = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(246, 247, 249)", "dark": "rgb(15, 19, 24)"}[scheme]
    shown.screenshot(path=tmp_path / f"{scheme}-{width}.png", full_page=True)
    assert (tmp_path / f"{scheme}-{width}.png").stat().st_size > 50_000

    lines = "() => document.querySelectorAll('[data-figure=updates] .scatterlayer .trace').length"
    before = shown.evaluate(lines)
    shown.click("[data-method=fadas]")
    assert shown.evaluate(lines) < before
    assert shown.get_attribute("[data-method=fadas]", "aria-pressed") == "false"
    shown.click("label:has-text('Loss') >> nth=0")
    assert shown.inner_text("[data-figure=time] h3") == "Loss over virtual time"
    with shown.expect_download() as found:
        shown.click("[data-figure=staleness] [data-save=svg]")
    saved = Path(found.value.path()).read_text(encoding="utf-8")
    assert saved.startswith("<svg")
    assert "Staleness of the updates" in saved
    assert "fedecho" in saved  # with a legend
    shown.click("[data-table=t-comparison][data-copy=md]")
    shown.wait_for_selector("#said.shown:has-text('Markdown copied')")
    shown.click("[data-act=theme]")
    shown.click("[data-act=theme]")
    assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 19, 24)"
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    context.close()


def test_on_paper(comparison: Path, page: str, browser: Any, tmp_path: Path) -> None:  # noqa: F811
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="dark")
    shown = context.new_page()
    shown.set_default_timeout(120_000)
    shown.goto((comparison / "report.html").as_uri())
    shown.wait_for_selector("html[data-drawn=yes]", state="attached")
    made = shown.pdf(path=tmp_path / "page.pdf", format="A4", print_background=True)
    assert made.startswith(b"%PDF")
    assert shown.get_attribute("html", "data-theme") is None  # as it was
    context.close()


def test_interpreter_is_quiet(comparison: Path, tmp_path: Path) -> None:
    """No warning and no noise from anything that a report imports."""
    command = [sys.executable, "-W", "error", "-c", "import sys; from fedecho.cli.main import main; sys.exit(main())"]
    arguments = ["report", str(comparison / "fadas"), "-o", str(tmp_path / "p.html")]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_unreadable_database_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"records\.sqlite cannot be read"), observed.reading(tmp_path) as db:
        db.execute("select 1 from events")
