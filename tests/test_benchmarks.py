"""RESULTS.md keeps what was not measured again."""

import pytest

from benchmarks.results import with_section

ORDER = ("scoring", "peers", "growth")
TABLE = "2026-01-01, a machine.\n\n### psi\n\n| s |\n|---|\n| {} |"


@pytest.fixture
def measured():
    """A file with two of the three parts."""
    first = with_section("", "growth", TABLE.format(1), ORDER)
    return with_section(first, "scoring", TABLE.format(2), ORDER)


def test_replacing_a_section_keeps_the_others(measured):
    again = with_section(measured, "scoring", TABLE.format(3), ORDER)
    assert again == measured.replace("| 2 |", "| 3 |") != measured


def test_a_new_section_takes_its_place_in_the_order(measured):
    added = with_section(measured, "peers", TABLE.format(4), ORDER)
    parts = [line[3:] for line in added.splitlines() if line.startswith("## ")]
    assert parts == list(ORDER)
    assert added.replace("## peers\n\n" + TABLE.format(4) + "\n\n", "") == measured


def test_a_part_that_is_no_more_goes(measured):
    assert "growth" not in with_section(measured, "scoring", TABLE.format(2), ("scoring",))
