"""What the figures must keep: types that travel well, text that stays text, and what is drawn on top."""

import base64
import io
import json
import re
import subprocess
import sys

import numpy as np
import plotly.io as pio
import pytest
from PIL import Image

from puma_dash.ui import figures, raster, style, text
from puma_dash.ui import look as looks
from puma_dash.ui import map as row_map
from puma_dash.ui.figures import (
    class_figure,
    histogram_figure,
    predicted_measured_figure,
    psi_limits,
    reliability_figure,
    strength_figure,
    thumbnails,
)
from puma_dash.ui.map import SHARP_LIMIT

HOSTILE = "<b>a</b> & #000012\n" + "x" * 200
TITLES = {"x_title": "x", "y_title": "y"}


@pytest.fixture
def few():
    """Positions (n, 2) and psi (n,) of rows that all answer the mouse."""
    random = np.random.default_rng(0)
    return random.normal(size=(500, 2)), random.standard_t(3, 500) * 1e-3


@pytest.fixture(scope="module")
def many():
    """Positions (n, 2) and psi (n,) of more rows than answer the mouse."""
    random = np.random.default_rng(1)
    return random.normal(size=(SHARP_LIMIT + 1, 2)), random.standard_t(3, SHARP_LIMIT + 1) * 1e-3


def bins(count=(0, 2, 30, 400)):
    edges = np.linspace(0, 1, len(count) + 1)
    empty = np.array(count) == 0
    middle = np.where(empty, np.nan, (edges[:-1] + edges[1:]) / 2)
    return {
        "bin_low": edges[:-1],
        "bin_high": edges[1:],
        "confidence": middle,
        "accuracy": middle**2,
        "count": np.array(count),
    }


ALL = ("color", "categories", "sequential", "gone", "hover", "window")


def map_figure(xy, **given):
    """The map of rows that are drawn for it; which rows are selected or marked as a mask or as numbers."""
    given = {
        k: np.flatnonzero(v) if getattr(v, "dtype", "") == np.dtype(bool) else v for k, v in given.items()
    }
    of_all = {name: given.pop(name) for name in ALL if name in given}
    return row_map.map_figure(row_map.backdrop(xy, **of_all), **given)


def every_figure():
    random = np.random.default_rng(2)
    for n in (300, SHARP_LIMIT + 1):
        xy, psi, codes = random.normal(size=(n, 2)), random.normal(size=n), random.integers(0, 3, n)
        marks = {"selected": psi > 1, "removed": psi < -2, "upweighted": psi > 2}
        titles = {"x_title": HOSTILE, "y_title": HOSTILE}
        yield map_figure(xy, color=psi, **titles, **marks, hover=lambda some: [HOSTILE] * len(some))
        yield map_figure(xy, color=codes, categories=[HOSTILE, "b", "c"], **titles, **marks)
    yield reliability_figure(bins(), title=HOSTILE, n=432)
    yield reliability_figure(bins(), bins((1, 1, 20, 410)), title=HOSTILE, n=432)
    yield histogram_figure(random.normal(size=5000), random.random(5000) < 0.1, title=HOSTILE)
    yield predicted_measured_figure({HOSTILE: -0.1, "b": 3.0}, {HOSTILE: -0.2}, title=HOSTILE)
    lines = {HOSTILE: np.linspace(0, -1, 21), "b": np.linspace(0, 1, 21) ** 2}
    yield strength_figure(np.linspace(0, 2, 21), lines, {HOSTILE: 0.0, "b": 0.1}, at=1.0, title=HOSTILE)
    yield class_figure([HOSTILE, "b"], [0.5, 0.6], [0.7, 0.5], title=HOSTILE, x_title=HOSTILE)


def leaves(node):
    """All values of a figure that are not themselves containers, and all its lists."""
    if isinstance(node, dict):
        for child in node.values():
            yield from leaves(child)
    elif isinstance(node, list):
        yield node
        for child in node:
            yield from leaves(child)
    else:
        yield node


def hovered(figure):
    """The trace that answers the mouse: the first."""
    return figure.data[0]


def handle(figure):
    """The trace of the colour bar: the second."""
    return figure.data[1]


