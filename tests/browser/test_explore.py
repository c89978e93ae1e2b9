"""Ticking a row of the gallery and reading its story, with a real mouse on a real canvas."""

import re

from playwright.sync_api import expect

from tests.browser.helpers import expect_count, settled_box, wait_until_idle
from tests.browser.test_golden_path import explore

__all__ = ["explore"]  # the fixture


def cell(page, column, row):
    """The middle of a cell of the gallery on the screen; its header is one row high, each row 52 pixels."""
    box = settled_box(page.get_by_test_id("stDataFrame").first.locator("canvas").first)
    return box["x"] + column, box["y"] + 36 + 52 * row + 26


def test_a_ticked_row_opens_its_story_and_leaves_the_selection(explore):
    page = explore
    page.get_by_role("button", name="50 most harmful").click()
    expect_count(page, "Selected", 50)
    page.mouse.click(*cell(page, 18, 2))
    expect(page.get_by_text("1 ticked")).to_be_visible()
    page.get_by_role("button", name="Story").click()
    expect(page.get_by_role("heading", name=re.compile(r"^Row \d+"))).to_be_visible()
    expect(page.get_by_text("Hurts most")).to_be_visible(timeout=60_000)
    expect(page.get_by_alt_text(re.compile(r"^row \d+, ")).nth(14)).to_be_visible()  # at least 15
    page.get_by_role("button", name="Take these out").click()
    expect_count(page, "Selected", 49)
    page.reload()
    expect(page.get_by_text("Hurts most")).to_be_visible()


def test_a_click_on_a_row_opens_its_story(explore):
    page = explore
    wait_until_idle(page)
    page.mouse.click(*cell(page, 170, 0))
    expect(page.get_by_role("heading", name=re.compile(r"^Row \d+"))).to_be_visible()
    expect(page.get_by_text("Hurts most")).to_be_visible(timeout=60_000)


def test_a_rule_is_counted_before_it_is_applied(explore):
    page = explore
    page.get_by_role("button", name="Rule").click()
    number = page.get_by_role("spinbutton", name="Number", exact=True)
    number.fill("-0.5")
    number.press("Enter")
    told = page.get_by_text(re.compile(r"of 1,000 rows match"))
    expect(told).not_to_have_text(re.compile("^0 of"))
    matching = int(told.inner_text().split()[0].replace(",", ""))
    page.get_by_role("button", name=f"Select {matching} rows").click()
    expect_count(page, "Selected", matching)
