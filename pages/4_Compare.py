"""Compare: before and after, against what was promised; accept or discard."""

import pandas as pd
import streamlit as st

from puma_dash.ui import text
from puma_dash.ui.bootstrap import bootstrap
from puma_dash.ui.compare import (
    Record,
    binned,
    changed_table,
    flips_sentence,
    metric_table,
    patch_sentence,
    verdict_table,
)
from puma_dash.ui.figures import class_figure, predicted_measured_figure, reliability_figure
from puma_dash.ui.history import entry_report
from puma_dash.ui.panels import chart, job, ready
from puma_dash.ui.state import Context, ledger, open_context


def main() -> None:
    """Draws the page."""
    here = ready(bootstrap("Compare"))
    st.title("Compare")
    record = Record.of(here.history().patch)
    if record is None:
        st.info("There is no patch to compare yet. Mark rows, then patch them.")
        st.page_link(
            "pages/3_Patch.py", label="Go to Patch", icon=":material/healing:", query_params=here.query
        )
        return
    decision = ledger().decision(record.key)
    accepting = here.job("accept")
    if accepting is not None and job(here, "accept", "Accepting: one look at the test split"):
        here.forget("accept")
        st.rerun()
    st.markdown(f"#### {flips_sentence(record.validation)}")
    st.caption(patch_sentence(record.info))
    if record.info["strength"] == 0:
        binding = record.info["diagnostics"].get("binding")
        st.error(
            f"Nothing was applied: at every strength tried, {text.escape(str(binding))} would have got worse "
            "than allowed. Adjust the tolerance, or mark other rows.",
            icon=":material/block:",
        )
    decide(here, record, decision)
    comparison = record.validation
    if decision is not None and decision.kind == "accepted" and "test" in decision.details:
        names = ["test", "validation"]
        shown = st.segmented_control("Evaluated on", names, default="test", required=True, key="split")
        opened = ledger().openings(here.source)
        if shown == "test":
            comparison = decision.details["test"]
            st.caption(f"The test split of this project has been opened {opened} time{'s' * (opened != 1)}.")
            st.markdown(f"**On test:** {flips_sentence(comparison)}")
    body(here, comparison, record)


def decide(here: Context, record: Record, decision) -> None:
    """Accept, discard, adjust; or what was decided."""
    if decision is not None and decision.kind == "accepted":
        name = ledger().versions(here.source).name(decision.id)
        st.success(f"Accepted as {name} by {text.escape(decision.who)}.", icon=":material/check_circle:")
        left, right = st.columns(2)
        left.download_button(
            "Report",
            lambda: entry_report(decision, ledger()),
            f"{here.source.replace(':', '-')}-{name.replace(' ', '-')}.html",
            "text/html",
            icon=":material/description:",
            type="primary",
            width="stretch",
        )
        if right.button(f"Continue with {name}", icon=":material/arrow_forward:", width="stretch"):
            new = open_context(here.source, decision.id)
            st.switch_page("pages/2_Explore.py", query_params=new.query)
        return
    if decision is not None:
        st.warning(f"Discarded by {decision.who}. The model is as it was.", icon=":material/block:")
    why = st.text_input("Why", max_chars=500, placeholder="In your words; the ledger keeps it.", key="why")
    accept, discard, adjust = st.columns(3)
    running = here.job("accept")
    busy = running is not None and running.live
    nothing = record.info["strength"] == 0
    if accept.button(
        "Accept",
        type="primary",
        icon=":material/check:",
        width="stretch",
        disabled=busy or nothing,
        help="Makes the patched model the current version and opens the test split once.",
    ):
        here.start("accept", {"patch": record.key, "why": why})
        st.rerun()
    if discard.button(
        "Discard", icon=":material/close:", width="stretch", disabled=busy or decision is not None
    ):
        about = {"source": here.source, "parent": here.version, "patch": record.key}
        ledger().append("discarded", why=why, details=record.info, **about)
        st.rerun()
    if adjust.button(
        "Adjust",
        icon=":material/tune:",
        width="stretch",
        disabled=busy,
        help="Back to Patch with the draft as it is.",
    ):
        st.switch_page("pages/3_Patch.py", query_params=here.query)


def body(here: Context, comparison: dict, record: Record) -> None:
    """Tables and figures of one split."""
    split, n = comparison["split"], comparison["n"]
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Metrics")
        st.dataframe(metric_table(comparison), hide_index=True)
        st.caption(f"{split}, n = {n:,}; interval of the change: 95 %, paired bootstrap over rows.")
        if comparison["verdicts"]["data"]:
            st.subheader("What had to hold")
            st.dataframe(verdict_table(comparison), hide_index=True)
            st.caption(
                "Change of each held criterion on validation, negative is better. Pass: the whole interval "
                "is within the tolerance; fail: none of it is."
            )
        predicted, measured = record.info["predicted"], record.info["measured"]
        if predicted:
            figure = predicted_measured_figure(predicted, measured, title="Predicted and measured change")
            alt = text.predicted_measured_alt(predicted, measured)
            chart(figure, alt, text.READ_PREDICTED_MEASURED, key=f"predicted-{split}")
            for note in record.doubts():
                st.warning(note, icon=":material/warning:")
    with right:
        st.subheader("Reliability")
        before, after = binned(comparison, "before"), binned(comparison, "after")
        figure = reliability_figure(before, after, title="Accuracy against confidence, before and after", n=n)
        chart(
            figure,
            text.reliability_alt(before, after, n=n),
            text.READ_RELIABILITY,
            key=f"reliability-{split}",
        )
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Flips")
        flips = comparison["flips"]
        for column, kind in zip(st.columns(4), flips, strict=True):
            column.metric(kind.capitalize(), f"{flips[kind]:,}")
        st.caption(f"Rows of {split}: wrong to right, right to wrong, and those that stayed.")
        st.dataframe(changed_table(comparison, here.overview.info["classes"]), hide_index=True, height=240)
    with right:
        classes = pd.DataFrame(**comparison["per_class"])
        names = classes["class"].tolist()
        figure = class_figure(
            names,
            classes["before"],
            classes["after"],
            title="Accuracy of each class",
            x_title=f"accuracy on {split}",
        )
        alt = text.class_alt(names, classes["before"], classes["after"], "accuracy")
        chart(figure, alt, text.READ_CLASSES, key=f"classes-{split}")
    marked = pd.DataFrame(**comparison["marked"])
    st.subheader("The marked training rows")
    st.dataframe(marked.round(3), hide_index=True)
    st.caption("Removal worked where the loss on removed rows rises: the model no longer fits them.")


main()
