"""Rows inside an outline, against exact arithmetic that shoots its rays in the other direction."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from puma_dash.ui.gesture import MODES, combine, extent, is_empty_gesture, rows_inside

GRID = np.arange(-10, 10.25, 0.25)
X, Y = (axis.ravel() for axis in np.meshgrid(GRID, GRID))

vertex = st.tuples(st.integers(-9, 9), st.integers(-9, 9))
polygon = st.lists(vertex, min_size=3, max_size=9)
rows = st.lists(st.integers(0, 30), max_size=12)


def lasso(*polygons):
    return {"lasso": [{"x": [x for x, _ in p], "y": [y for _, y in p]} for p in polygons], "box": []}


def box(x, y):
    return {"box": [{"x": list(x), "y": list(y)}], "lasso": []}


def exact(vertices, x, y):
    """Whether a point is inside by the even-odd rule, along a ray upwards; None on the outline itself."""
    inside = False
    for (x0, y0), (x1, y1) in pairwise([*vertices, vertices[0]]):
        side = (x1 - x0) * (Fraction(y) - y0) - (y1 - y0) * (Fraction(x) - x0)
        if side == 0 and min(x0, x1) <= x <= max(x0, x1) and min(y0, y1) <= y <= max(y0, y1):
            return None
        if (x0 <= x) != (x1 <= x):
            inside ^= y0 + (Fraction(x) - x0) * Fraction(y1 - y0, x1 - x0) > y
    return inside


@given(polygon, st.lists(st.integers(0, len(X) - 1), min_size=1, max_size=25))
@example([(-5, -5), (5, 5), (5, -5), (-5, 5)], list(range(0, len(X), 101)))  # a bow tie
@example([(0, 9), (5, -7), (-8, 3), (8, 3), (-5, -7)], list(range(0, len(X), 101)))  # a pentagram: hollow
def test_lasso_agrees_with_exact_arithmetic(vertices, sample):
    found = set(rows_inside(lasso(vertices), X, Y).tolist())
    for row in sample:
        expected = exact(vertices, X[row], Y[row])
        assert expected is None or (row in found) == expected


@given(polygon, st.integers(0, 8))
def test_start_and_direction_of_the_outline_do_not_matter(vertices, start):
    turned = vertices[start:] + vertices[:start]
    off = 1 / 64  # no point of the grid lies on an outline through whole numbers, where any answer is right
    expected = rows_inside(lasso(vertices), X + off, Y + off**2)
    np.testing.assert_array_equal(rows_inside(lasso(turned[::-1]), X + off, Y + off**2), expected)


@given(st.lists(polygon, max_size=4), st.lists(st.tuples(vertex, vertex), max_size=3))
def test_outlines_add_up(polygons, boxes):
    selection = lasso(*polygons)
    selection["box"] = [{"x": [a[0], b[0]], "y": [a[1], b[1]]} for a, b in boxes]
    parts = [rows_inside(lasso(p), X, Y) for p in polygons]
    parts += [rows_inside({"box": [outline]}, X, Y) for outline in selection["box"]]
    together = rows_inside(selection, X, Y)
    assert together.dtype == np.int64
    np.testing.assert_array_equal(together, np.unique(np.concatenate([[], *parts])))


@given(polygon, st.integers(0, 99))
def test_rows_follow_their_coordinates(vertices, seed):
    order = np.random.default_rng(seed).permutation(len(X))
    shuffled = rows_inside(lasso(vertices), X[order], Y[order])
    np.testing.assert_array_equal(np.sort(order[shuffled]), rows_inside(lasso(vertices), X, Y))


@pytest.mark.parametrize("x", [(1, 3), (3, 1)])
@pytest.mark.parametrize("y", [(-2, 0.5), (0.5, -2)])
def test_box_has_its_border_and_corners_in_any_order(x, y):
    expected = np.flatnonzero((X >= 1) & (X <= 3) & (Y >= -2) & (Y <= 0.5))
    np.testing.assert_array_equal(rows_inside(box(x, y), X, Y), expected)


def test_limits_are_not_rounded_to_the_precision_of_the_rows():
    x = np.array([0.1], dtype=np.float32)  # a little more than 0.1
    assert len(rows_inside(box((0, 0.1), (-1, 1)), x, np.zeros(1, np.float32))) == 0
    assert len(rows_inside(box((0, float(x[0])), (-1, 1)), x, np.zeros(1, np.float32))) == 1


def test_rows_without_coordinates_are_never_inside():
    x, y = np.array([0, np.nan, 0, np.inf]), np.array([0, 0, np.nan, 0])
    assert rows_inside(box((-1, 1), (-1, 1)), x, y).tolist() == [0]
    assert rows_inside(lasso([(-1, -1), (1, -1), (0, 2)]), x, y).tolist() == [0]
    assert rows_inside(lasso([(-1, -1), (1, -1), (0, 2)]), [], []).tolist() == []


@pytest.mark.parametrize(
    "outline",
    [
        None,
        7,
        "x",
        [],
        {},
        {"x": [0, 1, 1]},
        {"x": [0, 1, 1], "y": [0, 1]},
        {"x": [0, 1], "y": [0, 1]},
        {"x": [0, None, 1], "y": [0, 0, 1]},
        {"x": [0, float("nan"), 1], "y": [0, 0, 1]},
        {"x": [0, float("inf"), 1], "y": [0, 0, 1]},
        {"x": [0, 10**400, 1], "y": [0, 0, 1]},
        {"x": ["a", "b", "c"], "y": [0, 0, 1]},
        {"x": [[0, 1, 1]], "y": [[0, 0, 1]]},
        {"x": {"0": 0}, "y": [0]},
        {"x": 0, "y": 0},
    ],
)
def test_a_malformed_outline_is_ignored_and_the_others_count(outline):
    good = lasso([(-2, -2), (2, -2), (0, 2)])
    expected = rows_inside(good, X, Y)
    assert len(expected)
    np.testing.assert_array_equal(rows_inside({"lasso": [outline, *good["lasso"]]}, X, Y), expected)


@pytest.mark.parametrize("part", [None, 3, "lasso", {"x": [0, 1, 1], "y": [0, 0, 1]}])
def test_missing_or_malformed_parts_select_nothing(part):
    assert rows_inside({}, X, Y).tolist() == []
    assert rows_inside({"lasso": part, "box": part}, X, Y).tolist() == []


def test_an_empty_gesture_has_no_outline_at_all():
    assert is_empty_gesture({"points": [], "point_indices": [], "box": [], "lasso": []})
    assert is_empty_gesture({})
    assert not is_empty_gesture(lasso([(50, 50), (51, 50), (50, 51)]))
    assert not is_empty_gesture(box((50, 51), (50, 51)))


@given(rows, rows)
def test_combining_is_set_algebra(current, gesture):
    a, b = set(current), set(gesture)
    expected = {"replace": b, "add": a | b, "subtract": a - b, "intersect": a & b}
    assert set(MODES) == set(expected)
    for mode, wanted in expected.items():
        combined = combine(np.array(current, dtype=int), gesture, mode)
        assert combined.dtype == np.int64
        assert combined.tolist() == sorted(wanted)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="replace, add, subtract, intersect but got 'toggle'"):
        combine([], [1], "toggle")


def test_the_extent_holds_all_outlines_and_has_an_area():
    assert extent(box((3, -1), (5, 2))) == ((-1, 3), (2, 5))
    both = {"box": [{"x": [0, 1], "y": [0, 1]}], "lasso": [{"x": [0, 4, 2], "y": [-3, 0, 0]}]}
    assert extent(both) == ((0, 4), (-3, 1))
    for flat in (box((1, 1), (0, 2)), lasso([(0, 5), (1, 5), (2, 5)]), {"box": [{"x": [0]}]}, {}):
        assert extent(flat) is None
