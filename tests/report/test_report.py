"""The page: true sentences, every table and figure, small and quick, and in a real browser nothing that goes wrong."""

from __future__ import annotations

import builtins
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pages import Reader, figures_of, painted, tables_of, unpacked, words

from fedecho import ConfigError, MissingExtra, RecordError
from fedecho.cli.main import main
from fedecho.objectives.base import Metric
from fedecho.report import events, metrics, write_report
from fedecho.report.curves import Axis, MethodLines, curves, mean_line
from fedecho.report.data import collect
from fedecho.report.figures import bins_of
from fedecho.report.jobs import Job, read_jobs
from fedecho.report.page import script_hash
from fedecho.report.style import MethodStyle, thinned
from fedecho.report.tables import Cell, Table
from fedecho.report.text import listed, number, plus_minus
from fedecho.report.timelines import MOST_JOBS, rows_of, timeline, window_of
from fedecho.runs.database import reading

FIGURES = {"time", "updates", "staleness", "speed", "timeline", "clients", "seconds", "norms"}
TABLE_IDS = {
    *(f"t-{name}" for name in ("accuracy", "macro_f1", "loss", "ece")),
    *(f"t-pairs-{name}" for name in ("accuracy", "macro_f1", "loss", "ece")),
    *("t-cost", "t-shares", "t-refused", "t-clients-0", "t-clients-1", "t-clients-2"),
    *("t-differ", "t-common", "t-environment", "t-runs"),
}


@pytest.fixture(scope="module")
def page(comparison: Path) -> str:
    return write_report([comparison]).read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------------------ the page


def test_small_and_quick(comparison: Path, tmp_path: Path) -> None:
    began = time.perf_counter()
    file = write_report([comparison], tmp_path / "deep" / "page.html")
    assert time.perf_counter() - began < 20
    assert file.stat().st_size < 3e6


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
    reader, figures = Reader(page), figures_of(page)
    places = {a["data-figure"] for tag, a in reader.seen if tag == "figure"}
    stages = {f"stages-{name}" for name in ("uncertainty", "alpha", "loss", "rows")}
    assert places == set(figures) >= FIGURES | stages
    tables = {a["id"] for tag, a in reader.seen if tag == "table"}
    assert tables == set(tables_of(page)) == TABLE_IDS
    each = [f"{clients}{name}" for name in ("accuracy", "macro_f1", "loss", "ece") for clients in metrics.CLIENT_GROUPS]
    assert list(figures["time"]) == [*each, "train_loss"]
    assert list(figures["timeline"]) == ["0", "1", "2"]
    assert all(figure["columns"] for variants in figures.values() for figure in variants.values())
    citations = re.findall(r"<pre[^>]*>(@.*?)</pre>", page, re.DOTALL)
    assert len(citations) == 3
    assert all(citation.endswith("\n}") for citation in citations)


def test_the_contents_lead_to_every_section(page: str) -> None:
    reader = Reader(page)
    ids = {a["id"] for _, a in reader.seen if "id" in a}
    links = [a["href"] for tag, a in reader.seen if tag == "a"]
    assert all(link[1:] in ids for link in links)
    assert {a["aria-labelledby"] for tag, a in reader.seen if tag == "section"} <= {link[1:] for link in links}


def test_the_policy_names_exactly_the_two_scripts(page: str) -> None:
    policy = next(a["content"] for _, a in Reader(page).seen if a.get("http-equiv") == "Content-Security-Policy")
    script = page.rpartition("<script>")[2].partition("</script>")[0]
    allowed = re.search(r"script-src ([^;]*);", policy)
    assert allowed is not None
    assert allowed[1].split() == [f"'{script_hash(one)}'" for one in (script, unpacked(page, "plotly"))]


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

    for name, variants in figures_of(page).items():
        for variant, figure in variants.items():
            Figure(painted({part: figure[part] for part in ("data", "layout")}))
            assert figure["data"], (name, variant)


