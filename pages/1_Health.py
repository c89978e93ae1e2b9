"""Health: what is wrong with the model on validation, and where; every finding leads to training rows."""

import numpy as np
import streamlit as st

from puma_dash.core.evaluation import estimates
from puma_dash.ui import health, health_figures
from puma_dash.ui.bootstrap import bootstrap
from puma_dash.ui.explore import PSI, Rows
from puma_dash.ui.health import Held, Slice, interval, percent
from puma_dash.ui.panels import chart, duration, job, ready
from puma_dash.ui.state import Context, entry
from puma_dash.ui.text import escape

ICONS = {"ok": ":material/check_circle:", "note": ":material/info:", "warning": ":material/warning:"}
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
    held = Held.of(here)
    if held is None:
        st.info(
            "An earlier version of PUMA Dash prepared this project. Preparing it again takes no new input."
        )
        if st.button("Prepare again", type="primary"):
            here.start("prepare", {})
            st.switch_page("app.py", query_params=here.query)
        st.stop()
    first, *others = health.findings(held)
    st.markdown(f"#### {escape(first)}")
    st.markdown("  \n".join(map(escape, others)))
    wrong = np.flatnonzero(~held.correct)
    if len(wrong):
        explore_these(here, Slice("all errors", wrong), "errors", f"Explore all {len(wrong):,} errors")
    metrics(held)
    left, right = st.columns(2, gap="large")
    with left:
        confusions(here, held)
    with right:
        slices(here, held)
    left, right = st.columns(2, gap="large")
    with left:
        reliability(here, held)
    with right:
        influence(here)
    left, right = st.columns(2, gap="large")
    with left:
        checks(here)
    with right:
        robustness(here, held)


def explore_these(here: Context, found: Slice, key: str, label: str = "") -> None:
    """The way from validation rows to the training rows behind them: psi of the loss on exactly these."""
    n = len(found.rows)
    if st.button(
        label or f"Explore these {n:,} row{'s' * (n != 1)}",
        key=f"explore-{key}",
        icon=":material/travel_explore:",
        help="Computes the influence of every training row on the loss of exactly these validation rows.",
    ):
        record = {"criterion": "cross_entropy", "split": "validation", "rows": found.rows.tolist()}
        here.start("value", {"method": "psi", "criterion": record, "label": found.name})
        st.session_state["colour"] = f"psi of {found.name}"
        st.switch_page("pages/2_Explore.py", query_params=here.query)


def metrics(held: Held) -> None:
    """Each figure with its interval and what it rests on."""
    known = health.figures(held)
    column, positive = None, len(held.classes) - 1
    if held.groups:
        column_at, positive_at, _ = st.columns([1, 1, 2])
        column = column_at.selectbox("Groups by", held.groups, key="groups")
        names = range(len(held.classes))
        positive = positive_at.selectbox(
            "Positive class", names, positive, format_func=held.classes.__getitem__, key="positive"
        )
    by_chance = estimates.calibrated_ece(
        estimates.binned(held.confidence, held.correct, estimates.equal_width())
    )
    ece_help = (
        f"Mean distance of accuracy from confidence. Perfectly calibrated models would show "
        f"{by_chance[0]:.3f} here on average, and less than {by_chance[1]:.3f} in 95 % of cases. Interval: bootstrap."
    )
    with st.container(horizontal=True):
        card("Accuracy", known["accuracy"], True, "Share of rows that are right. Interval: Wilson.")
        for name, label in LABELS.items():
            card(label, known[name], False, HELP.get(name, ece_help))
        worst, found = health.worst(held, column)
        what = "group's" if column else "class's"
        card(f"Worst {what} accuracy", found, True, f"{column or 'class'} = {worst}. Interval: Wilson.")
        if column:
            parity, odds = health.parity_gaps(held, column, positive)
            name = held.classes[positive]
            card("Demographic parity gap", parity, True, f"How often {name} is predicted, between groups.")
            card("Equalized odds gap", odds, True, f"The same among rows that are {name}, or are not.")
    st.caption(
        f"All on validation, n = {held.n:,}, with 95 % intervals. The test split stays closed here: only "
        "*Accept* and the report look at it."
        + (
            ""
            if held.groups
            else " Gaps between groups need a column of groups: `puma.Split(..., groups=...)`."
        )
    )


def card(label: str, found: estimates.Estimate, as_percent: bool, told: str) -> None:
    """One figure."""
    value = percent(found.value) if as_percent or np.isnan(found.value) else f"{found.value:.3f}"
    under = interval(found, as_percent)
    st.metric(
        label, value, under, delta_color="off", delta_arrow="off", help=escape(told), border=True, width=210
    )


