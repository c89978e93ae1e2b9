"""The map coloured by numbers from low to high."""

import numpy as np

from puma_dash.ui.figures import map_figure
from puma_dash.ui.map import LEVELS, _sequential_look
from puma_dash.ui.style import OTHERS, SEQUENTIAL, rgb


def test_the_higher_lies_on_top_in_the_colour_of_the_scale():
    values = np.linspace(3, 5, 1001)
    look = _sequential_look(values, "age")
    assert (np.diff(look.level.astype(int)) >= 0).all()
    assert look.level.min() == 2
    assert look.level.max() == LEVELS
    ends = look.palette[[1, LEVELS - 1]].tolist()
    assert ends == [list(rgb(color)) for _, color in (SEQUENTIAL[0], SEQUENTIAL[-1])]
    assert look.marker["colorbar"]["ticktext"] == ["≤ 3.02", "4", "≥ 4.98"]


def test_missing_values_are_grey_below_all_others_and_counted():
    look = _sequential_look(np.array([1.0, np.nan, 2.0, np.inf]), "age")
    assert look.level[[1, 3]].tolist() == [1, 1]
    assert look.palette[0].tolist() == list(rgb(OTHERS))
    assert [trace.name for trace in look.key] == ["missing (2)"]


def test_values_without_spread_and_without_any_are_drawn():
    xy = np.zeros((5, 2))
    for values in (np.ones(5), np.full(5, np.nan)):
        figure = map_figure(xy, color=values, sequential=True, title="t", x_title="x", y_title="y")
        assert np.isfinite(figure.data[0].marker.color).all()
