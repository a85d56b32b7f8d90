"""Names, titles, reasons, metrics and texts of a stranger are text on the page, whatever they contain."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from pages import UNDRAWN, Reader, figures_of, opened, tables_of

from fedecho.report import data as room
from fedecho.report import write_report
from fedecho.report.page import script_json
from fedecho.report.style import plain
from fedecho.report.tables import Cell, Table
from fedecho.report.text import visible

EVIL = [
    "<script>document.title='owned';alert(1)</script>",
    '"onload="alert(2)" x="',
    "'><img src=x onerror=alert(3)>",
    "</script><script>alert(4)</script>",
    "<!--<script>",
    "{{ 7 * 7 }}{% for x in y %}",
    "<a href='javascript:alert(5)'>click</a>",
    "abc\u202egnp.exe\u202c\u2066\u0000\u001b[31m",
    "%{y} %{customdata[0]} $x",
    '=HYPERLINK("http://evil")',
]
ALL = " ".join(EVIL)


@pytest.fixture(scope="module")
def folder(comparison: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs whose records hold hostile reasons, kinds, stage names and continuations."""
    out = tmp_path_factory.mktemp("hostile")
    for method in ("fedbuff", "fedecho"):
        shutil.copytree(comparison / method / "seed-0", out / method)
        with sqlite3.connect(out / method / "records.sqlite") as db:
            for place, evil in enumerate(EVIL):
                detail = json.dumps({"reason": evil, "kind": evil})
                db.execute(
                    "insert into events (seq, at_s, kind, client, task, detail) values (1, 1.0, 'refuse', ?, ?, ?)",
                    (place, place, detail),
                )
                stage = json.dumps({"stage": evil.replace(".", ""), evil.replace(".", ""): 0.5})
                db.execute(
                    "insert into events (seq, at_s, kind, version, detail) values (1, 1.0, 'stage', 1, ?)", (stage,)
                )
                db.execute("insert into continuations values (1, 10, 1.0, ?, ?)", (evil, evil))
        db.close()
        (out / method / "environment.json").write_text(json.dumps({evil: evil for evil in EVIL}))
    return out


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    """The page of these runs, under a hostile title, with hostile labels, metrics and warnings."""
    runs = []
    for place, run in enumerate(room.find_runs([folder])):
        assert run.result is not None
        info = [
            {**one, "label": ALL, "definition": ALL, "unit": "" if one["share"] else ALL} for one in run.metric_info
        ]
        tables = json.loads(json.dumps(run.tables))
        tables["experiment"]["name"] = tables["data"]["dataset"] = ALL
        tables["model"][ALL] = f"{ALL}{place}"
        result = dataclasses.replace(run.result, warnings=EVIL, dataset=ALL)
        runs.append(dataclasses.replace(run, label=f"{ALL}{place}", metric_info=info, tables=tables, result=result))
    patch = pytest.MonkeyPatch()
    patch.setattr(room, "find_runs", lambda paths: runs)
    try:
        return write_report([folder], title=ALL)
    finally:
        patch.undo()


def test_nothing_of_it_becomes_an_element_or_an_attribute(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    reader = Reader(text)
    names = {tag for tag, _ in reader.seen}
    assert "img" not in names
    assert [a.get("id", "") for tag, a in reader.seen if tag == "script"] == ["data", "figures", "plotly", ""]
    assert not [(tag, a) for tag, a in reader.seen for name in a if name.startswith("on")]
    assert not [a for tag, a in reader.seen if "javascript:" in a.get("href", "")]
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x1b]", text)
    assert "[U+202E]" in reader.text
    assert "{{ 7 * 7 }}" in reader.text
    for evil in EVIL:
        assert visible(evil) in reader.text


def test_the_figures_and_saved_tables_hold_text(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    for variants in figures_of(text).values():
        for figure in variants.values():
            drawn = json.dumps([figure["data"], figure["layout"]], ensure_ascii=False)  # plotly reads tags and %{…}
            for sign in ("<script", "<img", "<a href", "%{y} %{customdata[0]} $x", "\u202e"):
                assert sign not in drawn
    for dresses in tables_of(text).values():
        assert not re.search(r'^"?[=@]', dresses["csv"], re.MULTILINE)
        assert "\u202e" not in "".join(dresses.values())


@pytest.mark.parametrize("width", [360, 1280])
def test_no_script_runs_and_nothing_is_logged(file: Path, browser: Any, width: int) -> None:
    with opened(browser, file, width) as shown:  # fails on a dialog, a request, or a line in the console
        assert shown.get_attribute("html", "data-drawn") == "yes"
        assert shown.evaluate(UNDRAWN) == []
        assert "owned" not in shown.evaluate("document.title.slice(0, 5)")
        assert shown.evaluate("document.querySelectorAll('img, main a, main script, iframe').length") == 0
        legend = shown.inner_text("[data-figure=timeline] fieldset")
        assert "<script>" in legend
        shown.click("[data-method='0']")
        shown.click("[data-act=seeds]") if shown.locator("[data-act=seeds]").count() else None


def test_the_policy_stops_a_script_that_got_in(file: Path, browser: Any, tmp_path: Path) -> None:
    """Even if a name became an element, the browser would not run it."""
    text = file.read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    broken.write_text(
        text.replace("<main", '<script>window.owned = 1</script><b onclick="window.owned = 2">x</b><main')
    )
    context = browser.new_context()
    shown = context.new_page()
    shown.set_default_timeout(120_000)
    shown.goto(broken.as_uri())
    shown.wait_for_selector("html[data-drawn=yes]", state="attached")
    shown.evaluate("document.querySelector('b[onclick]').click()")
    assert shown.evaluate("window.owned === undefined")
    context.close()


def test_text_is_made_plain() -> None:
    assert visible("a\u202eb\nc\td") == "a[U+202E]b\nc\td"
    assert plain("<b>&%{x}") == "&lt;b&gt;&amp;%&#123;x}"
    assert "</script" not in script_json({"</script>": "</script>"})
    table = Table("t", "T", ["a", "b"], [[Cell("=1+1"), Cell("-2.5")], [Cell("+1.0 ± 0.2"), Cell("@x")]], frozenset())
    assert table.csv() == "a,b\n'=1+1,-2.5\n+1.0 ± 0.2,'@x\n"
    assert Table("t", "T", ["a"], [[Cell("|<b>`x`")]]).markdown().splitlines()[2] == r"| \|\<b\>\`x\` |"
