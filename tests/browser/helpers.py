"""What a person does in the app, for the tests that drive a real browser."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from playwright.sync_api import Error, expect

ROOT = Path(__file__).resolve().parents[2]


ENDS = (signal.SIGTERM, signal.SIGKILL)


@contextmanager
def serving(app, home, log, cwd=ROOT, port=None, ends=ENDS):
    """Yields the base URL of a Streamlit server that runs `app`; its output goes to the file `log`.

    It is ended by the signals `ends`, each where the one before did not help.
    """
    port = port or free_port()
    command = [sys.executable, "-m", "puma_dash.ui.server", "run", str(app), "--server.port", str(port)]
    environment = os.environ | {"PUMA_DASH_HOME": str(home), "STREAMLIT_SERVER_HEADLESS": "true"}
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            wait_for_health(port, process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            stop_group(process, ends)


def free_port():
    """A port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_health(port, process, log, seconds=60):
    """Returns once the server answers, or fails with what it printed."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        if is_healthy(port):
            return
        time.sleep(0.1)
    state = "is still starting" if process.poll() is None else f"ended with status {process.returncode}"
    raise RuntimeError(f"the server {state}; it printed:\n{log.read_text(errors='replace')}")


def is_healthy(port):
    """Whether a Streamlit server answers there."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        try:
            connection.request("GET", "/_stcore/health")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False


def stop_group(process, ends=ENDS):
    """Ends the process and all that is in its group: politely, then for good."""
    for end in ends:
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, end)
            process.wait(10)


def wait_until_idle(page, timeout=60_000):
    """Returns once the page's script has not run for a third of a second.

    That long because a click sets the script running only when the server has heard of it; on a slow machine
    that takes longer, so what a click brings about is better waited for.
    """
    page.evaluate("delete window.idleSince")
    page.wait_for_function(
        """() => {
            if (!document.querySelector('[data-test-script-state="notRunning"]')) delete window.idleSince;
            else window.idleSince ??= performance.now();
            return performance.now() - window.idleSince > 333;
        }""",
        timeout=timeout,
    )


def metric(page, label):
    """The number under a metric's label, as it is shown."""
    return page.get_by_test_id("stMetric").filter(has_text=label).get_by_test_id("stMetricValue")


def expect_count(page, label, number):
    """Returns once that number is under a metric's label, and the page at rest."""
    expect(metric(page, label)).to_have_text(f"{number:,}")
    wait_until_idle(page)


def changed_count(page, label, before):
    """The number under a metric's label once it is another than before, and the page at rest."""
    expect(metric(page, label)).not_to_have_text(f"{before:,}")
    wait_until_idle(page)
    return int(metric(page, label).inner_text().replace(",", ""))


def settled_box(target, seconds=30):
    """The x, y, width and height of `target` on the screen, in view, once it has stopped moving."""
    deadline = time.monotonic() + seconds
    previous = None
    while True:
        try:
            target.scroll_into_view_if_needed(timeout=seconds * 1000)
            box = target.bounding_box(timeout=seconds * 1000)
        except Error:  # replaced by a rerun in this moment
            if time.monotonic() > deadline:
                raise
            box = None
        if box and box == previous:
            return box
        assert time.monotonic() < deadline, f"it does not come to rest: {target}"
        previous = box
        target.page.wait_for_timeout(100)


def lasso(page, chart, points, steps=8):
    """Draws a closed outline over a Plotly chart with the mouse, as a person does.

    The chart's `dragmode` must be "lasso", and an outline that begins inside an older one moves that one.
    What the app makes of it arrives later: expect something visible after this call.

    Args:
        page: the page.
        chart: a locator that holds the chart, or its number on the page, from 0.
        points: corners (x, y) as fractions of the plot, (0, 0) at the bottom left, (1, 1) at the top right;
            the outline is closed by itself.
        steps: mouse moves from one corner to the next; Plotly drops moves that are too short.
    """
    holder = page.get_by_test_id("stPlotlyChart").nth(chart) if isinstance(chart, int) else chart
    box = settled_box(holder.locator(".nsewdrag").first)

    def position(point):
        x, y = point
        return box["x"] + x * box["width"], box["y"] + (1 - y) * box["height"]

    start, *rest = points
    page.mouse.move(*position(start))
    page.mouse.down()
    for point in [*rest, start]:
        page.mouse.move(*position(point), steps=steps)
    page.mouse.up()
