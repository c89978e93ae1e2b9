"""The Explore page in a real Chromium at three sizes: first view, and a lasso from mouse-up to the answer.

Server, browser and driver share the machine. The projects are those of `benchmarks.big`, prepared in
``PUMA_DASH_HOME`` where it is set, else in a folder that goes afterwards.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.big import source

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[1]
SIZES = (1_797, 60_000, 1_000_000)
LASSOS = 5
CORNERS = 20
PLACES = [(0.35, 0.4), (0.6, 0.5), (0.45, 0.65)]

# Notes, for each animation frame after the mouse is let go, what the page shows for the first time.
WATCH = """() => {
    const selected = () => [...document.querySelectorAll('[data-testid="stMetric"]')]
        .find(metric => metric.innerText.startsWith('Selected'))
        ?.querySelector('[data-testid="stMetricValue"]').innerText;
    const told = count => [...document.querySelectorAll('[data-testid="stCaptionContainer"]')]
        .filter(caption => caption.innerText.includes(count + ' selected of')).length;
    const before = selected(), plot = document.querySelector('.js-plotly-plot');
    const seen = window.seen = {};
    document.addEventListener('mouseup', () => {
        const start = performance.now();
        const look = () => {
            const now = performance.now() - start, count = selected();
            const drawn = document.querySelector('.js-plotly-plot');
            if (count !== before) seen.count ??= now;
            if (drawn && drawn !== plot && drawn.querySelector('image')) seen.map ??= now;
            if (seen.count && told(count) > 1) seen.rows ??= now;
            if (seen === window.seen && now < 20000) requestAnimationFrame(look);
        };
        requestAnimationFrame(look);
    }, {capture: true, once: true});
}"""

PEERS = pd.DataFrame(
    [
        ("Spotlight 1.8.2", "2 000", "4.6", "22-31", "3", "2", "no"),
        ("Spotlight 1.8.2", "60 000", "4.7-4.9", "130-158", "3", "2", "no"),
        ("Spotlight 1.8.2", "200 000", "6.9-8.0", "366-400", "3", "2", "no"),
        ("FiftyOne 1.22.1", "2 000", "7.3, map after 3 clicks", "83", "2", "1", "no"),
        ("FiftyOne 1.22.1", "10 000", "7.6, map after 3 clicks", "102", "2", "1", "no"),
    ],
    columns=[
        "tool",
        "rows",
        "first view from the command, s",
        "mouse-up to count, ms",
        "clicks to colour by psi",
        "clicks before the first lasso",
        "selected ids exported",
    ],
)


def measure() -> Iterator[tuple[str, pd.DataFrame]]:
    """A title and a table of ours, then one of the tools next to it; nothing without a Chromium."""
    try:
        from playwright.sync_api import sync_playwright

        from scripts.browser import NoBrowserError, launch
    except ModuleNotFoundError as missing:
        print(f"\nbrowser: left out, {missing.name} is not installed")
        return
    with ExitStack() as stack:
        try:
            browser, _ = launch(stack.enter_context(sync_playwright()))
        except NoBrowserError as missing:
            print(f"\nbrowser: left out. {missing}")
            return
        home = os.environ.get("PUMA_DASH_HOME") or stack.enter_context(tempfile.TemporaryDirectory())
        rows = [row(browser, n, Path(home)) for n in SIZES]
    yield (
        f"Explore in Chromium {browser.version}, 1440 x 900, software rendering; "
        f"lassos of {CORNERS} corners, median of {LASSOS}",
        pd.DataFrame(rows),
    )
    yield (
        "The same of others: each measured once, earlier, on a similar machine (2 cores, Chromium 156)",
        PEERS,
    )


def row(browser: Browser, n: int, home: Path) -> dict[str, Any]:
    """One line of the table."""
    from tests.browser.helpers import serving

    environment = {
        "PUMA_DASH_HOME": str(home),
        "PUMA_DASH_PROJECT": source(n),
        "PYTHONPATH": str(ROOT),
    }
    print(f"browser: {n:,} rows", flush=True)
    subprocess.run(
        [sys.executable, "-m", "benchmarks.big", str(n)],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as logs, serving("app.py", home, Path(logs) / "log") as url:
            with browser.new_context(viewport={"width": 1440, "height": 900}) as context:
                arrive(context.new_page(), url)
                command = time.perf_counter() - start
            views = []
            for _ in range(3):
                with browser.new_context(viewport={"width": 1440, "height": 900}) as context:
                    page, sent = context.new_page(), []
                    page.on(
                        "websocket",
                        lambda socket, to=sent: socket.on("framesent", lambda frame: to.append(len(frame))),
                    )
                    start = time.perf_counter()
                    arrive(page, url)
                    views.append(time.perf_counter() - start)
                    if len(views) == 3:
                        return {
                            "rows": f"{n:,}",
                            "first view from the command, s": f"{command:.2f}",
                            "next view, s": f"{statistics.median(views):.2f}",
                            **gestures(page, sent),
                        }
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    raise AssertionError("three views were not enough")


def arrive(page: Page, url: str) -> None:
    """Opens Explore and returns once its map is drawn and the tray can be used."""
    page.goto(f"{url}/Explore")
    page.locator(".js-plotly-plot image").first.wait_for(state="attached")
    page.locator(".nsewdrag").first.wait_for()
    page.get_by_role("button", name="50 most harmful").wait_for()


def gestures(page: Page, sent: list[int]) -> dict[str, Any]:
    """Medians of several lassos, what a box sends up, and the way back to psi."""
    from tests.browser.helpers import lasso, wait_until_idle

    wait_until_idle(page)
    found, bytes_up = [], []
    for i in range(LASSOS + 1):  # the first warms up
        x, y = PLACES[i % len(PLACES)]
        angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
        page.evaluate(WATCH)
        sent.clear()
        lasso(page, 0, [(x + 0.12 * np.cos(a), y + 0.14 * np.sin(a)) for a in angles], steps=2)
        page.wait_for_function("seen.count && seen.map && seen.rows")
        wait_until_idle(page)
        found.append(page.evaluate("seen"))
        bytes_up.append(sum(sent))
    medians = {name: statistics.median(each[name] for each in found[1:]) for name in found[0]}
    return {
        "mouse-up to count and tray, ms": f"{medians['count']:.0f}",
        "to the map redrawn": f"{medians['map']:.0f}",
        "to the rows listed": f"{medians['rows']:.0f}",
        "bytes up per lasso": f"{statistics.median(bytes_up[1:]):.0f}",
        "clicks to colour by psi": to_psi(page),
        "clicks before the first lasso": 0,
    }


def to_psi(page: Page) -> int:
    """Clicks from another colour to psi, counted by doing it."""
    from tests.browser.helpers import wait_until_idle

    page.get_by_role("combobox").first.click()
    page.get_by_role("option", name="label").click()
    page.get_by_text("training rows by label").wait_for()
    wait_until_idle(page)
    page.get_by_role("button", name="Colour by psi").click()
    page.get_by_text("training rows by psi").wait_for()
    return 1
