"""The Guide: one method in five sentences at a time, chosen or linked to."""

import pytest

import puma_dash as puma

from .conftest import texts

GUIDE = "pages/7_Guide.py"


def shown(at):
    """The heading of the method that is shown, and the page's words."""
    assert not at.exception
    labels = [s.value for s in at.subheader]
    return labels[labels.index("Which one when") - 1], texts(at)


def test_a_method_is_chosen_and_told(open_page):
    at = open_page(GUIDE)
    assert at.session_state["guide"] == "PUMA on one page"
    assert shown(at)[0] == puma.VALUATIONS["psi"].label
    at.radio(key="guide-values").set_value("representer").run()
    label, words = shown(at)
    assert label == puma.VALUATIONS["representer"].label
    assert puma.VALUATIONS["representer"].reference in words
    assert all(f"**{head}.** " in words for head in ("Idea", "Formula", "Cost", "When it misleads"))
    at.segmented_control(key="guide-group").set_value("removes").run()
    assert shown(at)[0] == puma.UNLEARNERS["puma"].label
    at.segmented_control(key="guide-group").set_value("values").run()
    assert shown(at)[0] == puma.VALUATIONS["representer"].label


@pytest.mark.parametrize(
    ("method", "kind"),
    [("tracin", puma.VALUATIONS["tracin"]), ("removes.influence", puma.UNLEARNERS["influence"])],
)
@pytest.mark.parametrize("project", [{}, {"project": "radial"}])
def test_a_link_leads_to_a_method_and_is_left_behind(open_page, prepared, project, method, kind):
    at = open_page(GUIDE, method=method, **project)
    assert at.session_state["guide"] == "All methods"
    assert shown(at)[0] == kind.label
    assert "method" not in at.query_params
    at.segmented_control(key="guide-group").set_value("judges").run()
    assert shown(at)[0].startswith("removal evidence")


def test_a_link_to_nothing_opens_the_guide(open_page):
    assert shown(open_page(GUIDE, method="<b>"))[0] == puma.VALUATIONS["psi"].label
