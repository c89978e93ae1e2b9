"""From a finding to its cure, in a real Chromium: a confusion cell, the rows behind it, the patch."""

import re

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.browser.helpers import expect_count, settled_box, wait_until_idle


@pytest.fixture
def health(page, server):
    """The Health page of the digits demo, prepared, with an empty draft."""
    page.goto(f"{server}/?project=digits")
    expect(page.get_by_role("button", name=re.compile("Explore the training rows"))).to_be_visible(
        timeout=120_000
    )
    page.get_by_role("link", name="Health").click()
    expect(page.get_by_role("heading", name="Confusions")).to_be_visible()
    expect(page.locator(".nsewdrag").first).to_be_visible()
    wait_until_idle(page)
    return page


def click_point(page, chart, x, y):
    """Clicks a chart at a point given in its own coordinates."""
    holder = page.get_by_test_id("stPlotlyChart").nth(chart)
    box = settled_box(holder.locator(".nsewdrag").first)
    left, top = holder.locator(".js-plotly-plot").evaluate(
        "(plot, [x, y]) => [plot._fullLayout.xaxis.c2p(x), plot._fullLayout.yaxis.c2p(y)]", [x, y]
    )
    page.mouse.move(box["x"] + left, box["y"] + top)
    page.mouse.click(box["x"] + left, box["y"] + top)


def cells(page):
    """The counts (10, 10) that the confusion matrix shows."""
    plot = page.get_by_test_id("stPlotlyChart").nth(0).locator(".js-plotly-plot")
    shown = plot.evaluate("plot => Array.from(plot.data.find(trace => trace.type === 'scatter').text)")
    return np.array([int(count or 0) for count in shown]).reshape(10, 10)


def test_a_confusion_is_traced_to_training_rows_and_patched_away(health):
    page = health
    counts = cells(page)
    errors = counts - np.diag(np.diag(counts))
    expect(page.get_by_text(re.compile(rf"Accuracy .* n = {counts.sum()}"))).to_be_visible()
    framed = page.get_by_role("button", name=f"Explore these {errors.max()} rows").first
    expect(framed).to_be_visible()  # the most frequent error is picked from the start
    true, predicted = divmod(int(errors.ravel()[::-1].argmax()), 10)
    true, predicted = 9 - true, 9 - predicted  # another cell than the one picked from the start
    click_point(page, 0, predicted + 0.35, true - 0.35)  # near its corner
    label = f"{true} taken for {predicted}"
    expect(page.get_by_text(label, exact=True)).to_be_visible()
    wait_until_idle(page)
    rows = counts[true, predicted]
    page.get_by_role("button", name=f"Explore these {rows} row").first.click()

    expect(page.get_by_role("heading", name="Explore")).to_be_visible()
    expect(page.get_by_text(f"training rows by psi of {label}")).to_be_visible(timeout=60_000)
    wait_until_idle(page)
    page.get_by_role("spinbutton").first.fill("20")
    page.get_by_role("spinbutton").first.press("Enter")
    page.get_by_role("button", name="20 most harmful").click()
    expect_count(page, "Selected", 20)
    page.get_by_role("button", name="Mark remove").click()
    page.get_by_role("button", name="Patch 20 rows").click()

    expect(page.get_by_role("heading", name="Patch", exact=True)).to_be_visible()
    wait_until_idle(page)
    hold = page.get_by_test_id("stMultiSelect").first
    hold.locator("input").press_sequentially(label)
    expect(page.get_by_role("option", name=label)).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.get_by_text(f"{label}: may get worse by")).to_be_visible()
    page.keyboard.press("Escape")
    wait_until_idle(page)
    page.get_by_role("button", name="Patch: remove 20").click()
    expect(page.get_by_role("heading", name="Compare")).to_be_visible(timeout=60_000)
    expect(page.get_by_text(re.compile(r"Fixes \d+ and breaks \d+ of 397 validation rows"))).to_be_visible()


def test_a_reliability_bin_and_a_slice_can_be_picked_by_mouse(health):
    page = health
    page.get_by_test_id("stPlotlyChart").nth(1).scroll_into_view_if_needed()
    plot = page.get_by_test_id("stPlotlyChart").nth(1).locator(".js-plotly-plot")
    x, y, count = plot.evaluate(
        "plot => { const dots = plot._fullData.find(t => t.mode === 'markers' && t.x[0] !== null);"
        " return [dots.x[3], dots.y[3], dots.customdata[3][0]]; }"
    )
    click_point(page, 1, x, y)
    expect(page.get_by_text(re.compile(rf"right, n = {count:.0f}\b")).last).to_be_visible()
    wait_until_idle(page)
    table = settled_box(page.get_by_test_id("stDataFrame").first)
    before = page.get_by_text(re.compile(r"% right \(.* n = \d+\)")).inner_text()
    page.mouse.click(table["x"] + 20, table["y"] + 35 * 4.5)  # the box of the fourth line
    expect(page.get_by_text(before, exact=True)).not_to_be_visible()
    expect(page.get_by_text(re.compile(r"% right \(.* n = \d+\)"))).to_be_visible()