def confusions(here: Context, held: Held) -> None:
    """The confusion matrix; a click picks a cell."""
    st.subheader("Confusions")
    counts = health.confusions(held)
    shown = health.most_confused(counts)
    names = [held.classes[k] for k in shown]
    picked = st.session_state.get("confusion") or health.worst_cell(counts) or (0, 0)
    known = set(shown.tolist())
    frame = tuple(np.searchsorted(shown, picked).tolist()) if set(picked) <= known else None
    key = f"confusions-{picked[0]}-{picked[1]}"

    def pick() -> None:
        point = health_figures.clicked(st.session_state[key]["selection"])
        if point is not None and point < len(shown) ** 2:
            i, j = divmod(point, len(shown))
            st.session_state["confusion"] = (int(shown[i]), int(shown[j]))

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
    table = health.slice_table(held)
    ranked = int(table["p"].notna().sum())
    shown = table[["name", "n", "accuracy"]].copy()
    shown["interval"] = [
        f"{100 * low:.1f} to {100 * high:.1f}" for low, high in zip(table["low"], table["high"], strict=True)
    ]
    shown["difference"] = 100 * table["difference"]
    shown["nll"] = table["nll"]
    shown["p"] = ["too few rows" if np.isnan(p) else health.p_text(p) for p in table["corrected"]]
    number = st.column_config.NumberColumn
    event = st.dataframe(
        shown,
        key="slices",
        hide_index=True,
        height=442,
        on_select="rerun",
        selection_mode="single-row",
        column_config={
            "name": "Slice",
            "n": number("n", format="localized"),
            "accuracy": number("Accuracy", format="percent"),
            "interval": "95 % (%)",
            "difference": number("vs rest (points)", format="%+.1f"),
            "nll": number("NLL (nats)", format="%.3f"),
            "p": "Evidence",
        },
    )
    st.caption(
        f"Sorted by evidence: how rarely a random set of that size has as many errors (Fisher's exact test). "
        f"Of {ranked:,} slices, about {max(1, round(0.05 * ranked)):,} would fall below p = .05 by chance "
        f"alone, so p is corrected for that (Holm). Slices of fewer than {health.FEW} rows are not ranked. "
        "Columns of numbers are cut into quarters. Click a line's box to pick it."
    )
    lines = event["selection"]["rows"]
    line = lines[0] if lines and lines[0] < len(table) else 0
    if not len(table):
        st.caption("All rows share one label and one prediction: there is nothing to slice.")
        return
    chosen = health.slices(held)[int(table["slice"].iloc[line])]
    low, high, accuracy = (table[name].iloc[line] for name in ("low", "high", "accuracy"))
    st.markdown(
        f"**{escape(chosen.name)}**: {percent(accuracy)} right ({100 * low:.1f} to {100 * high:.1f} %, "
        f"n = {len(chosen.rows):,})"
    )
    explore_these(here, chosen, "slice")


def reliability(here: Context, held: Held) -> None:
    """Whether confidence can be believed, with what chance alone would show."""
    st.subheader("Calibration")
    part_at, bins_at = st.columns([1.2, 1], vertical_alignment="bottom")
    parts = health.calibration_parts(held)
    part = part_at.selectbox("Of which rows", list(parts), key="part")
    binning = bins_at.segmented_control(
        "Bins", ["equal width", "equal mass"], default="equal width", required=True, key="bins"
    )
    rows = parts[part]
    confidence, correct = held.confidence, held.correct
    if rows is not None:
        confidence, correct = confidence[rows], correct[rows]
    edges = health.edges_of(confidence, binning)
    bins = estimates.binned(confidence, correct, edges)
    band = estimates.consistency_band(bins)
    asked = st.session_state.get("bin")
    widest = health.widest_bin(bins)
    number = asked[2] if asked and asked[:2] == (part, binning) and asked[2] < len(bins["count"]) else widest
    key = f"reliability-{part}-{binning}-{number}"

    def pick() -> None:
        point = health_figures.clicked(st.session_state[key]["selection"])
        filled = np.flatnonzero(bins["count"])
        if point is not None and point < len(filled):
            st.session_state["bin"] = (part, binning, int(filled[point]))

    gap = float(confidence.mean(dtype=np.float64) - correct.mean())
    figure = health_figures.band_figure(
        bins,
        band,
        title=f"Confidence {abs(gap):.1%} {'above' if gap > 0 else 'below'} accuracy on average",
        subtitle=f"n = {len(confidence):,}: {part.rsplit(' (', 1)[0]}; bins of {binning}",
        picked=number,
    )
    alt = health_figures.band_alt(bins, band)
    chart(figure, alt, health_figures.READ_RELIABILITY, key=key, on_select=pick, selection_mode="points")
    chosen = health.bin_slice(held, part, rows, edges, number)
    right, inside = bins["accuracy"][number], len(chosen.rows)
    st.markdown(f"**{escape(chosen.name)}**: {percent(right)} right, n = {inside:,}")
    explore_these(here, chosen, "bin")


