"""RESULTS.md keeps what was not measured again, and its sentences say what its numbers say."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import unlearning
from benchmarks.results import with_section
from benchmarks.seeds import KEPT, in_words, kept

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


WAYS = unlearning.WAYS["digits"]


def means(changed):
    """A summary where every mean is 1 but for those ``changed``: (way, column) -> mean."""
    ways = [unlearning.BEFORE, *WAYS, unlearning.FLOOR]
    table = pd.DataFrame({"way": ways, **{name: 1.0 for name in unlearning.DIGITS}})
    table = table.assign(**{f"{name} ±": 0.5 for name in unlearning.DIGITS})
    for (way, column), value in changed.items():
        table.loc[table["way"] == way, column] = value
    return table


def test_the_verdict_says_where_puma_is_best_and_where_not():
    of = {(way, "test accuracy"): 0.8 for way in WAYS}
    of |= {("PUMA, three steps", "test accuracy"): 0.9, (unlearning.EXACT, "test accuracy"): 0.95}
    of |= {(way, "loss on removed rows"): 3.0 for way in WAYS}
    of |= {("Amnesiac ML", "loss on removed rows"): 5.5, (unlearning.EXACT, "loss on removed rows"): 5.0}
    of |= {("SISA, 5 shards of 3 slices", "parameters apart"): np.nan, ("unrolled SGD", "CPU seconds"): 0.1}
    best, others = unlearning.verdict(means(of)).split("It is not best in ")
    assert "test accuracy (PUMA, three steps 0.9000 ± 0.5000)" in best
    assert "loss on removed rows (PUMA, one step 3.00 ± 0.50 against Amnesiac ML 5.50 ± 0.50)" in others
    assert "CPU seconds (PUMA, one step 1.00 ± 0.50 against unrolled SGD 0.10 ± 0.50)" in others
    assert f"against {unlearning.EXACT}" not in others


def test_what_was_kept_is_not_measured_again(monkeypatch, tmp_path):
    answers = iter([{"a": 1.5}, {"a": 2.5}, {"a": 3.5}])
    monkeypatch.delenv(KEPT, raising=False)
    assert kept("part 1", lambda: next(answers)) == {"a": 1.5}
    monkeypatch.setenv(KEPT, str(tmp_path / "kept"))
    assert [kept(name, lambda: next(answers)) for name in ("part 1", "part 1", "part 2")] == [
        {"a": 2.5},
        {"a": 2.5},
        {"a": 3.5},
    ]


@pytest.mark.parametrize(
    ("mean", "half", "shown"), [(1.0, 0.25, "1.00 ± 0.25"), (1.0, np.nan, "1.00"), (np.nan, np.nan, "")]
)
def test_means_in_words(mean, half, shown):
    assert in_words(mean, half, 2) == shown
