"""The strip of psi: counts against NumPy, bars against counts."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from puma_dash.ui.strip import BINS, Bins, psi_strip
from puma_dash.ui.style import HARMFUL, VALUABLE


def test_counts_are_those_of_a_histogram_whose_ends_hold_the_rest():
    psi = np.random.default_rng(0).standard_t(2, 5000)
    found = Bins.of(psi, limit=2.0)
    counts, _ = np.histogram(psi.clip(-2, np.nextafter(2, 0)), np.linspace(-2, 2, BINS + 1))
    assert found.counts.tolist() == counts.tolist()
    assert found.counts[: BINS // 2].sum() == (psi < 0).sum()


def test_missing_values_are_not_counted():
    assert Bins.of(np.array([np.nan, 0.1, np.nan]), limit=1.0).counts.sum() == 1


def test_bars_stand_for_counts_and_sides_for_colours():
    every = Bins.of(np.array([-0.9] * 100 + [0.9] * 10), 1.0)
    drawn = ElementTree.fromstring(psi_strip(every, Bins.of(np.array([-0.9]), 1.0)))
    paths = [path for path in drawn.iter("{http://www.w3.org/2000/svg}path") if "fill" in path.attrib]
    heights = [[float(v) for v in re.findall(r"v-([\d.]+)", path.get("d"))] for path in paths]
    assert [path.get("fill") for path in paths] == [HARMFUL, VALUABLE, HARMFUL, VALUABLE]
    assert [len(bars) for bars in heights] == [1, 1, 1, 0]
    assert heights[1][0] / heights[0][0] == pytest.approx(np.log(11) / np.log(101), abs=0.01)
    assert heights[2][0] / heights[0][0] == pytest.approx(np.log(2) / np.log(101), abs=0.01)


def test_no_rows_and_one_row():
    for psi in (np.array([0.0]), np.empty(0)):
        ElementTree.fromstring(psi_strip(Bins.of(psi), Bins.of(np.empty(0), 1.0)))
