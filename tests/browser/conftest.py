"""A real Chromium, a real server, and what both said when a test failed."""

import os
import re
from pathlib import Path

import pytest
from playwright.sync_api import Error, expect, sync_playwright

from scripts.browser import NoBrowserError, launch
from tests.browser.helpers import serving

HERE = Path(__file__).parent
ERRORS = pytest.StashKey[list]()
SCREENSHOTS = pytest.StashKey[Path]()
SERVER_LOG = pytest.StashKey[Path]()
LOG_START = pytest.StashKey[int]()

expect.set_options(timeout=30_000)  # a loaded two-core machine reruns a page slower than the default 5 s


@pytest.hookimpl(tryfirst=True)  # before -m chooses by marker
def pytest_collection_modifyitems(items):
    """Marks the tests of this folder and puts them last.

    Cheap tests fail first, and none of them runs beside Playwright's event loop.
    """
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("browser")
    items.sort(key=lambda item: HERE in item.path.parents)


@pytest.fixture(scope="session")
def browser():
    """A Chromium that starts; without one the tests are skipped with the reason, or fail where CI=true."""
    with sync_playwright() as playwright:
        try:
            chromium, _ = launch(playwright)
        except NoBrowserError as missing:
            if os.environ.get("CI") == "true":
                raise
            pytest.skip(str(missing))
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """Where ``server`` keeps what it must remember."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def server(browser, request, home, tmp_path_factory):
    """The base URL of the app, served from the project's root with a home of its own."""
    log = request.config.stash[SERVER_LOG] = tmp_path_factory.mktemp("server") / "output.txt"
    with serving("app.py", home=home, log=log) as url:
        yield url


@pytest.fixture
def page(browser, request, tmp_path_factory):
    """A fresh page of 1440 x 900; an error that the page's scripts do not catch fails the test."""
    if SCREENSHOTS not in request.config.stash:
        folder = os.environ.get("PUMA_DASH_SCREENSHOTS")
        request.config.stash[SCREENSHOTS] = Path(folder) if folder else tmp_path_factory.mktemp("screenshots")
    with browser.new_context(viewport={"width": 1440, "height": 900}) as context:
        page = context.new_page()
        errors = request.node.stash[ERRORS] = []
        page.on("pageerror", lambda error: errors.append(error.stack or error.message))
        yield page


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    """Remembers where this test's part of the server's output begins."""
    log = item.config.stash.get(SERVER_LOG, None)
    item.stash[LOG_START] = log.stat().st_size if log and log.exists() else 0
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Fails a test that passed while the page's scripts did not."""
    result = yield
    if errors := item.stash.get(ERRORS, []):
        pytest.fail("uncaught in the page:\n" + "\n".join(errors), pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Adds a screenshot, the page's errors and the server's output to the report of a failed test."""
    report = yield
    if report.failed:
        page = getattr(item, "funcargs", {}).get("page")
        if page is not None and report.when != "teardown":
            report.sections.append(("screenshot", screenshot(page, item)))
        errors = item.stash.get(ERRORS, [])
        if errors and "uncaught in the page" not in report.longreprtext:
            report.sections.append(("uncaught in the page", "\n".join(errors)))
        log = item.config.stash.get(SERVER_LOG, None)
        if log and log.exists():
            printed = log.read_bytes()[item.stash.get(LOG_START, 0) :].decode(errors="replace")
            report.sections.append(("server output", printed or "(nothing)"))
    return report


def screenshot(page, item):
    """Saves what the page shows; returns where, or why not."""
    path = item.config.stash[SCREENSHOTS] / (re.sub(r"[^\w.-]+", "-", item.nodeid).strip("-") + ".png")
    try:
        page.screenshot(path=path)
    except Error as error:
        return f"none: {error.message}"
    return str(path)
