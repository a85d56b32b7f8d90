"""The page in a real browser: nothing goes wrong, everything works, wide and narrow, light and dark, on paper."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from pages import OVERFLOWING, UNDRAWN, opened

from fedecho.report import write_report


@pytest.fixture(scope="module")
def file(comparison: Path) -> Path:
    return write_report([comparison])


def saved(shown: Any, selector: str) -> str:
    """What a click on a button saves."""
    with shown.expect_download() as download:
        shown.click(selector)
    return Path(download.value.path()).read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits(file: Path, browser: Any, width: int, scheme: str, tmp_path: Path) -> None:
    with opened(browser, file, width, scheme) as shown:
        assert shown.evaluate(UNDRAWN) == []
        assert shown.evaluate("document.documentElement.scrollWidth") == width
        assert shown.evaluate(OVERFLOWING) == []
        background = shown.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == {"light": "rgb(246, 247, 249)", "dark": "rgb(15, 19, 24)"}[scheme]
        shown.screenshot(path=tmp_path / "page.png", full_page=True)
        assert (tmp_path / "page.png").stat().st_size > 50_000
        shown.evaluate("document.querySelectorAll('details').forEach((e) => (e.open = true))")
        assert shown.evaluate(OVERFLOWING) == []


def test_a_table_on_a_phone_shows_that_it_goes_on(file: Path, browser: Any) -> None:
    hint = "#t-accuracy >> xpath=ancestor::div[contains(@class, 'scrolls')] >> .scroll-hint"
    with opened(browser, file, 360) as shown:
        shown.wait_for_selector(hint, state="visible")
        shown.evaluate("() => { const s = document.querySelector('#t-accuracy').parentElement; s.scrollLeft = 9999; }")
        shown.wait_for_selector(hint, state="hidden")
    with opened(browser, file, 1280) as shown:
        shown.wait_for_selector(hint, state="hidden")


def test_methods_and_measures_are_chosen(file: Path, browser: Any) -> None:
    lines = "() => document.querySelectorAll('[data-figure=updates] .scatterlayer .trace').length"
    with opened(browser, file) as shown:
        assert shown.locator("[data-figure=updates] .annotation-text").all_text_contents() == [
            "fedbuff",
            "fadas",
            "fedecho",
        ]
        before = shown.evaluate(lines)
        shown.click("[data-method='1']")
        assert shown.get_attribute("[data-method='1']", "aria-pressed") == "false"
        shown.wait_for_function(f"({lines})() < {before}")
        shown.select_option("select[data-switches='time updates']", "slow_client_loss")
        assert shown.inner_text("[data-figure=time] h3") == "Loss, slow clients over virtual time"
        shown.click("[data-act=theme]")
        shown.click("[data-act=theme]")
        assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 19, 24)"


def test_figures_and_tables_are_saved(file: Path, browser: Any) -> None:
    with opened(browser, file) as shown:
        drawing = saved(shown, "[data-figure=staleness] [data-save=svg]")
        assert drawing.startswith("<svg")
        assert "Staleness of the updates" in drawing
        assert "fedecho" in drawing  # with a legend
        rows = list(csv.reader(io.StringIO(saved(shown, "[data-figure=updates] [data-save=csv]"))))
        assert rows[0] == ["series", "accepted updates", "accuracy", "standard deviation"]
        assert {row[0] for row in rows[1:]} >= {"fedecho", "fedecho, seed 0", "fadas, seed 3"}
        assert [row[1] for row in rows if row[0] == "fedbuff"] == ["0", "10", "20", "30", "40", "50", "60"]
        assert all(0 <= float(row[2]) <= 1 for row in rows[1:])
        data = json.loads(saved(shown, "[data-figure=timeline] [data-save=json]"))
        assert data["columns"] == ["series", "client", "begins, seconds", "lasts, seconds"]
        assert data["title"] == "Timeline of the clients"
        assert {row[0] for row in data["rows"]} >= {"accepted", "lost"}
        clients = list(csv.reader(io.StringIO(saved(shown, "[data-figure=clients] [data-save=csv]"))))
        assert clients[0][1:] == ["client", "speed class", "accepted", "mean staleness", "refused", "lost"]
        assert sum(int(row[3]) for row in clients[1:] if row[0] == "fedbuff") == 60
        table = list(csv.reader(io.StringIO(saved(shown, "[data-table=t-accuracy][data-save=csv]"))))
        assert table[0][:2] == ["method", "final accuracy, %"]
        assert [row[0] for row in table[1:]] == ["fedbuff", "fadas", "fedecho"]
        shown.click("[data-table=t-accuracy][data-copy=md]")
        shown.wait_for_selector("#message.shown:has-text('Markdown copied')")


def test_an_old_browser_is_told_what_it_lacks_and_shows_the_tables(file: Path, browser: Any) -> None:
    with opened(browser, file, script="delete globalThis.DecompressionStream") as shown:
        assert shown.get_attribute("html", "data-drawn") == "no"
        assert shown.locator("#old-browser").is_visible()
        assert shown.locator("#t-accuracy").is_visible()


def test_on_paper(file: Path, browser: Any, tmp_path: Path) -> None:
    with opened(browser, file, scheme="dark") as shown:
        printed = shown.pdf(path=tmp_path / "page.pdf", format="A4", print_background=True)
        assert printed.startswith(b"%PDF")
        assert shown.get_attribute("html", "data-theme") is None  # as it was
