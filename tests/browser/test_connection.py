"""A lost connection: the socket drops, or the server is killed and started anew; the draft is there again."""

import re
import signal

from playwright.sync_api import expect

from tests.browser.helpers import expect_count, free_port, serving, wait_until_idle

CONNECTED = "[data-test-connection-state=CONNECTED]"


def begin(page, url):
    """Work in progress on Explore: 50 rows selected and marked, the map coloured by label, in mode add."""
    page.goto(f"{url}/Explore?project=radial")
    expect(page.get_by_role("heading", name="Explore")).to_be_visible(timeout=120_000)
    expect(page.locator(".nsewdrag").first).to_be_visible(timeout=120_000)
    wait_until_idle(page)
    page.get_by_role("button", name="50 most harmful").click()
    expect_count(page, "Selected", 50)
    page.get_by_role("button", name="Mark remove").click()
    expect_count(page, "Marked", 50)
    page.get_by_role("combobox", name=re.compile("Colour by")).click()
    page.get_by_role("option", name="label", exact=True).click()
    expect(page.get_by_text("600 training rows by label")).to_be_visible()
    page.get_by_text("add", exact=True).click()
    wait_until_idle(page)


def reconnected(page):
    """Returns once the page is in touch with the server, which has drawn it anew."""
    page.wait_for_function(f"document.querySelector('{CONNECTED}')", timeout=60_000)
    page.wait_for_timeout(2_000)  # what is on the page is that of before until the script begins to run
    wait_until_idle(page)


def all_is_there(page):
    """Whether the page, the selection, the marks and the view are those of `begin`, and clicks are heard."""
    expect(page.get_by_role("heading", name="Explore")).to_be_visible(timeout=60_000)
    expect(page.get_by_text("600 training rows by label")).to_be_visible(timeout=60_000)
    expect_count(page, "Selected", 50)
    expect_count(page, "Marked", 50)
    expect(page.get_by_role("radio", name="add")).to_be_checked()
    for key, marked in (("undo", 0), ("redo", 50)):
        page.get_by_test_id("stMain").get_by_role("button").filter(
            has=page.get_by_text(key, exact=True)
        ).click()
        expect_count(page, "Marked", marked)


def test_a_dropped_socket_loses_nothing(page, server):
    sockets = []

    def passed_on(socket):
        sockets.append((socket, socket.connect_to_server()))

    page.route_web_socket(re.compile("_stcore/stream"), passed_on)
    begin(page, server)
    used = len(sockets)
    for end in sockets[-1]:
        end.close(code=4000)
    while len(sockets) == used:  # the test's time limit ends it
        page.wait_for_timeout(50)
    reconnected(page)
    all_is_there(page)
    page.reload()
    all_is_there(page)


def test_a_killed_server_that_is_started_anew_loses_nothing(page, tmp_path):
    where = {"home": tmp_path / "home", "port": free_port()}
    with serving("app.py", log=tmp_path / "first.txt", ends=[signal.SIGKILL], **where) as url:
        begin(page, url)
    page.wait_for_function(f"!document.querySelector('{CONNECTED}')", timeout=60_000)
    with serving("app.py", log=tmp_path / "second.txt", **where):
        reconnected(page)  # the page has found the server by itself
        all_is_there(page)
        page.reload()
        all_is_there(page)
