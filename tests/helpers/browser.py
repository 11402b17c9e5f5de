"""A headless browser for tests: playwright's driver with whatever Chromium the machine has."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")


def chromium() -> str:
    """Path of a Chromium, or the test is skipped; ``FMBENCH_BROWSER`` names one that is elsewhere."""
    found = os.environ.get("FMBENCH_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser: install one of {', '.join(NAMES)} or set FMBENCH_BROWSER")
    return found


@contextmanager
def opened(file: Path, width: int = 1280, script: bool = True) -> Iterator:
    """A page showing ``file``, offline; at the end nothing outside it may have been asked for, and no script have failed.

    Args:
        width: of the window, in pixels.
        script: False for a browser that runs no script.
    """
    from playwright.sync_api import sync_playwright

    path = chromium()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path)
        try:
            page = browser.new_context(
                offline=True, viewport={"width": width, "height": 800}, java_script_enabled=script
            ).new_page()
            errors: list[str] = []
            asked: list[str] = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("request", lambda request: asked.append(request.url))
            page.goto(file.as_uri())
            yield page
            assert not errors
            assert [url for url in asked if not url.startswith(("data:", "blob:", "about:"))] == [file.as_uri()]
        finally:
            browser.close()
