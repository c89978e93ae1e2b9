"""The report in a real Chromium: it draws itself, asks nobody, is read in the dark and on paper."""

import re

import pytest

import puma_dash as puma


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report on two moons."""
    project = puma.load("two-moons")
    rows = puma.value(project).harmful(40)
    patch = puma.patch(project, puma.PatchPlan(remove=rows, hold=("cross_entropy",)))
    return puma.report(project, patch, tmp_path_factory.mktemp("report") / "r.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_draws_itself_offline_and_is_read_in_both_schemes(browser, report, scheme):
    page = browser.new_page(color_scheme=scheme, viewport={"width": 1100, "height": 900})
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(report.as_uri())
    page.wait_for_selector(".js-plotly-plot .main-svg")
    page.wait_for_timeout(500)
    assert errors == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    colours = page.evaluate(
        """() => [getComputedStyle(document.body).backgroundColor,
                  getComputedStyle(document.querySelector('.js-plotly-plot .xtick text')).fill]"""
    )
    page_, ink = (sum(int(n) for n in re.findall(r"\d+", colour)[:3]) for colour in colours)
    assert abs(page_ - ink) > 450
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0
    page.close()


def test_it_prints_on_a4_in_black_on_white(browser, report, tmp_path):
    page = browser.new_page(color_scheme="dark", viewport={"width": 1100, "height": 900})
    page.goto(report.as_uri())
    page.wait_for_selector(".js-plotly-plot .main-svg")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    printed = page.pdf(prefer_css_page_size=True).decode("latin-1")
    boxes = re.findall(r"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", printed)
    assert 4 <= len(boxes) <= 12
    assert {(round(float(w)), round(float(h))) for w, h in boxes} == {(595, 842)}
    page.close()
