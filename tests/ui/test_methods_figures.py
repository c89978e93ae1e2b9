"""The pictures of the Methods page show the numbers they are given."""

import numpy as np
import pandas as pd
import pytest

from puma_dash.ui import methods_figures as figures
from puma_dash.ui.style import AFTER, OTHERS


def lines(figure):
    """Name -> trace of the curves."""
    return {trace.name: trace for trace in figure.data if trace.name}


def test_curves_have_their_bands_and_psi_and_the_floor_stand_out():
    x = np.linspace(0, 1, 101)
    curves = {
        name: np.stack([x**p, 0.9 * x**p, x**p]) for name, p in (("psi", 0.5), ("b", 0.2), ("floor", 1))
    }
    figure = figures.flips_figure(curves, {"psi": "psi", "floor": "random"}, subtitle="n = 1")
    drawn = lines(figure)
    assert list(drawn) == ["b", "psi", "floor"]  # the best first
    assert drawn["psi"].line.color == AFTER
    assert (drawn["floor"].line.color, drawn["floor"].line.dash) == (OTHERS, "dot")
    np.testing.assert_allclose(drawn["psi"].y, x**0.5, rtol=1e-6)
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    assert len(bands) == 3
    assert max(bands[0].y) == pytest.approx(1)


def test_a_single_copy_has_no_band():
    curve = np.stack([np.linspace(0, 1, 101), np.full(101, np.nan), np.full(101, np.nan)])
    figure = figures.flips_figure({"loss": curve}, {}, subtitle="one copy")
    assert len(figure.data) == 1


def test_fourteen_methods_look_different():
    curve = np.tile(np.linspace(0, 1, 101), (3, 1))
    figure = figures.flips_figure({f"m{k}": curve for k in range(14)}, {}, subtitle="")
    looks = [(t.line.color, t.line.dash) for t in lines(figure).values()]
    assert len(set(looks)) == 14


def test_agreement_says_each_number_with_a_real_minus():
    table = pd.DataFrame([[1, -0.25], [-0.25, 1]], index=["a", "<b>"], columns=["a", "<b>"])
    (cells,) = figures.agreement_figure(table, title="Agreement", subtitle="").data
    assert cells.text[0] == ["1.00", "−0.25"]
    assert cells.zmin == -cells.zmax
    assert "&lt;b&gt;" in cells.x


def test_scores_show_their_intervals_and_the_ceiling():
    table = pd.DataFrame(
        {
            "method": ["psi", "loss"],
            "label": ["psi", "loss"],
            "score": [0.7, 0.1],
            "low": [0.5, -0.2],
            "high": [0.8, 0.4],
        }
    )
    figure = figures.datamodeling_figure(table, 0.9, subtitle="")
    (points,) = figure.data
    np.testing.assert_allclose(points.error_x.array, [0.1, 0.3], atol=1e-6)
    np.testing.assert_allclose(points.error_x.arrayminus, [0.2, 0.3], atol=1e-6)
    assert points.marker.color[0] == AFTER
    assert [shape.x0 for shape in figure.layout.shapes] == [0, 0.9]
    assert len(figures.datamodeling_figure(table, float("nan"), subtitle="").layout.shapes) == 1


def test_the_waterfall_leads_from_retraining_to_influence():
    terms = pd.DataFrame({"change": [-0.1, 0.3]}, index=["one", "two"])
    (bars,) = figures.trust_figure(terms, -0.5, -0.3, unit="nats", subtitle="").data
    assert list(bars.y) == ["retrained", "one", "two", "influence"]
    assert sum(bars.x[:3]) == pytest.approx(bars.x[3])
    assert list(bars.measure) == ["absolute", "relative", "relative", "total"]
