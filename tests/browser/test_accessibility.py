"""No serious accessibility fault on any page, in either theme, by axe-core's judgement."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from puma_dash.ui.bootstrap import PAGES
from tests.browser.helpers import expect_count, wait_until_idle

SERIOUS = {"serious", "critical"}


@pytest.fixture(scope="module")
def project(browser, server):
    """The query that opens the digits demo, prepared, with rows selected and marked."""
    with browser.new_context(viewport={"width": 1440, "height": 900}) as context:
        page = context.new_page()
        page.goto(f"{server}/?project=digits")
        page.get_by_role("button", name="Explore the training rows").click(timeout=120_000)
        wait_until_idle(page)
        page.get_by_role("button", name="50 most harmful").click()
        expect_count(page, "Selected", 50)
        page.get_by_role("button", name="Mark remove").click()
        expect_count(page, "Marked", 50)
        return page.url.partition("?")[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("path", "label"), [(path, label) for path, label, _ in PAGES])
def test_no_serious_fault(browser, server, project, path, label, scheme):
    place = "" if path == "app.py" else label
    with browser.new_context(color_scheme=scheme, viewport={"width": 1440, "height": 900}) as context:
        page = context.new_page()
        page.goto(f"{server}/{place}?{project}")
        expect(page.get_by_role("heading", level=1)).to_be_visible(timeout=30_000)
        wait_until_idle(page)
        expect(page.get_by_test_id("stSkeleton")).to_have_count(0)  # what is not drawn yet cannot be judged
        found = Axe().run(page).response["violations"]
    told = [
        f"{fault['id']}: {fault['help']}\n" + "\n".join(node["html"][:200] for node in fault["nodes"][:3])
        for fault in found
        if fault["impact"] in SERIOUS
    ]
    assert not told, "\n".join(told)
