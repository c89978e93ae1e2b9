"""Compare: before and after, against what was promised; accept or discard."""

from typing import Any

import pandas as pd
import streamlit as st

from puma_dash.core.task import CLASSIFICATION
from puma_dash.ui import text
from puma_dash.ui.became import flips, marked, moved, regions
from puma_dash.ui.bootstrap import bootstrap
from puma_dash.ui.change_figures import MOST_CLASSES, confusion_change_figure
from puma_dash.ui.compare import (
    Record,
    binding_sentence,
    binned,
    confusion_table,
    label_of,
    metric_table,
    outcome_sentence,
    patch_sentence,
    rails_of,
    verdict_table,
)
from puma_dash.ui.evidence import evidence
from puma_dash.ui.figures import class_figure, predicted_measured_figure, reliability_figure
from puma_dash.ui.history import entry_report
from puma_dash.ui.panels import chart, job, ready, segments, side_by_side
from puma_dash.ui.race import race
from puma_dash.ui.state import Context, ledger, open_context, user
from puma_dash.ui.values_charts import HEADINGS, values_chart
from puma_dash.workspace.places import title


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
    st.markdown(f"#### {text.escape(outcome_sentence(record.validation))}")
    st.caption(text.escape(patch_sentence(record.info)))
    if told := binding_sentence(record.info, here.criteria):
        nothing = record.info["strength"] == 0
        kind, icon = (st.error, ":material/block:") if nothing else (st.warning, ":material/fence:")
        advice = " Allow more, or mark other rows." if nothing else ""
        kind(text.escape(f"{'Nothing was applied. ' if nothing else ''}{told}{advice}"), icon=icon)
    decide(here, record, decision)
    comparison = record.validation
    if decision is not None and decision.kind == "accepted" and "test" in decision.details:
        names = ["test", "validation"]
        shown = segments("Evaluated on", names, **here.choosing("split", names))
        if shown == "test":
            comparison = decision.details["test"]
            st.caption(openings(here))
            st.markdown(f"**On test:** {text.escape(outcome_sentence(comparison))}")
    rails(here, comparison, record)
    measures(here, comparison)
    if here.task is CLASSIFICATION:
        flips(here, comparison, record)
        confusion(here, comparison)
    else:
        moved(here, comparison, record)
    marked(here, comparison, record)
    evidence(here, record)
    regions(here, record)
    race(here, record)


def openings(here: Context) -> str:
    """How often the test split has been opened."""
    opened = ledger().openings(here.source)
    if not opened:
        return "The test split of this project has not been opened yet."
    return f"The test split of this project has been opened {opened} time{'s' * (opened != 1)}."


def decide(here: Context, record: Record, decision: Any) -> None:
    """Accept, discard, adjust, each with a reason; or what was decided."""
    if decision is not None and decision.kind == "accepted":
        accepted(here, decision)
        return
    discarded = decision is not None
    if discarded:
        who = text.escape(decision.who)
        st.warning(f"Discarded by {who}. The model is as it was.", icon=":material/block:")
    held = rails_of(record.validation)
    failed = bool((held["verdict"] == "fail").any())
    running = here.job("accept")
    busy = running is not None and running.live
    nothing = record.info["strength"] == 0
    with st.container(border=True):
        why = st.text_input(
            "Why",
            placeholder="Why accept or discard this patch? It is kept in the history and in the report.",
            max_chars=500,
            disabled=busy,
            **here.choosing(f"why-{record.key[:8]}"),
        )
        accept, discard, adjust = st.columns(3)
        if accept.button(
            "Accept",
            type="secondary" if discarded or failed or nothing else "primary",
            icon=":material/check:",
            width="stretch",
            disabled=busy or nothing,
            help="Makes the patched model the current version and opens the test split once.",
        ):
            if failed and not why.strip():
                st.error("A rail fails. Say why it is accepted all the same.", icon=":material/edit:")
            else:
                here.start("accept", {"patch": record.key, "why": why.strip(), "who": user()})
                st.rerun()
        if discard.button("Discard", icon=":material/close:", width="stretch", disabled=busy or discarded):
            about = {"source": here.source, "parent": here.version, "patch": record.key}
            ledger().append("discarded", why=why.strip(), who=user(), details=record.info, **about)
            st.rerun()
        if adjust.button(
            "Adjust",
            type="primary" if discarded or nothing else "secondary",
            icon=":material/tune:",
            width="stretch",
            disabled=busy,
            help="Back to Patch with the draft as it is.",
        ):
            st.switch_page("pages/3_Patch.py", query_params=here.query)
        if here.overview.info["rows"]["test"]:
            st.caption(f"{openings(here)} Only accepting opens it.")
        else:
            st.caption(
                "This project has no test split: what is accepted rests on validation, where it was tuned."
            )


