"""Health: what is wrong with the model on validation, and where; every finding leads to training rows."""

import numpy as np
import streamlit as st

from puma_dash.core.evaluation import calibration
from puma_dash.core.task import REGRESSION
from puma_dash.ui import findings, health, health_figures
from puma_dash.ui.bootstrap import bootstrap
from puma_dash.ui.health import Held, Slice
from puma_dash.ui.health_panels import (
    card,
    checks,
    explore_these,
    influence,
    pick_slice,
    robustness,
    slices_caption,
)
from puma_dash.ui.panels import chart, ready, segments, side_by_side
from puma_dash.ui.state import Context
from puma_dash.ui.text import escape, percent
from puma_dash.ui.values_panels import values_health

LABELS = {"nll": "NLL (nats)", "brier": "Brier score", "ece": "ECE, 15 bins", "smooth_ece": "Smooth ECE"}
HELP = {
    "nll": "Negative log-likelihood of the true class, the loss. Lower is better. Interval: bootstrap.",
    "brier": "Squared distance of the probabilities from the truth, 0 to 2. Lower is better. "
    "Interval: bootstrap.",
    "smooth_ece": "Calibration error without bins (Błasiok and Nakkiran 2023). Interval: bootstrap.",
}


def main() -> None:
    """Draws the page."""
    here = ready(bootstrap("Health"))
    st.title("Health")
    if here.task is REGRESSION:
        values_health(here)
        return
    held = Held.of(here)
    first, *others = findings.findings(held)
    st.markdown(f"#### {escape(first)}")
    st.markdown("  \n".join(map(escape, others)))
    wrong = np.flatnonzero(~held.correct)
    if len(wrong):
        all_errors = Slice("all errors", wrong)
        explore_these(here, all_errors, "errors", f"Explore all {len(wrong):,} errors", "primary")
    metrics(here, held)
    left, right = side_by_side()
    with left:
        confusions(here, held)
    with right:
        slices(here, held)
    left, right = side_by_side()
    with left:
        reliability(here, held)
    with right:
        influence(here)
        robustness(here, held)
    checks(here)


def metrics(here: Context, held: Held) -> None:
    """Each figure with its interval and what it rests on."""
    known = health.figures(held)
    column, positive = None, len(held.classes) - 1
    if held.groups:
        column_at, positive_at, _ = st.columns([1, 1, 2])
        column = column_at.selectbox("Groups by", held.groups, **here.choosing("groups", held.groups))
        names = range(len(held.classes))
        positive = positive_at.selectbox(
            "Positive class",
            names,
            format_func=held.classes.__getitem__,
            **here.choosing("positive", names, positive),
        )
    by_chance = calibration.calibrated_ece(
        calibration.binned(held.confidence, held.correct, calibration.equal_width())
    )
    ece_help = (
        "Mean distance of accuracy from confidence. Perfectly calibrated models would show "
        f"{by_chance[0]:.3f} here on average, and less than {by_chance[1]:.3f} in 95 % of cases. "
        "Interval: bootstrap."
    )
    with st.container(horizontal=True):
        card("Accuracy", known["accuracy"], True, "Share of rows that are right. Interval: Wilson.")
        for name, label in LABELS.items():
            card(label, known[name], False, HELP.get(name, ece_help))
        worst, found = health.worst(held, column)
        what = "group" if column else "class"
        card(f"Worst {what}", found, True, f"Accuracy of {column or 'class'} = {worst}. Interval: Wilson.")
        if column:
            parity, odds = health.parity_gaps(held, column, positive)
            name = held.classes[positive]
            card("Parity gap", parity, True, f"Demographic parity: how often {name} is predicted.")
            card("Odds gap", odds, True, f"Equalized odds: the same for rows that are {name}, or are not.")
    missing = "" if column else " Gaps between groups need groups: puma.Split(..., groups=...)."
    st.caption(
        f"All on validation, n = {held.n:,}, with 95 % intervals; the worst {what} is {escape(worst)}, n = "
        f"{found.n:,}. The test split stays closed here: only *Accept* and the report look at it.{missing}"
    )


