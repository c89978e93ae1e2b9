"""Background work as people meet it: refresh, a second person, cancel, a killed worker."""

import contextlib
import os
import re
import signal
import subprocess

import pytest
from playwright.sync_api import expect

from tests.browser.helpers import ROOT, serving

SOURCE = "tests.browser.slow_project:make"


@pytest.fixture
def gate(tmp_path):
    """The file that the project waits for."""
    return tmp_path / "gate"


@pytest.fixture
def slow(browser, tmp_path, gate, monkeypatch):
    """The URL of a server that was started on a project that loads slowly."""
    monkeypatch.setenv("PUMA_DASH_PROJECT", SOURCE)
    monkeypatch.setenv("SLOW_PROJECT_GATE", str(gate))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with serving(ROOT / "app.py", home=tmp_path / "home", log=tmp_path / "log.txt") as url:
        yield url


def worker_of(home):
    """Process numbers of the workers whose home that is."""
    found = []
    for pid in subprocess.run(
        ["pgrep", "-f", "puma_dash.workspace.worker"], capture_output=True, text=True, check=False
    ).stdout.split():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:  # others come and go
            if f"PUMA_DASH_HOME={home}".encode() in file.read():
                found.append(int(pid))
    return found


def test_a_refresh_and_a_second_person_meet_the_same_job(page, slow, gate, browser):
    page.goto(slow)
    expect(page.get_by_text("Preparing the project")).to_be_visible()
    expect(page.get_by_text(re.compile("Loading the project"))).to_be_visible()
    page.reload()
    expect(page.get_by_text(re.compile("Loading the project"))).to_be_visible()
    with browser.new_context() as other:
        second = other.new_page()
        second.goto(page.url)
        expect(second.get_by_text(re.compile("Loading the project"))).to_be_visible()
        gate.touch()
        expect(second.get_by_role("heading", name="Slow")).to_be_visible(timeout=60_000)
    expect(page.get_by_role("heading", name="Slow")).to_be_visible(timeout=60_000)
    page.get_by_role("link", name="Explore").click()
    expect(page.locator(".nsewdrag").first).to_be_visible()


def test_cancel_stops_and_says_that_nothing_changed(page, slow, gate):
    page.goto(slow)
    expect(page.get_by_text(re.compile("Loading the project"))).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("Cancelled. What was not finished is discarded")).to_be_visible()
    gate.touch()
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("heading", name="Slow")).to_be_visible(timeout=60_000)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc to find the worker's process")
def test_a_killed_worker_is_told_and_can_be_tried_again(page, slow, gate, tmp_path):
    page.goto(slow)
    expect(page.get_by_text(re.compile("Loading the project"))).to_be_visible()
    for pid in worker_of(tmp_path / "home"):
        os.kill(pid, signal.SIGKILL)
    expect(page.get_by_text("The worker stopped unexpectedly")).to_be_visible()
    gate.touch()
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("heading", name="Slow")).to_be_visible(timeout=60_000)
