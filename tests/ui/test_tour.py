"""The tour: where it stands follows from what has been done."""

import itertools

import pytest

from puma_dash.ui.tour import TOUR, stop_of

DONE = ("selected", "marked", "on_patch_page", "patched", "accepted")


@pytest.mark.parametrize("done", range(len(DONE) + 1))
def test_each_thing_done_leads_to_the_next_stop(done):
    assert stop_of(**{name: i < done for i, name in enumerate(DONE)}) == done


def test_there_is_a_stop_for_every_state():
    for states in itertools.product([False, True], repeat=len(DONE)):
        assert 0 <= stop_of(**dict(zip(DONE, states, strict=True))) < len(TOUR)