def influence(here: Context) -> None:
    """How psi is spread over the training rows; this chart's rows are training rows."""
    st.subheader("Influence")
    psi = Rows.of(here).psi
    harmful, valuable, limits = health.tails(psi)
    top = health.top_share(psi)
    figure = health_figures.psi_figure(
        psi, limits, title=f"1 % of the training rows carry {top:.0%} of all |psi|"
    )
    alt = health_figures.psi_alt(psi, len(harmful), len(valuable))
    chart(figure, alt, health_figures.READ_PSI, key="psi")
    st.markdown(
        f"**Below −{health.FAR:g} robust deviations**: {len(harmful):,} of {len(psi):,} training rows "
        f"({len(harmful) / len(psi):.1%}); above +{health.FAR:g}: {len(valuable):,}"
    )
    if len(harmful) and st.button(
        f"Explore these {len(harmful):,} training rows", key="explore-tail", icon=":material/travel_explore:"
    ):
        here.edit(lambda draft: draft.selecting(harmful, "select the harmful tail"))
        st.session_state["colour"] = "psi of cross-entropy"
        st.switch_page("pages/2_Explore.py", query_params=here.query)


def checks(here: Context) -> None:
    """How far to believe these numbers."""
    st.subheader("Checks")
    found = entry(here.index.health.get("checks", ""))
    if found is None:
        valued = entry(here.index.values.get(PSI, ""))
        cost = "" if valued is None else f" ({duration(2 * valued.info['seconds'])} as last measured)"
        st.markdown(
            "Is the model at a minimum of its objective, does it answer the same twice, do rows repeat or "
            f"leak into validation or test? Takes about as long as psi of two criteria{cost}. Of the test split "
            "only the inputs are compared with training; no prediction is looked at."
        )
        running = here.job("checks")
        if running is None or running.status == "done":
            if st.button("Run the checks", icon=":material/fact_check:"):
                here.start("checks", {})
                st.rerun()
        elif job(here, "checks", "Checking the project"):
            st.rerun()
        return
    statuses = [finding["status"] for finding in found.info["findings"]]
    st.caption(
        f"{statuses.count('ok')} fine, {statuses.count('note')} notes, {statuses.count('warning')} warnings."
    )
    for finding in found.info["findings"]:
        said = f"{ICONS[finding['status']]} **{finding['check'].capitalize()}** ({finding['status']})  \n"
        st.markdown(said + escape(f"{finding['sentence']} {finding['advice']}"))


def robustness(here: Context, held: Held) -> None:
    """Accuracy on rows that were moved a little to where the model errs most; computed on request only."""
    st.subheader("Robust accuracy")
    facts = here.overview.info["criteria"]["adversarial"]
    if facts["refused"] is not None:
        st.caption(escape(facts["refused"]))
        return
    found = entry(here.index.health.get("robustness", ""))
    epsilon_at, button_at = st.columns([1, 1.4], vertical_alignment="bottom")
    epsilon = epsilon_at.number_input(
        "Moved by at most", 0.0, 1e6, 0.1, 0.05, key="epsilon", help="Of each input, in its own unit."
    )
    if button_at.button("Attack and measure", icon=":material/security:", width="stretch"):
        here.start("robustness", {"epsilon": float(epsilon)})
        st.rerun()
    running = here.job("robustness")
    if running is not None and job(here, "robustness", "Moving validation rows to where the model errs"):
        here.forget("robustness")
        st.rerun()
    if found is None:
        st.caption(
            f"Costs 11 passes over {held.n:,} validation rows, 10 of them with gradients (PGD, 10 steps)."
        )
        return
    right = found.arrays["right"]
    card("Robust accuracy (PGD)", estimates.share(right), True, "Interval: Wilson.")
    lost = np.flatnonzero(held.correct & ~right)
    moved = found.info["epsilon"]
    st.markdown(
        f"Moved by up to {moved:g}, {len(lost):,} of {held.correct.sum():,} right answers turn wrong."
    )
    if len(lost):
        explore_these(here, Slice(f"answers lost when moved by {moved:g}", lost), "lost")


main()