def ends(axis):
    """What an axis of the map shows at least."""
    return axis.autorangeoptions.minallowed, axis.autorangeoptions.maxallowed


def pixels(figure):
    """The picture of a map, as RGBA (h, w, 4)."""
    source = figure.layout.images[0].source
    png = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def colors_at(figure, xy):
    """The RGBA colours (n, 4) of the picture where rows (n, 2) are."""
    image, picture = figure.layout.images[0], pixels(figure)
    height, width, _ = picture.shape
    x, y = np.asarray(xy, dtype=float).T
    line, column = (image.y - y) / image.sizey * height, (x - image.x) / image.sizex * width
    return picture[line.astype(int), column.astype(int)]


# ---------------------------------------------------------------------------------------- all figures alike


def test_numbers_travel_as_small_typed_arrays():
    for figure in every_figure():
        for node in leaves(json.loads(figure.to_json())["data"]):
            if isinstance(node, list):
                assert len(node) <= 2 or not isinstance(node[0], int | float), node[:3]
            if isinstance(node, str) and node in {"f8", "i8"}:
                pytest.fail("a trace carries 64-bit numbers")


def test_text_from_data_is_never_markup_nor_a_theme_colour():
    for figure in every_figure():
        strings = [node for node in leaves(json.loads(figure.to_json())) if isinstance(node, str)]
        shown = [string for string in strings if "a&lt;/b&gt;" in string]
        assert shown
        for string in strings:
            assert "<b>" not in string
            assert not re.search(r"#0000\d\d", string)
        assert max(map(len, shown)) < 400


def test_figures_are_transparent_and_leave_fonts_to_the_page():
    for figure in every_figure():
        assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == style.CLEAR
        assert "family" not in figure.to_json()


def test_figures_do_not_depend_on_the_template_that_streamlit_sets():
    expected = [figure.to_json() for figure in every_figure()]
    default = pio.templates.default
    try:
        pio.templates.default = "plotly_dark"
        assert [figure.to_json() for figure in every_figure()] == expected
    finally:
        pio.templates.default = default