def accepted(here: Context, decision: Any) -> None:
    """Who accepted it, the report, and the way on."""
    name = ledger().versions(here.source).name(decision.id)
    because = f": {text.escape(decision.why)}" if decision.why else "."
    st.success(f"Accepted as {name} by {text.escape(decision.who)}{because}", icon=":material/check_circle:")
    left, right = st.columns(2)
    left.download_button(
        "Report",
        lambda: entry_report(decision, ledger()),
        f"{text.file_name(title(here.source), name)}.html",
        "text/html",
        icon=":material/description:",
        type="primary",
        width="stretch",
    )
    if right.button(f"Continue with {name}", icon=":material/arrow_forward:", width="stretch"):
        new = open_context(here.source, decision.id)
        st.switch_page("pages/2_Explore.py", query_params=new.query)


def rails(here: Context, comparison: dict, record: Record) -> None:
    """What had to hold, and whether it did; what was promised and what came."""
    split = comparison["split"]
    st.subheader("Rails")
    frame = verdict_table(comparison, here.criteria)
    st.dataframe(frame.style.map(text.verdict_style, subset=["verdict"]), hide_index=True)
    st.caption(text.READ_RAILS.format(split=split))
    predicted, measured = (
        {label_of(here.criteria, name): value for name, value in record.info[kind].items()}
        for kind in ("predicted", "measured")
    )
    if predicted:
        for note in record.doubts(here.criteria):
            st.warning(text.escape(note), icon=":material/warning:")
        figure = predicted_measured_figure(
            predicted, measured, title="Predicted and measured change on validation"
        )
        alt = text.predicted_measured_alt(predicted, measured)
        chart(figure, alt, text.READ_PREDICTED_MEASURED, key=f"predicted-{split}")


def measures(here: Context, comparison: dict) -> None:
    """Metrics, reliability or residuals, classes and groups before and after."""
    split, n = comparison["split"], comparison["n"]
    st.subheader("Metrics")
    st.dataframe(metric_table(comparison), hide_index=True)
    st.caption(f"{split}, n = {n:,}; interval of the change: 95 %, paired bootstrap over rows.")
    if here.task is CLASSIFICATION:
        left, right = side_by_side()
        with left:
            st.subheader("Reliability")
            before, after = binned(comparison, "before"), binned(comparison, "after")
            figure = reliability_figure(before, after, title="Accuracy against confidence", n=n)
            alt = text.reliability_alt(before, after, n=n)
            chart(figure, alt, text.READ_RELIABILITY, key=f"reliability-{split}")
        with right:
            st.subheader("Classes and groups")
            groups(here, comparison, ["class"])
        return
    outputs = here.overview.info["classes"]
    output = outputs[0]
    if len(outputs) > 1:
        output = st.selectbox("Output", outputs, **here.choosing("output", outputs))
    for place, kind in zip(side_by_side(), ("answers", "residuals"), strict=True):
        with place:
            st.subheader(HEADINGS[kind])
            figure, alt, read = values_chart(comparison, kind, output)
            chart(figure, alt, read, key=f"{kind}-{split}")
    if comparison["per_group"]["data"]:
        st.subheader("Groups")
        groups(here, comparison, [])


def groups(here: Context, comparison: dict, more: list[str]) -> None:
    """Accuracy, or RMSE, of the rows of each value of a column, or of each class, before and after."""
    split, known = comparison["split"], pd.DataFrame(**comparison["per_group"])
    names = [*more, *known["column"].unique().tolist()]
    by = st.selectbox("By", names, **here.choosing(f"by-{split}", names)) if len(names) > 1 else names[0]
    table = pd.DataFrame(**comparison["per_class"]) if by in more else known[known["column"] == by]
    parts = table["class" if by in more else "group"].tolist()
    before, after = table["before"].tolist(), table["after"].tolist()
    labels = [f"{name} ({count:,})" for name, count in zip(parts, table["n"], strict=True)]
    share = here.task is CLASSIFICATION
    rate = "accuracy" if share else "RMSE"
    figure = class_figure(
        labels, before, after, title=f"By {by} (rows)", x_title=f"{rate} on {split}", share=share
    )
    alt = text.class_alt(parts, before, after, rate, share=share)
    chart(figure, alt, text.READ_CLASSES, key=f"by-{split}-figure")


def confusion(here: Context, comparison: dict) -> None:
    """What is taken for what, before and after."""
    split, n = comparison["split"], comparison["n"]
    classes = here.overview.info["classes"]
    st.subheader("Confusion")
    if len(classes) > MOST_CLASSES:
        st.dataframe(confusion_table(comparison, classes), hide_index=True)
        st.caption(f"The cells of the confusion matrix that changed most, on {split}, n = {n:,}.")
        return
    cells = pd.DataFrame(**comparison["confusion"])
    figure = confusion_change_figure(classes, cells, title="What is taken for what", n=n)
    chart(figure, text.confusion_alt(classes, cells), text.READ_CONFUSION, key=f"confusion-{split}")


main()
