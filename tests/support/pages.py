"""Reading a report's page, and a real browser to look at it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest


def data_of(text: str) -> dict[str, Any]:
    """What the page's script is given."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


def painted(value: Any) -> Any:
    """Colour names as colours, as the page's script does."""
    if isinstance(value, str):
        return "#123456" if re.fullmatch(r"@\w+(/\d+)?", value) else value
    if isinstance(value, list):
        return [painted(item) for item in value]
    return {k: painted(v) for k, v in value.items() if k != "minor"} if isinstance(value, dict) else value


def browser_path() -> str:
    """A Chromium. Where none is and one could be had, that is a failure: `make test` installs it."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if found := shutil.which(name):
            return found
    root = os.geteuid() == 0
    sudo = shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0
    if shutil.which("apt-get") and (root or sudo):
        pytest.fail("there is no chromium, and apt-get could install it: run `make browser`")
    if os.environ.get("CI"):
        pytest.fail("there is no chromium on this CI machine, and no way to install one: put it on the image")
    pytest.skip("there is no chromium, and apt-get cannot be used here: the page was not looked at in a browser")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = browser_path()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield chromium
        chromium.close()


OVERFLOWING = """() => [...document.querySelectorAll("body *")]
    .filter((e) => !e.closest(".scroll, nav") && e.getBoundingClientRect().right > innerWidth + 1)
    .map((e) => e.tagName + " " + e.textContent.slice(0, 40))"""