def test_lost_jobs_are_marked(page: str) -> None:
    bars = {trace["name"] for trace in figures_of(page)["timeline"]["2"]["data"]}
    assert {"accepted", "lost", "still at work at the end"} <= bars
    assert "× marks a lost job" in page


def test_copied_tables(page: str) -> None:
    for name, dresses in tables_of(page).items():
        lines = dresses["md"].splitlines()
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1, name
        assert len(dresses["csv"].splitlines()) == len(lines) - 1
        assert dresses["tex"].count("\\begin{tabular}") == dresses["tex"].count("\\end{tabular}") == 1
        assert not re.search(r"(?<!\\)[#_]", dresses["tex"]), name


# --------------------------------------------------------------------------------------------------------- the numbers


def test_events_agree_with_the_records(comparison: Path) -> None:
    (group,) = collect([comparison]).groups
    for one in group.runs[::3]:
        read = events.read(one)
        result = one.result
        assert result is not None
        assert sum(read.staleness.values()) == result.updates == sum(share.updates for share in read.shares.values())
        assert [share.clients for share in read.shares.values()] == [6, 4, 2]
        assert sum(read.lost.values()) == result.lost == sum(client.lost for client in read.totals.values())
        assert sum(client.accepted for client in read.totals.values()) == result.updates
        stale = sum(tau * count for tau, count in read.staleness.items())
        assert sum((c.staleness or 0) * c.accepted for c in read.totals.values()) == pytest.approx(stale)
        assert all(client.examples for client in read.totals.values() if client.accepted)
        assert read.norms[-1][0] == result.updates
        jobs, last_s = read_jobs(one.path)
        how = [job.how for job in jobs]
        assert (how.count("accept"), how.count("lost")) == (result.updates, result.lost)
        assert last_s == pytest.approx(result.virtual_time_s)
        assert all(job.begins_s <= job.ends_s <= last_s for job in jobs)
        if one.label == "fedecho":
            assert [x for x, _ in read.stage_values["echo.alpha"]] == list(range(3, 61, 3))


def test_refusals_are_counted_by_kind_and_client(comparison: Path, tmp_path: Path) -> None:
    copy = tmp_path / "refused"
    shutil.copytree(comparison / "fadas" / "seed-0", copy)
    with sqlite3.connect(copy / "records.sqlite") as db:
        for client, detail in ((3, '{"kind": "norm", "reason": "|x| is 9"}'), (3, '{"reason": "too late"}')):
            row = ("refuse", client, detail)
            db.execute("insert into events (seq, at_s, kind, client, detail) values (1, 1.0, ?, ?, ?)", row)
        db.execute("insert into events (seq, at_s, kind, client, detail) values (1, 1.0, 'refuse', 4, 'no json')")
    db.close()
    page = write_report([copy]).read_text(encoding="utf-8")
    rows = tables_of(page)["t-refused"]["csv"].splitlines()
    assert "fadas,refused,norm,|x| is 9,1" in rows
    assert "fadas,refused,–,too late,1" in rows
    assert "2 (norm: 1; too late: 1)" in tables_of(page)["t-clients-0"]["md"]


def test_mean_lines() -> None:
    lines = {0: [(0.0, 0.0), (2.0, 1.0)], 1: [(0.0, 1.0), (1.0, 1.0), (4.0, 0.0)], 2: [(0.0, 9.0), (1.0, 9.0)]}
    method = MethodLines("a", MethodStyle(0), lines, frozenset({0, 1}))
    mean_and_std = mean_line(method)
    assert mean_and_std is not None
    x, mean, std = mean_and_std
    assert x.tolist() == [0, 1, 2]  # as far as both go
    assert mean == pytest.approx([0.5, 0.75, (1 + 2 / 3) / 2])
    assert std[0] == pytest.approx(2**-0.5)
    assert mean_line(MethodLines("a", MethodStyle(0), {0: []}, frozenset())) is None
    figure = curves([method], "x", Axis("y", percent=True))
    assert figure["layout"]["yaxis"]["range"][1] <= 1.005
    assert [name["text"] for name in figure["layout"]["annotations"]] == ["a"]