def confusions(here: Context, held: Held) -> None:
    """The confusion matrix; a click picks a cell."""
    st.subheader("Confusions")
    counts = health.confusions(held)
    shown = health.most_confused(counts)
    names = [held.classes[k] for k in shown]
    picked = here.view.get("cell")
    if picked is None or max(picked) >= len(counts):
        picked = health.worst_cell(counts) or (0, 0)
    known = set(shown.tolist())
    frame = tuple(np.searchsorted(shown, picked).tolist()) if set(picked) <= known else None
    key = f"confusions-{picked[0]}-{picked[1]}"

    def pick() -> None:
        point = health_figures.clicked(st.session_state[key]["selection"])
        if point is not None and point < len(shown) ** 2:
            i, j = divmod(point, len(shown))
            here.keep("cell", (int(shown[i]), int(shown[j])))

    some = f", the {len(shown)} of {len(held.classes)} classes in most errors"
    part = counts[np.ix_(shown, shown)]
    figure = health_figures.confusion_figure(
        part,
        names,
        title="What is taken for what",
        subtitle=f"{part.sum():,} of {held.n:,} rows" + some * (len(shown) < len(held.classes)),
        picked=frame,
    )
    alt = health_figures.confusion_alt(part, names)
    read = health_figures.READ_CONFUSIONS
    chart(figure, alt, read, key=key, on_select=pick, selection_mode="points")
    chosen = health.cell(held, *picked)
    of = int(counts[picked[0]].sum())
    st.markdown(
        f"**{escape(chosen.name)}**: {len(chosen.rows):,} of {of:,} rows of {escape(held.classes[picked[0]])}"
    )
    if len(chosen.rows):
        explore_these(here, chosen, "confusion")
    else:
        st.caption("No row is in this cell: pick another.")


def slices(here: Context, held: Held) -> None:
    """Every slice, those with more errors than chance explains first."""
    st.subheader("Slices")
    table = findings.slice_table(held)
    ranked = int(table["p"].notna().sum())
    shown = table[["name", "n"]].copy()
    shown["accuracy"] = 100 * table["accuracy"]
    shown["interval"] = [
        f"{100 * low:.1f} to {100 * high:.1f}" for low, high in zip(table["low"], table["high"], strict=True)
    ]
    shown["difference"] = 100 * table["difference"]
    shown["p"] = ["too few rows" if np.isnan(p) else findings.p_text(p) for p in table["corrected"]]
    shown["nll"] = table["nll"]
    number = st.column_config.NumberColumn
    config = {
        "accuracy": number("Accuracy", format="%.1f %%", width=72),
        "difference": number("vs rest", format="%+.1f", width=62, help="In points of accuracy."),
        "nll": number("NLL", format="%.3f", width=54, help="Mean loss, in nats."),
    }
    line = pick_slice(here, shown, config)
    how = "how rarely a random set of that size has as many errors (Fisher's exact test)"
    slices_caption(how, ranked)
    if not len(table):
        st.caption("All rows share one label and one prediction: there is nothing to slice.")
        return
    chosen = findings.slices(held)[int(table["slice"].iloc[line])]
    low, high, accuracy = (table[name].iloc[line] for name in ("low", "high", "accuracy"))
    st.markdown(
        f"**{escape(chosen.name)}**: {percent(accuracy)} right ({100 * low:.1f} to {100 * high:.1f} %, "
        f"n = {len(chosen.rows):,})"
    )
    explore_these(here, chosen, "slice")


def reliability(here: Context, held: Held) -> None:
    """Whether confidence can be believed, with what chance alone would show."""
    st.subheader("Calibration")
    parts = health.calibration_parts(held)
    with st.container(horizontal=True):
        part = st.selectbox("Of which rows", list(parts), width=210, **here.choosing("part", parts))
        binnings = ["equal width", "equal mass"]
        binning = segments("Bins", binnings, **here.choosing("bins", binnings))
    edges, bins, band = health.reliability(held, part, binning)
    state, filled = f"bin of {part}, {binning}", np.flatnonzero(bins["count"])
    number = here.view.get(state)
    if number not in filled:
        number = health.widest_bin(bins)
    key = f"reliability-{part}-{binning}-{number}"

    def pick() -> None:
        point = health_figures.clicked(st.session_state[key]["selection"])
        if point is not None and point < len(filled):
            here.keep(state, int(filled[point]))

    gap = health.mean_gap(bins)
    figure = health_figures.band_figure(
        bins,
        band,
        title=f"Confidence is {100 * abs(gap):.1f} points too {'high' if gap > 0 else 'low'}",
        subtitle=f"on average, {part.rsplit(' (', 1)[0]}, n = {bins['count'].sum():,}",
        picked=number,
    )
    alt = health_figures.band_alt(bins, band)
    chart(figure, alt, health_figures.READ_RELIABILITY, key=key, on_select=pick, selection_mode="points")
    chosen = health.bin_slice(held, part, parts[part], edges, number)
    right, inside = bins["accuracy"][number], len(chosen.rows)
    st.markdown(f"**{escape(chosen.name)}**: {percent(right)} right, n = {inside:,}")
    explore_these(here, chosen, "bin")


main()
