"""Reading a page in a test: its elements, what its script is given, and what a browser says of it."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

METHODS = ["fedbuff", "fadas", "fedecho"]
SEEDS = [0, 1, 2, 3]
TABLES: dict[str, Any] = {
    "experiment": {"name": "a <small> one", "updates": 60, "eval_every": 10},
    "data": {"clients": 12, "unlabeled_size": 60},
    "model": {"hidden": [16]},
    "client": {"epochs": 1, "batch_size": 20},
    "server": {"concurrency": 6, "buffer_size": 3},
    "stages": {"name": "echo", "steps": 3},
    "population": {"name": "mild", "class_counts": [6, 4, 2], "dropout": 0.1},
}

OVERFLOWING = """() => [...document.querySelectorAll("body *")]
    .filter((e) => !e.closest(".scroll, nav") && e.getBoundingClientRect().right > innerWidth + 1)
    .map((e) => e.tagName + " " + e.textContent.slice(0, 40))"""
"""Elements that stick out of the page on the right."""

UNDRAWN = """() => [...document.querySelectorAll("[data-figure]")].filter((f) => !f.querySelector("svg.main-svg"))
    .map((f) => f.dataset.figure)"""
"""Figures in which nothing is drawn."""


def _script(text: str, name: str) -> str:
    element = re.search(rf'<script type="[^"]+" id="{name}">(.*?)</script>', text, re.DOTALL)
    assert element is not None
    return element[1]


def unpacked(text: str, name: str) -> str:
    """What is packed in the page under this name."""
    return gzip.decompress(base64.b64decode(_script(text, name))).decode()


def figures_of(text: str) -> dict[str, dict[str, Any]]:
    """The page's figures: by name, by variant."""
    return dict(json.loads(unpacked(text, "figures")))


def tables_of(text: str) -> dict[str, dict[str, str]]:
    """The page's tables as Markdown, LaTeX and CSV."""
    return dict(json.loads(_script(text, "data"))["tables"])


def words(text: str) -> str:
    """What a reader sees, and what the figures contain."""
    visible = re.sub(r"<(script|style)\b.*?</\1>", " ", text.replace("<wbr>", ""), flags=re.DOTALL)
    figures = json.dumps(figures_of(text), ensure_ascii=False)
    return (" ".join(re.sub(r"<[^>]+>", " ", visible).split()) + figures).replace("\u00a0", " ")


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


def painted(value: Any) -> Any:
    """Colour names as colours, as the page's script does."""
    if isinstance(value, str):
        return "#123456" if re.fullmatch(r"@\w+(/\d+)?", value) else value
    if isinstance(value, list):
        return [painted(item) for item in value]
    return {k: painted(v) for k, v in value.items() if k != "minor"} if isinstance(value, dict) else value


@contextmanager
def opened(browser: Any, file: Path, width: int = 1280, scheme: str = "light", script: str = "") -> Iterator[Any]:
    """The page in a browser, drawn. On leaving: nothing was logged, no dialog opened, nothing asked of a network."""
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, has_touch=width < 500, accept_downloads=True
    )
    shown = context.new_page()
    shown.set_default_timeout(120_000)  # a machine that others share
    complaints: list[str] = []
    shown.on("console", lambda message: complaints.append(message.text))
    shown.on("pageerror", lambda fault: complaints.append(str(fault)))
    shown.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    shown.on("request", lambda request: complaints.append(request.url) if request.url[:4] == "http" else None)
    if script:
        shown.add_init_script(script)
    shown.goto(file.as_uri())
    shown.wait_for_selector("html[data-drawn]", state="attached")
    yield shown
    assert complaints == []
    context.close()
