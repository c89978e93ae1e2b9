"""What the Compare page and the report say of a patch."""

import pytest

from puma_dash.ui.compare import Record


@pytest.mark.parametrize(("measured", "doubted"), [(-0.05, False), (-0.2, False), (-0.04, True), (0.1, True)])
def test_a_prediction_that_does_not_hold_is_a_sentence(measured, doubted):
    told = Record("", {"predicted": {"brier": -0.1}, "measured": {"brier": measured}}).doubts()
    assert len(told) == doubted
    assert all(f"is {measured / -0.1:.2g} times the predicted −0.1000" in sentence for sentence in told)
