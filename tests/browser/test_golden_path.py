"""The golden path, as a person walks it: six clicks and one drag, on real digits, in a real Chromium."""

import re

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.browser.helpers import changed_count, expect_count, lasso, wait_until_idle

CIRCLE = [(0.2 + 0.12 * np.cos(a), 0.25 + 0.18 * np.sin(a)) for a in np.linspace(0, 2 * np.pi, 24)]


@pytest.fixture
def explore(page, server):
    """The Explore page of the digits demo, prepared, with an empty draft."""
    page.goto(f"{server}/?project=digits")
    page.get_by_role("button", name=re.compile("Explore the training rows")).click(timeout=120_000)
    expect(page.get_by_role("heading", name="Explore")).to_be_visible()
    expect(page.locator(".nsewdrag").first).to_be_visible()
    wait_until_idle(page)
    return page


def inside(page, outline):
    """How many drawn points lie in an outline given in plot fractions, by an oracle of our own: angles."""
    points = page.evaluate(
        """() => {
            const plot = document.querySelector('.js-plotly-plot');
            const {xaxis, yaxis} = plot._fullLayout;
            const {x, y} = plot._fullData[0];
            return Array.from(x, (_, i) => [
                xaxis.c2p(x[i]) / xaxis._length, 1 - yaxis.c2p(y[i]) / yaxis._length]);
        }"""
    )
    total = 0
    for x, y in points:
        angles = np.unwrap([np.arctan2(b - y, a - x) for a, b in [*outline, outline[0]]])
        total += abs(angles[-1] - angles[0]) > np.pi
    assert points
    return int(total)


def test_six_clicks_and_one_drag(page, server, tmp_path):
    page.goto(server)
    page.get_by_role("button", name="Try digits").click()
    expect(page.get_by_role("heading", name="Explore")).to_be_visible(timeout=120_000)
    wait_until_idle(page)
    lasso(page, 0, CIRCLE)
    selected = changed_count(page, "Selected", 0)
    assert 10 < selected < 500
    page.get_by_role("button", name="Mark remove").click()
    expect_count(page, "Marked", selected)
    page.get_by_role("button", name=f"Patch {selected} rows").click()
    page.get_by_role("button", name=f"Patch: remove {selected}").click()
    expect(page.get_by_role("heading", name="Compare")).to_be_visible(timeout=60_000)
    expect(page.get_by_text(re.compile(r"Fixes \d+ and breaks \d+ of 397 validation rows"))).to_be_visible()
    expect(page.get_by_role("button", name="Accept")).to_be_visible()


def test_patching_the_most_harmful_rows_helps_and_is_reported(explore, tmp_path):
    page = explore
    page.get_by_role("spinbutton").first.fill("100")
    page.get_by_role("spinbutton").first.press("Enter")
    page.get_by_role("button", name="100 most harmful").click()
    expect_count(page, "Selected", 100)
    page.get_by_role("button", name="Mark remove").click()
    page.get_by_role("button", name="Refine").click()
    expect(page.get_by_text(re.compile("Predicted on 397 validation rows"))).to_be_visible(timeout=60_000)
    page.get_by_role("button", name="Patch 100 rows").click()
    page.get_by_role("button", name="Patch: remove 100").click()
    page.get_by_role("button", name="Accept").click(timeout=60_000)
    expect(page.get_by_text(re.compile("Accepted as version"))).to_be_visible(timeout=60_000)
    found = page.get_by_text(re.compile(r"Fixes \d+ and breaks \d+ of 400 test rows")).inner_text()
    fixed, broken = map(int, re.search(r"Fixes (\d+) and breaks (\d+)", found).groups())
    assert fixed > broken
    expect(page.get_by_text(re.compile(r"^\d+ test rows?, largest change of confidence"))).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Report").click()
    path = tmp_path / "report.html"
    download.value.save_as(path)
    report = path.read_text("utf-8")
    assert len(report) < 8_000_000
    assert "http://" not in report.split("</script>")[-1]
    page.goto(path.as_uri())
    expect(page.get_by_role("heading", name="Patch report: Handwritten digits")).to_be_visible()
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()


def test_a_lasso_selects_what_it_encloses_and_modes_combine(explore):
    page = explore
    expected = inside(page, CIRCLE)
    lasso(page, 0, CIRCLE)
    first = changed_count(page, "Selected", 0)
    assert abs(first - expected) <= 1  # a point on the edge of a pixel
    far = [(x + 0.5, y) for x, y in CIRCLE]
    page.get_by_text("add", exact=True).click()
    wait_until_idle(page)
    lasso(page, 0, far)
    both = changed_count(page, "Selected", first)
    assert both > first
    page.get_by_text("take out", exact=True).click()
    wait_until_idle(page)
    lasso(page, 0, CIRCLE)
    expect_count(page, "Selected", both - first)
    page.get_by_test_id("stMain").get_by_role("button").filter(
        has=page.get_by_text("undo", exact=True)
    ).click()
    expect_count(page, "Selected", both)


def test_a_lasso_around_nothing_keeps_the_selection(explore):
    page = explore
    lasso(page, 0, CIRCLE)
    before = changed_count(page, "Selected", 0)
    lasso(page, 0, [(0.01, 0.93), (0.05, 0.93), (0.05, 0.99), (0.01, 0.99)])
    expect(page.get_by_text("That outline holds no rows")).to_be_visible()
    expect_count(page, "Selected", before)


def test_a_refresh_loses_nothing(explore):
    page = explore
    page.get_by_role("button", name="50 most harmful").click()
    expect_count(page, "Selected", 50)
    page.get_by_role("button", name="Mark remove").click()
    expect_count(page, "Marked", 50)
    page.reload()
    expect(page.get_by_role("button", name="Patch 50 rows")).to_be_visible()
    expect_count(page, "Selected", 50)
    expect_count(page, "Marked", 50)


def test_another_person_sees_the_same_draft_from_the_link(explore, browser):
    explore.get_by_role("button", name="50 most harmful").click()
    expect_count(explore, "Selected", 50)
    with browser.new_context() as other:
        page = other.new_page()
        page.goto(explore.url)
        expect(page.locator(".nsewdrag").first).to_be_visible()
        expect_count(page, "Selected", 50)
