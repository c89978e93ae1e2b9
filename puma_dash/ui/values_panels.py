"""The Health page of a regression: predictions against targets, residuals, slices; each leads to rows."""

from __future__ import annotations

import numpy as np
import streamlit as st

from puma_dash.ui import findings, values, values_figures
from puma_dash.ui.gesture import is_empty_gesture, rows_inside
from puma_dash.ui.health import Slice
from puma_dash.ui.health_figures import clicked
from puma_dash.ui.health_panels import card, checks, explore_these, influence, pick_slice, slices_caption
from puma_dash.ui.panels import chart, plain_number, side_by_side
from puma_dash.ui.state import Context
from puma_dash.ui.text import escape
from puma_dash.ui.values import HeldValues

DRAWN = 3_000
"""Rows that are drawn; outlines are tested against all."""


def values_health(here: Context) -> None:
    """Draws the page."""
    held = HeldValues.of(here)
    first, *others = values.findings(held)
    st.markdown(f"#### {escape(first)}")
    st.markdown("  \n".join(map(escape, others)))
    worst = values.largest(held)
    explore_these(here, worst, "errors", f"Explore {worst.name}", "primary")
    metrics(here, held)
    output = 0
    if len(held.outputs) > 1:
        chosen = st.selectbox("Output", held.outputs, **here.choosing("output", held.outputs))
        output = held.outputs.index(chosen)
    left, right = side_by_side()
    with left:
        predictions(here, held, output)
    with right:
        slices(here, held)
    left, right = side_by_side()
    with left:
        residuals(here, held, output)
    with right:
        influence(here)
    checks(here)


def metrics(here: Context, held: HeldValues) -> None:
    """Each figure with its interval and what it rests on."""
    known = values.figures(held)
    column = None
    if held.groups:
        column = st.selectbox("Groups by", held.groups, width=300, **here.choosing("groups", held.groups))
    with st.container(horizontal=True):
        card("RMSE", known["rmse"], False, "Root of the mean squared error. Interval: bootstrap.")
        card("MAE", known["mae"], False, "Mean absolute error. Interval: bootstrap.")
        card("R²", known["r2"], False, "Share of the targets' variance explained. Interval: bootstrap.")
        if len(held.outputs) == 1:
            told = "Prediction - target; 0 where predictions are right on average. Interval: bootstrap."
            card("Mean residual", values.bias(held, 0), False, told)
        if column:
            name, found = values.worst(held, column)
            card("Worst group", found, False, f"RMSE of {column} = {name}. Interval: bootstrap.")
    st.caption(
        f"All on validation, n = {held.n:,}, with 95 % intervals, in units of the target. The test split "
        "stays closed here: only *Accept* and the report look at it."
    )


def predictions(here: Context, held: HeldValues, output: int) -> None:
    """Predictions against targets; an outline picks rows."""
    st.subheader("Predictions")
    target, predicted = held.target[:, output], held.predicted[:, output]
    rows = np.array(here.view.get("outlined") or [], dtype=np.int64)
    picked = Slice(f"{len(rows):,} rows drawn around", rows[rows < held.n])
    if not len(picked.rows):
        picked = values.largest(held)
    some = np.unique(np.linspace(0, held.n - 1, DRAWN).round().astype(int))
    key = f"predictions-{st.session_state.get('outline', 0)}"

    def outlined() -> None:
        event = st.session_state[key]["selection"]
        st.session_state["outline"] = st.session_state.get("outline", 0) + 1
        if not is_empty_gesture(event):
            here.keep("outlined", rows_inside(event, target, predicted).tolist())

    drawn = f"{len(some):,} drawn of {held.n:,} rows" if len(some) < held.n else f"n = {held.n:,} rows"
    figure = values_figures.answers_figure(
        target[some],
        predicted[some],
        title="Predictions against targets",
        subtitle=drawn,
        output=held.outputs[output],
        picked=np.isin(some, picked.rows),
    )
    figure.update_layout(dragmode="lasso")
    alt = values_figures.answers_alt(target, predicted)
    read = f"{values_figures.READ_ANSWERS} Draw around dots to pick their rows."
    chart(figure, alt, read, key=key, on_select=outlined, selection_mode=["lasso", "box"])
    error = values.rmse(held, picked.rows)
    st.markdown(f"**{escape(picked.name)}**: RMSE {plain_number(error.value)}, n = {error.n:,}")
    explore_these(here, picked, "outlined")


def slices(here: Context, held: HeldValues) -> None:
    """Every slice, those with larger errors than chance explains first."""
    st.subheader("Slices")
    table = values.slice_table(held)
    ranked = int(table["p"].notna().sum())
    shown = table[["name", "n", "rmse"]].copy()
    shown["interval"] = [
        f"{plain_number(low, 1)} to {plain_number(high, 1)}"
        for low, high in zip(table["low"], table["high"], strict=True)
    ]
    shown["difference"] = table["difference"]
    shown["p"] = ["too few rows" if np.isnan(p) else findings.p_text(p) for p in table["corrected"]]
    number = st.column_config.NumberColumn
    config = {
        "rmse": number("RMSE", format="%.4g", width=72),
        "difference": number("vs rest", format="%+.3g", width=62, help="RMSE less that of the other rows."),
    }
    line = pick_slice(here, shown, config)
    how = "how rarely absolute errors of a random set of that size rank as high (Mann-Whitney)"
    slices_caption(how, ranked)
    if not len(table):
        st.caption("All predictions are the same: there is nothing to slice.")
        return
    chosen = values.slices(held)[int(table["slice"].iloc[line])]
    low, high, error = (plain_number(table[name].iloc[line]) for name in ("low", "high", "rmse"))
    st.markdown(f"**{escape(chosen.name)}**: RMSE {error} ({low} to {high}, n = {len(chosen.rows):,})")
    explore_these(here, chosen, "slice")


def residuals(here: Context, held: HeldValues, output: int) -> None:
    """How residuals are spread; a click picks the rows of a bar."""
    st.subheader("Residuals")
    known = values.bins(held, output)
    state, filled = f"residual of {output}", np.flatnonzero(known["before"])
    number = here.view.get(state, -1)
    if number not in filled:
        number = int(filled[np.abs(known["low"] + known["high"])[filled].argmax()])
    key = f"residuals-{output}-{number}"

    def pick() -> None:
        point = clicked(st.session_state[key]["selection"])
        if point is not None and point in filled:
            here.keep(state, point)

    off = values.bias(held, output)
    side = "high" if off.value > 0 else "low"
    figure = values_figures.residuals_figure(
        known,
        title=f"Predictions are {plain_number(abs(off.value))} too {side} on average",
        subtitle=f"n = {held.n:,} rows",
        output=held.outputs[output],
        picked=number,
    )
    read = f"{values_figures.READ_RESIDUALS} Click a bar to pick its rows."
    alt = values_figures.residuals_alt(known)
    chart(figure, alt, read, key=key, on_select=pick, selection_mode="points")
    chosen = values.bin_slice(held, output, number)
    st.markdown(f"**{escape(chosen.name)}**: n = {len(chosen.rows):,}")
    explore_these(here, chosen, "bin")