def test_lines_and_names_stay_apart_and_few() -> None:
    long = [(float(i), 0.5) for i in range(10_000)]
    assert len(thinned(long)) == 120
    assert (thinned(long)[0], thinned(long)[-1]) == (long[0], long[-1])
    methods = [MethodLines(f"m{i}", MethodStyle(i), {0: long}, frozenset({0})) for i in range(4)]
    names = curves(methods, "x", Axis("y"))["layout"]["annotations"]
    shifts = sorted(name["yshift"] for name in names)
    assert all(b - a >= 16 for a, b in pairwise(shifts)), "four lines end at the same height"


def test_bins() -> None:
    assert bins_of(0) == [(0, 0)]
    assert bins_of(9) == [(0, 0), (1, 1), (2, 2), (3, 4), (5, 8), (9, 16)]


def test_the_timeline_stays_small() -> None:
    classes = ["fast"] * 600 + ["medium"] * 300 + ["slow"] * 100
    rows = rows_of(classes, 1000)
    assert len(rows) == 50
    assert [sum(classes[c] == group for c in rows) for group in ("fast", "medium", "slow")] == [30, 15, 5]
    jobs = [Job(c % 1000, float(c), c + 2.5, "accept", 1, "") for c in range(100_000)]
    until_s = window_of(jobs, rows, 1e5)
    shown = timeline(jobs, classes, rows, until_s, MethodStyle(0), "time")
    assert 0 < sum(len(trace["x"]) for trace in shown["data"]) <= MOST_JOBS
    assert len(rows_of([], 80)) == 50


def test_tables() -> None:
    table = Table("t", "T", ["a_b", "c | d"], [[Cell("x&y"), Cell("1.0 ± 0.1", "best")]])
    assert table.markdown() == "| a_b | c \\| d |\n| --- | ---: |\n| x&y | **1.0 ± 0.1** |\n"
    assert r"x\&y & \textbf{1.0 $\pm$ 0.1} \\" in table.latex()
    assert table.csv() == "a_b,c | d\nx&y,1.0 ± 0.1\n"


def test_numbers_and_units_stay_together() -> None:
    assert plus_minus(None, None, 1) == number(float("nan"), 1) == "–"
    assert plus_minus(0.5, 0.012, 1, scale=100) == "50.0\u00a0±\u00a01.2"
    assert plus_minus(-0.5, None, 1, sign=True) == "−0.5"
    share = Metric("accuracy", "accuracy", "", True, share=True)
    assert metrics.value(share, 0.5, 0.0002) == "50.00\u00a0±\u00a00.02\u00a0%"
    assert metrics.gap(share, -0.01) == "1.0\u00a0point"
    assert metrics.value(Metric("l", "loss", "", False, decimals=3, unit="nats"), 0.5) == "0.500\u00a0nats"
    assert metrics.decimals(share, [0.01, 0.0004]) == 2, "one number of decimals for the whole table"
    assert listed(["a", "b", "c"]) == "a, b and c"


def test_a_description_from_elsewhere_cannot_break_the_page() -> None:
    assert metrics.read_metric({"label": "no name"}) is None
    strange = metrics.read_metric({"name": "x", "decimals": 1e9, "axis": "spiral", "share": 0, "later": []})
    assert strange == Metric("x", "x", "", True)


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
    assert "virtual s to 30 %" in words(text)
    assert not [name for name in tables_of(text) if name.startswith("t-pairs")]


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


# ------------------------------------------------------------------------------------------------------------ the rest


def test_interpreter_is_quiet(comparison: Path, tmp_path: Path) -> None:
    """No warning and no noise from anything that a report imports."""
    command = [sys.executable, "-W", "error", "-c", "import sys; from fedecho.cli.main import main; sys.exit(main())"]
    arguments = ["report", str(comparison / "fadas"), "-o", str(tmp_path / "p.html")]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_target_that_no_metric_can_have(comparison: Path) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        write_report([comparison / "fadas"], target=1.5)


def test_an_unreadable_database_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"records\.sqlite cannot be read"), reading(tmp_path) as db:
        db.execute("select 1 from events")
