"""Which method to believe, in a real Chromium: rows are scored, methods compared, wrong labels found."""

import re

from playwright.sync_api import expect

from tests.browser.helpers import settled_box, wait_until_idle

ROW, HEADER, TICK = 35, 37, 16
"""Pixels of a table's row and header, and of the middle of the column of ticks."""


def section(page, name):
    """Chooses one of the page's questions."""
    page.get_by_role("radio", name=name).click()
    wait_until_idle(page)


def test_methods_score_rows_agree_or_not_and_find_wrong_labels(page, server):
    page.goto(f"{server}/Methods?project=digits")
    table = page.get_by_test_id("stDataFrame").first
    expect(table).to_be_visible(timeout=120_000)
    wait_until_idle(page)
    box = settled_box(table)
    for line in (6, 12):  # KNN-Shapley and the training loss
        page.mouse.click(box["x"] + TICK, box["y"] + HEADER + (line + 0.5) * ROW)
        wait_until_idle(page)
    page.get_by_role("button", name="Score 1,000 rows by 2 methods").click()
    wait_until_idle(page)  # a rerun that begins at once would take the place of the click's own

    section(page, "Agreement")
    expect(page.get_by_text(re.compile("Most agree training loss and KNN.Shapley"))).to_be_visible()
    plot = page.locator(".js-plotly-plot")
    cells = plot.evaluate("plot => plot.data[0].text.map(line => Array.from(line))")
    assert [len(line) for line in cells] == [3, 3, 3]
    assert {cells[k][k] for k in range(3)} == {"1.00"}
    numbers = [float(text.replace("−", "-")) for line in cells for text in line]
    assert numbers[5] == max(number for number in numbers if number < 1)

    section(page, "Wrong labels")
    page.get_by_role("button", name=re.compile(r"Ask \d methods")).click()
    expect(
        page.get_by_text(re.compile("Most wrong labels in 10 % of the rows: KNN.Shapley, 0.9"))
    ).to_be_visible(timeout=60_000)
    curves = plot.evaluate("plot => Object.fromEntries(plot._fullData.map(t => [t.name, Array.from(t.y)]))")
    assert curves["KNN-Shapley"][10] > curves["psi"][10] > curves["random"][10]

    page.goto(f"{page.url.split('?')[0].replace('Methods', 'Explore')}?{page.url.split('?')[1]}")
    expect(page.locator(".nsewdrag").first).to_be_visible()
    wait_until_idle(page)
    page.get_by_label("Colour by", exact=True).click()
    expect(page.get_by_role("option", name="scores: KNN-Shapley")).to_be_visible()