def test_figures_import_no_streamlit_and_no_pandas():
    heavy = "{'streamlit', 'pandas', 'plotly.express', 'torch', 'sklearn'}"
    code = (
        f"import sys, puma_dash.ui.figures; assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ----------------------------------------------------------------------------------------------- psi limits


def test_limits_are_symmetric_and_scale_with_psi(few):
    _, psi = few
    limit = psi_limits(psi)
    assert limit == pytest.approx(np.abs(np.percentile(psi, [1, 99])).max())
    assert psi_limits(-psi) == pytest.approx(limit)
    assert psi_limits(-7 * psi) == pytest.approx(7 * limit)
    marker = handle(map_figure(few[0], color=psi, **TITLES)).marker
    assert marker.cmin == -marker.cmax == pytest.approx(-limit, rel=1e-6)


@pytest.mark.parametrize(
    ("psi", "limit"),
    [([], 1), ([np.nan], 1), ([0, 0], 1), ([-3, -3], 3), ([np.nan, 2, np.inf], 2), ([0] * 999 + [-5], 5)],
)
def test_limits_of_odd_psi(psi, limit):
    assert psi_limits(np.array(psi, dtype=float)) == limit


# -------------------------------------------------------------------------------------------------- the map


def test_no_lasso_selects_points_in_the_browser(few):
    """Plotly sends what it selects back to the server: it must find nothing but the handle."""
    xy, psi = few
    figure = map_figure(xy, color=psi, selected=psi > 0, removed=np.array([3]), **TITLES)
    selectable = [trace for trace in figure.data if "markers" in trace.mode and trace.x[0] is not None]
    assert selectable == [handle(figure)]
    assert len(handle(figure).x) == 1
    assert {trace.type for trace in figure.data} == {"scatter"}


def test_a_row_keeps_its_number_wherever_it_is_drawn(few):
    xy, psi = few
    trace = hovered(map_figure(xy, color=psi, selected=psi > 0, **TITLES))
    assert trace.customdata.tolist() == list(range(len(psi)))
    np.testing.assert_array_equal(np.stack([trace.x, trace.y], 1), xy.astype(np.float32))


def test_a_few_rows_of_many_answer_the_mouse_and_all_of_them_once_zoomed(many):
    xy, psi = many
    assert 1000 < len(hovered(map_figure(xy, color=psi, **TITLES)).x) <= row_map.HOVER_SAMPLE
    window = ((0, 1), (-1, 0))
    inside = (xy[:, 0] >= 0) & (xy[:, 0] <= 1) & (xy[:, 1] >= -1) & (xy[:, 1] <= 0)
    drawn = row_map.backdrop(xy, color=psi, window=window)
    answering = drawn.hover.customdata
    assert drawn.drawn == len(answering) < len(xy) / 2
    assert set(np.flatnonzero(inside)) < set(answering)
    assert (np.abs(xy[answering] - (0.5, -0.5)) < 1.6).all()


def test_hover_texts_go_to_their_rows_and_keep_their_lines(few):
    xy, psi = few
    figure = map_figure(xy, color=psi, hover=lambda some: [f"row {i}\n<i>" for i in some], **TITLES)
    assert list(hovered(figure).hovertext) == [f"row {i}<br>&lt;i&gt;" for i in range(500)]


def test_marks_are_counted_in_the_legend(few):
    xy, psi = few
    marks = {"removed": np.array([3, 4]), "upweighted": np.array([5]), "relabelled": np.array([6, 7, 8])}
    figure = map_figure(xy, color=psi, gone=np.array([9]), **marks, **TITLES)
    names = [trace.name for trace in figure.data if trace.showlegend is not False]
    assert names == ["marked remove (2)", "marked up-weight (1)", "marked relabel (3)", "removed before (1)"]
    assert len(map_figure(xy, color=psi, removed=np.empty(0, int), **TITLES).data) == 2


def test_categories_have_their_colours_and_are_counted():
    codes = np.repeat([0, 1, 2], [50, 5, 20])
    xy = np.random.default_rng(0).normal(size=(75, 2))
    figure = map_figure(xy, color=codes, categories="abc", **TITLES)
    assert [trace.name for trace in figure.data[2:]] == ["a (50)", "b (5)", "c (20)"]
    assert [trace.marker.color for trace in figure.data[2:]] == list(style.CATEGORICAL[:3])
    shown = {tuple(color) for color in colors_at(figure, xy)[:, :3].tolist()}
    assert shown == {style.rgb(color) for color in style.CATEGORICAL[:3]}


@pytest.mark.parametrize("n", [4000, 40_000])
def test_where_categories_overlap_none_hides_another(n):
    random = np.random.default_rng(0)
    codes = np.repeat([0, 1, 2], [n * 55 // 100, n * 44 // 100, n // 100])
    figure = map_figure(random.normal(size=(n, 2)), color=codes, categories="abc", **TITLES)
    colors = [style.rgb(color) for color in style.CATEGORICAL[:3]]
    shown = [(pixels(figure)[..., :3] == color).all(axis=2).sum() for color in colors]
    assert 0.8 < shown[0] / shown[1] < 1.25
    assert shown[2] / shown[0] > 1.5 / 55


def test_the_higher_number_lies_on_top_in_the_colour_of_the_scale():
    look = looks.sequential_look(np.linspace(3, 5, 1001))
    assert (np.diff(look.level.astype(int)) >= 0).all()
    assert (look.level.min(), look.level.max()) == (2, looks.LEVELS)
    ends = look.palette[[1, looks.LEVELS - 1]].tolist()
    assert ends == [list(style.rgb(color)) for _, color in (style.SEQUENTIAL[0], style.SEQUENTIAL[-1])]
    assert look.scale["colorbar"]["ticktext"] == ["≤ 3.02", "4", "≥ 4.98"]


def test_missing_numbers_are_grey_below_all_others_and_counted():
    look = looks.sequential_look(np.array([1.0, np.nan, 2.0, np.inf]))
    assert look.level[[1, 3]].tolist() == [1, 1]
    assert look.palette[0].tolist() == list(style.rgb(style.OTHERS))
    assert [trace.name for trace in look.key] == ["missing (2)"]
    for values in (np.ones(5), np.full(5, np.nan)):
        marker = handle(map_figure(np.zeros((5, 2)), color=values, sequential=True, **TITLES)).marker
        assert marker.cmin <= marker.cmax


def test_the_least_frequent_of_many_categories_and_missing_ones_are_grey():
    codes = np.concatenate([np.repeat(np.arange(14), np.arange(14, 0, -1)), [-1]])
    labels = [f"c{i}" for i in range(14)]
    figure = map_figure(np.zeros((len(codes), 2)), color=codes, categories=labels, **TITLES)
    names = [trace.name for trace in figure.data[2:]]
    assert names[:2] == ["c0 (14)", "c1 (13)"]
    assert names[10:] == ["others (11)"]
    assert figure.data[-1].marker.color == style.OTHERS

    figure = map_figure(np.zeros((3, 2)), color=[0, -1, 0], categories=["a"], **TITLES)
    assert [trace.name for trace in figure.data[2:]] == ["a (2)", "missing (1)"]


@pytest.mark.parametrize("n", [0, 1, 2, SHARP_LIMIT + 1])
def test_a_map_without_extent_or_without_finite_rows_is_still_a_map(n):
    for xy in (np.zeros((n, 2)), np.full((n, 2), np.nan)):
        figure = map_figure(xy, color=np.full(n, np.nan), removed=np.arange(n), **TITLES)
        (left, right), (bottom, top) = ends(figure.layout.xaxis), ends(figure.layout.yaxis)
        assert left < right
        assert bottom < top
        assert figure.layout.dragmode == "lasso"


# ---------------------------------------------------------------------------------------------- the picture


@pytest.mark.parametrize("n", [500, SHARP_LIMIT + 1])
def test_the_picture_fits_its_axes_and_a_handle_makes_it_a_chart(many, n):
    xy, psi = many[0][:n], many[1][:n]
    figure = map_figure(xy, color=psi, removed=np.array([1]), **TITLES)
    assert handle(figure).marker.opacity == 0
    assert handle(figure).marker.showscale
    image = figure.layout.images[0]
    assert (image.x, image.x + image.sizex) == pytest.approx(ends(figure.layout.xaxis))
    assert (image.y - image.sizey, image.y) == pytest.approx(ends(figure.layout.yaxis))
    size = row_map.PICTURE if n > SHARP_LIMIT else row_map.SHARP_PICTURE
    assert pixels(figure).shape == (*size[::-1], 4)
    assert len(figure.to_json()) < 600_000


@pytest.mark.parametrize("n", [500, SHARP_LIMIT + 1])
def test_every_row_is_drawn_where_it_is(many, n):
    xy, psi = many[0][:n], many[1][:n]
    assert colors_at(map_figure(xy, color=psi, **TITLES), xy)[:, 3].all()


def test_the_picture_is_the_same_whatever_the_order_of_rows(many):
    xy, psi = many
    order = np.random.default_rng(4).permutation(len(psi))
    codes = np.digitize(psi, [-1e-3, 0, 2e-3])
    for color, categories in ((psi, None), (codes, list("abcd"))):
        kwargs = {"categories": categories, **TITLES}
        one = map_figure(xy, color=color, selected=psi > 0, removed=psi < -5e-3, **kwargs)
        other = map_figure(
            xy[order],
            color=color[order],
            selected=psi[order] > 0,
            removed=psi[order] < -5e-3,
            **kwargs,
        )
        np.testing.assert_array_equal(pixels(one), pixels(other))


def crowd(*rows):
    """More rows than are drawn: all at the origin with psi 0, but for the (x, y, psi) given."""
    xy, psi = np.zeros((SHARP_LIMIT + 1, 2)), np.zeros(SHARP_LIMIT + 1)
    for i, (x, y, value) in enumerate(rows):
        xy[i], psi[i] = (x, y), value
    return xy, psi


def test_the_extreme_row_wins_a_pixel_and_colours_mean_what_the_bar_says():
    xy, psi = crowd((1, 1, -5), (1, 1, 1), (-1, 1, 5), (-1, 1, 0), (-1, -1, 0), (1, -1, 0))
    figure = map_figure(xy, color=psi, **TITLES)
    found = colors_at(figure, [(1, 1), (-1, 1), (1, -1), (0.5, 0.9)])
    expected = [style.rgb(color) for color in (style.HARMFUL, style.VALUABLE, style.NEUTRAL)]
    assert found[:3, :3].tolist() == list(map(list, expected))
    assert found[3, 3] == 0


def test_selected_rows_are_bright_in_the_picture_even_where_dimmed_rows_are_more_extreme():
    xy, psi = crowd((1, 1, -5), (1, 1, 0.5), (-1, 1, 5), (-1, -1, 0))
    figure = map_figure(xy, color=psi, selected=np.array([1]), **TITLES)
    bright, dim = colors_at(figure, [(1, 1), (-1, 1)])
    assert bright[3] == round(255 * row_map.BRIGHT)
    assert tuple(bright[:3]) != style.rgb(style.HARMFUL)
    assert 0 < dim[3] < bright[3] / 3


def test_marks_are_visible_in_the_picture():
    xy, psi = crowd((1, 1, -5), (-1, 1, 5), (-1, -1, 0))
    figure = map_figure(
        xy,
        color=psi,
        selected=np.array([2]),
        removed=np.array([0]),
        upweighted=np.array([1]),
        **TITLES,
    )
    assert colors_at(figure, [(1, 1)]).tolist() == [[*style.rgb(style.REMOVED), 255]]
    picture = pixels(figure)
    assert (picture == (*style.rgb(style.UPWEIGHTED), 255)).all(axis=2).sum() > 20


def test_rows_removed_before_are_grey_and_below_all_others():
    xy, psi = crowd((1, 1, -5), (-1, 1, 5), (-1, 1, 0), (-1, -1, 0))
    gone, covered = colors_at(map_figure(xy, color=psi, gone=np.array([0, 1]), **TITLES), [(1, 1), (-1, 1)])
    assert tuple(gone) == (*style.rgb(style.OTHERS), round(255 * row_map.GONE_BRIGHT))
    assert tuple(covered) == (*style.rgb(style.NEUTRAL), round(255 * row_map.BRIGHT))
    chosen = map_figure(xy, color=psi, gone=np.array([0, 1]), selected=np.array([2]), **TITLES)
    assert colors_at(chosen, [(1, 1)])[0, 3] == round(255 * row_map.GONE_DIM)


def test_what_is_drawn_once_serves_every_selection(many):
    xy, psi = many
    drawn = row_map.backdrop(xy, color=psi)
    for selected in (None, np.flatnonzero(psi > 0), np.array([], int), np.array([7])):
        figure = row_map.map_figure(drawn, selected=selected, removed=np.array([1, 2]), **TITLES)
        anew = map_figure(xy, color=psi, selected=selected, removed=np.array([1, 2]), **TITLES)
        np.testing.assert_array_equal(pixels(figure), pixels(anew))


def test_marks_in_a_window_are_as_large_as_its_marks_leave_room_for(many):
    xy, psi = many
    inside = np.flatnonzero((np.abs(xy) < 0.1).all(axis=1))
    beyond = np.flatnonzero((np.abs(xy) > 0.5).any(axis=1))
    window = ((-0.2, 0.2), (-0.2, 0.2))
    reds = [
        (pixels(map_figure(xy, color=psi, removed=marked, window=window, **TITLES))[..., :3]
         == style.rgb(style.REMOVED)).all(axis=2).sum()
        for marked in (inside, np.union1d(inside, beyond))
    ]  # fmt: skip
    assert reds[0] == reds[1] > 20


def test_a_window_is_drawn_at_full_resolution_whichever_way_it_is_given(many):
    xy, psi = many
    figure = map_figure(xy, color=psi, window=((0, 1), (0, 1)), **TITLES)
    assert ends(figure.layout.xaxis) == (0, 1)
    flipped = map_figure(xy, color=psi, window=((1, 0), (1, 0)), **TITLES)
    np.testing.assert_array_equal(pixels(figure), pixels(flipped))
    inside = np.flatnonzero(((xy > 0.1) & (xy < 0.9)).all(axis=1))
    assert colors_at(figure, xy[inside])[:, 3].all()
    nowhere = map_figure(xy, color=psi, window=((50, 51), (50, 51)), **TITLES)
    assert not pixels(nowhere)[..., 3].any()


@pytest.mark.parametrize("window", [None, ((0, 1), (0, 0.2)), ((0, 0.1), (-1, 1)), ((-1, 1), (-1, 1))])
@pytest.mark.parametrize("stretch", [1, 50])
def test_a_disc_is_round_in_a_plot_of_any_proportion(window, stretch):
    """A unit upwards is ``scaleratio`` times as long as one to the right, and so it is in the picture."""
    xy = np.random.default_rng(0).normal(size=(500, 2)) * (1, stretch)
    figure = map_figure(xy, color=xy[:, 0], window=window, **TITLES)
    image, axis = figure.layout.images[0], figure.layout.yaxis
    height, width = pixels(figure).shape[:2]
    assert axis.scaleanchor == "x"
    assert height / image.sizey / (width / image.sizex) == pytest.approx(axis.scaleratio)


def test_around_a_window_more_is_drawn_for_wider_and_higher_plots():
    window = ((1.0, 3.0), (0.0, 1.0))
    xy = np.random.default_rng(0).normal(size=(500, 2))
    drawn = row_map.backdrop(xy, color=np.ones(500), window=window)
    for (low, high), (least, most) in zip(window, drawn.reach, strict=True):
        assert (least + most) / 2 == pytest.approx((low + high) / 2)
        assert most - least >= 1.5 * (high - low) - 1e-9
    whole = row_map.backdrop(xy, color=np.ones(500))
    assert whole.reach == whole.window


@pytest.mark.parametrize("n", [10, 200])
@pytest.mark.parametrize("shape", [raster.disc(2), raster.disc(3)[:20]])
def test_drawing_agrees_with_a_loop_over_rows(n, shape):
    random = np.random.default_rng(5)
    x, y = random.uniform(-0.2, 1.2, (2, n)).astype(np.float32)
    level = random.integers(1, 255, n).astype(np.uint8)
    expected = np.zeros((20, 30), dtype=np.uint8)
    for column, line, value in zip(np.floor(x * 30), np.floor((1 - y) * 20), level, strict=True):
        if 0 <= column < 30 and 0 <= line < 20:
            for down, right in shape:
                i, j = int(line + down), int(column + right)
                if 0 <= i < 20 and 0 <= j < 30:
                    expected[i, j] = max(expected[i, j], value)
    np.testing.assert_array_equal(raster.draw(x, y, level, ((0, 1), (0, 1)), (30, 20), shape), expected)


@pytest.mark.parametrize(
    "shape",
    [raster.disc(3), raster.cross(4), raster.diamond(4), raster.square(4), raster.grown(raster.disc(1))],
)
def test_shapes_are_centred_and_hold_no_pixel_twice(shape):
    assert len(np.unique(shape, axis=0)) == len(shape)
    assert set(map(tuple, shape.tolist())) == set(map(tuple, (-shape).tolist()))


# ----------------------------------------------------------------------------------------------- the charts


def test_reliability_leaves_out_empty_bins_and_counts_the_others():
    figure = reliability_figure(bins(), bins((0, 0, 20, 412)), title="t", n=432)
    before, after = (next(t for t in figure.data if t.name == name) for name in ("before", "after"))
    np.testing.assert_allclose(before.x, [0.375, 0.625, 0.875])
    np.testing.assert_allclose(after.y, [0.625**2, 0.875**2])
    bars = [trace for trace in figure.data if trace.type == "bar"]
    assert {tuple(bar.y) for bar in bars} == {(2, 30, 400), (20, 412)}
    assert figure.data[-1].text == ("20", "412")
    assert tuple(figure.data[-1].y) == (30, 412)  # above both bars
    assert (before.line.dash, after.line.dash) == ("dash", "solid")
    assert "432" in figure.layout.title.subtitle.text
    assert figure.layout.xaxis.title.text == "confidence (predicted probability of the predicted class)"
    assert figure.layout.yaxis.title.text == "accuracy (fraction correct)"


def test_reliability_of_one_model_and_of_no_rows():
    figure = reliability_figure(bins(), title="t", n=432)
    assert [trace.name for trace in figure.data] == ["perfect calibration", "before", "before", None]
    assert figure.data[-1].text == ("2", "30", "400")
    assert reliability_figure(bins((0, 0)), title="t", n=0).layout.xaxis.range[1] > 1


def test_reliability_takes_a_table():
    pandas = pytest.importorskip("pandas")
    figure = reliability_figure(pandas.DataFrame(bins()), title="t", n=432)
    assert figure.to_json() == reliability_figure(bins(), title="t", n=432).to_json()


def test_histogram_counts_every_row_once_and_never_mixes_signs():
    psi = np.concatenate([np.random.default_rng(6).standard_t(2, 5000), [1e6, -1e6, np.nan, 0]])
    selected = psi < -0.5
    figure = histogram_figure(psi, selected, title="t")
    bars = [trace for trace in figure.data if trace.type == "bar"]
    assert [bar.y.sum() for bar in bars] == [5003, selected.sum()]
    assert bars[1].y.max() <= bars[0].y.max()
    assert all(len(bar.x) == figures.BINS for bar in bars)
    assert bars[0].y[bars[0].x < 0].sum() == (psi < 0).sum()
    assert bars[0].marker.color[0] == style.HARMFUL
    assert bars[0].marker.color[-1] == style.VALUABLE
    assert len(histogram_figure(psi, title="t").to_json()) < 5000


def test_predicted_and_measured_share_a_scale_within_a_criterion_and_show_their_values():
    predicted, measured = {"a": -0.01, "b": 200.0, "c": 0.0}, {"a": -0.02, "b": 50.0}
    figure = predicted_measured_figure(predicted, measured, title="t")
    before, after = (next(t for t in figure.data if t.name == name) for name in ("predicted", "measured"))
    np.testing.assert_allclose(before.x, [-0.5, 1, 0])
    np.testing.assert_allclose(after.x, [-1, 0.25, np.nan])
    shown = {annotation.text for annotation in figure.layout.annotations}
    assert shown == {"predicted", "measured", "−0.01", "−0.02", "+200", "+50", "+0", "–"}
    assert [label for label in figure.layout.xaxis.ticktext if label != "0"] == ["← better", "worse →"]
    assert len(predicted_measured_figure({}, {}, title="t").data) == 3


def test_each_criterion_runs_along_strength_beside_its_rail():
    strengths, changes = np.linspace(0, 2, 5), {"a": -np.arange(5.0), "b": np.arange(5.0) ** 2}
    figure = strength_figure(strengths, changes, {"a": 0.5, "b": 3.0}, at=0.7, title="t")
    assert [trace.name for trace in figure.data] == ["a", "a, rail", "b", "b, rail"]
    for line, rail, name, limit in ((0, 1, "a", 0.5), (2, 3, "b", 3.0)):
        np.testing.assert_array_equal(figure.data[line].x, strengths)
        np.testing.assert_array_equal(figure.data[line].y, changes[name])
        assert figure.data[rail].x.tolist() == [0, 2]
        assert figure.data[rail].y.tolist() == [limit, limit]
        assert figure.data[rail].line.dash == "dash"
        assert figure.data[rail].line.color == figure.data[line].line.color
    assert figure.data[0].line.color != figure.data[2].line.color
    zero, asked = figure.layout.shapes
    assert (zero.y0, zero.y1, asked.x0, asked.x1) == (0, 0, 0.7, 0.7)
    many = {str(i): strengths for i in range(12)}
    assert len(strength_figure(strengths, many, dict.fromkeys(many, 0), at=1, title="t").data) == 24


def test_class_rates_run_from_the_top_in_the_order_given():
    figure = class_figure(["a", "b"], [0.5, np.nan], [0.75, 0.25], title="t", x_title="rate")
    before, after = (next(t for t in figure.data if t.name == name) for name in ("before", "after"))
    np.testing.assert_array_equal(before.x, [50, np.nan])
    np.testing.assert_array_equal(after.x, [75, 25])
    assert figure.layout.xaxis.ticksuffix == " %"
    assert figure.layout.yaxis.ticktext == ("a", "b")
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]
    figure = class_figure(["a"], [0.5], [0.75], title="t", x_title="RMSE", share=False)
    assert [list(trace.x) for trace in figure.data if trace.name in ("before", "after")] == [[0.5], [0.75]]


@pytest.mark.parametrize(
    ("value", "digits", "told"),
    [(2.17, 2, "2.2"), (13_241.5, 2, "13,000"), (46_614, 3, "46,600"), (-0.00312, 2, "-0.0031"), (0, 2, "0")],
)
def test_short_numbers_have_few_digits_and_no_exponent(value, digits, told):
    assert style.short(value, digits) == told


# ----------------------------------------------------------------------------------------------- thumbnails


def decoded(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, bool])
def test_thumbnails_stretch_each_image_and_enlarge_it_without_smoothing(dtype):
    images = np.zeros((2, 8, 8), dtype=dtype)
    images[0, 2, 3] = 1
    first, constant = map(decoded, thumbnails(images))
    assert first.shape == (48, 48)
    assert (first[12:18, 18:24] == 255).all()
    assert first.sum() == 36 * 255
    assert (constant == 0).all()


def test_thumbnails_take_channels_first_or_last():
    images = np.random.default_rng(7).normal(size=(3, 5, 7))
    assert thumbnails(images[:, None]) == thumbnails(images)
    colour = np.random.default_rng(8).normal(size=(3, 5, 7, 3))
    assert thumbnails(np.moveaxis(colour, -1, 1)) == thumbnails(colour)
    picture = decoded(thumbnails(colour, size=7)[0])
    assert picture.shape == (5, 7, 3)
    assert (picture.min(), picture.max()) == (0, 255)


def test_thumbnails_shrink_large_images_and_survive_missing_values():
    images = np.random.default_rng(9).normal(size=(1, 300, 150))
    images[0, 0, 0] = np.nan
    assert decoded(thumbnails(images)[0]).shape == (48, 24)
    assert thumbnails(np.zeros((0, 8, 8))) == []
    with pytest.raises(ValueError, match=r"but got \(4, 4\)"):
        thumbnails(np.zeros((4, 4)))


# ---------------------------------------------------------------------------------------------------- words


def test_alternative_texts_say_what_is_seen():
    assert text.map_alt(1797, "psi") == "Map of 1,797 training rows, coloured by psi."
    assert text.map_alt(9, "class", selected=0, removed=2, upweighted=1) == (
        "Map of 9 training rows, coloured by class, 0 selected, 2 marked for removal, 1 marked to count more."
    )
    assert text.reliability_alt(bins(), n=432) == (
        "Reliability diagram of 432 rows, widest gap: accuracy 0.14 where confidence is 0.38."
    )
    assert "after: no rows" in text.reliability_alt(bins(), bins((0, 0)), n=432)
    assert text.histogram_alt([-1, 2, np.nan], [True, True, False]) == (
        "Histogram of psi: 1 of 3 rows are harmful. Of 2 selected rows, 1 are."
    )
    assert text.predicted_measured_alt({"a": -1, "b": 2}, {"a": -0.5}) == (
        "Change of each criterion, negative is better: "
        "a predicted -1, measured -0.5; b predicted +2, not measured."
    )
    assert text.strength_alt([0, 1, 2], {"a": [0, -1, -0.5], "b": [0, 2, 4]}, {"a": 0, "b": 3}, at=0.5) == (
        "Predicted change against strength, 0 to 2: a -0.5 at 0.5, lowest at 1, keeps its rail; "
        "b +1 at 0.5, lowest at 0, passes its rail of +3 at 2."
    )
    assert text.class_alt(["a", "b"], [0.5, 0.5], [0.6, 0.25], "Accuracy") == (
        "Accuracy of 2 classes before and after: from -25.0 points (b) to +10.0 points (a)."
    )


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("two-moons", "entry", 3), "two-moons-entry-3"),
        (("/srv/models/café v2", "version 1"), "srv-models-café-v2-version-1"),
        (("upload:0f3a",), "upload-0f3a"),
        (('../../etc/passwd\n"',), "etc-passwd"),
    ],
)
def test_names_of_downloads(parts, name):
    assert text.file_name(*parts) == name
