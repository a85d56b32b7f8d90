"""What the tests of the report share: a comparison, a Chromium."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import METHODS, SEEDS, TABLES

from fedecho.studies import compare
from fedecho.studies.jobs import run_job


@pytest.fixture(scope="session")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three methods × four seeds, as `fedecho compare` leaves them."""
    out = tmp_path_factory.mktemp("report") / "cmp"
    for job in compare.plan(TABLES, METHODS, SEEDS, [], out):
        run_job(job)
    compare.write_manifest(out, METHODS, SEEDS, "fedecho")
    return out


def browser_path() -> str:
    """A Chromium. Where none is and one could be had, that is a failure: `make test` installs it."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if path := shutil.which(name):
            return path
    root = os.geteuid() == 0
    sudo = shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0
    if shutil.which("apt-get") and (root or sudo):
        pytest.fail("there is no chromium, and apt-get could install it: run `make browser`")
    if os.environ.get("CI"):
        pytest.fail("there is no chromium on this CI machine, and no way to install one: put it on the image")
    pytest.skip("there is no chromium, and apt-get cannot be used here: the page was not looked at in a browser")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    path = browser_path()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield chromium
        chromium.close()
