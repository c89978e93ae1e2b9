"""The map in a real Chromium: what a gesture sends, zooming, what the mouse is told."""

import re

from playwright.sync_api import expect

from tests.browser.helpers import changed_count, expect_count, lasso, wait_until_idle
from tests.browser.test_golden_path import CIRCLE, explore, inside

__all__ = ["explore"]  # a fixture


def drag(page, start, end):
    """Draws a box over the map, corners as fractions of the plot."""
    box = page.locator(".nsewdrag").first.bounding_box()
    at = [(box["x"] + x * box["width"], box["y"] + (1 - y) * box["height"]) for x, y in (start, end)]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1], steps=8)
    page.mouse.up()


def ranges(page):
    """Both axes' ranges."""
    return page.evaluate(
        """() => {
            const {xaxis, yaxis} = document.querySelector('.js-plotly-plot')._fullLayout;
            return [...xaxis.range, ...yaxis.range];
        }"""
    )


def test_zoom_to_box_draws_that_window_anew_and_a_lasso_there_selects_there(explore):
    page = explore
    whole = ranges(page)
    image = page.locator(".js-plotly-plot image").first
    picture = image.get_attribute("href")
    page.get_by_role("button", name="Zoom to box").click()
    expect(page.get_by_role("button", name="Draw a box")).to_be_visible()
    wait_until_idle(page)
    drag(page, (0.25, 0.25), (0.75, 0.75))
    expect(page.get_by_role("button", name="Reset zoom")).to_be_visible()
    expect(image).not_to_have_attribute("href", picture)
    wait_until_idle(page)
    zoomed = ranges(page)
    for low, high, start, end in ((*zoomed[:2], *whole[:2]), (*zoomed[2:], *whole[2:])):
        share = (high - low) / (end - start)
        assert 0.45 < share < 0.55
        assert start < low < high < end
    expect_count(page, "Selected", 0)
    expected = inside(page, CIRCLE)
    lasso(page, 0, CIRCLE)
    assert abs(changed_count(page, "Selected", 0) - expected) <= 3  # the mouse moves by whole pixels
    assert ranges(page) == zoomed
    page.get_by_role("button", name="Reset zoom").click()
    expect(page.get_by_role("button", name="Reset zoom")).to_have_count(0)
    wait_until_idle(page)
    assert ranges(page) == whole


def test_a_gesture_sends_the_outline_and_no_rows(browser, server, explore):
    with browser.new_context(viewport={"width": 1440, "height": 900}) as context:
        page, sent = context.new_page(), []
        page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(len(frame))))
        page.goto(explore.url)
        expect(page.locator(".nsewdrag").first).to_be_visible()
        wait_until_idle(page)
        sent.clear()
        lasso(page, 0, [(0.02, 0.02), (0.98, 0.02), (0.98, 0.98), (0.02, 0.98)])
        expect(
            page.get_by_text(re.compile(r"1,000 drawn, (9\d\d|1,000) selected of 1,000 rows"))
        ).to_be_visible()
        assert 0 < sum(sent) < 1024


def test_the_mouse_is_told_what_a_row_is(explore):
    page = explore
    x, y = page.evaluate(
        """() => {
            const plot = document.querySelector('.js-plotly-plot'), {xaxis, yaxis} = plot._fullLayout;
            const box = plot.querySelector('.nsewdrag').getBoundingClientRect();
            const {x, y} = plot._fullData[0];
            return [box.x + xaxis.c2p(x[7]), box.y + yaxis.c2p(y[7])];
        }"""
    )
    page.mouse.move(x - 30, y)
    page.mouse.move(x, y, steps=5)
    expect(page.locator(".hovertext").first).to_contain_text(re.compile(r"label .*predicted"))
