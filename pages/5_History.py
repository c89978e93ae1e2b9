"""History: what was decided on this project, by whom and why; open, roll back, export, make again."""

import streamlit as st

from puma_dash.ui import text
from puma_dash.ui.bootstrap import bootstrap
from puma_dash.ui.compare import metric_table, outcome_sentence, patch_sentence, verdict_table
from puma_dash.ui.history import (
    READ_AGREEMENT,
    READ_TREE,
    agreement,
    agreement_alt,
    agreement_figure,
    entries_table,
    entry_bundle,
    entry_report,
    facts_of,
    happened,
    kept_fault,
    record_of,
    replay_line,
    tree_alt,
    tree_figure,
)
from puma_dash.ui.panels import chart, facts, no_project
from puma_dash.ui.state import Context, ledger, open_context, user
from puma_dash.workspace.places import title


def main() -> None:
    """Draws the page."""
    here = bootstrap("History")
    st.title("History")
    if here is None:
        no_project()
    entries = ledger().entries(here.source)
    chain = ledger().verify()
    if chain.broken is None:
        st.caption(
            f":material/link: {chain.sentence} All projects share one chain; nothing in it is deleted."
        )
    else:
        st.error(
            f"{text.escape(chain.sentence)} Somebody changed the database; what it says from there on is no "
            "evidence. Compare it with a report or a bundle that was exported earlier.",
            icon=":material/link_off:",
        )
    if not entries:
        st.info("Nothing was decided on this project yet. Accept or discard a patch, and it is kept here.")
        st.page_link(
            "pages/2_Explore.py",
            label="Go to Explore",
            icon=":material/scatter_plot:",
            query_params=here.query,
        )
        return
    versions = ledger().versions(here.source)
    st.subheader("Versions")
    chart(tree_figure(versions, here.version), tree_alt(versions), READ_TREE, key="tree")
    version_actions(here, versions)
    st.subheader("All entries")
    st.dataframe(entries_table(entries, versions), hide_index=True)
    st.caption(
        "Newest first. Predicted / measured: change of each held criterion on validation, negative is better."
    )
    patches = agreement(entries, versions)
    if len(patches):
        st.subheader("Were the forecasts right?")
        forecasts(here, patches)
    detail(here, entries, versions)


def version_actions(here: Context, versions) -> None:
    """Open a version, or make an earlier one current."""
    names = {entry: versions.name(entry).capitalize() for entry in versions.numbers}
    order = list(reversed(names))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox(
            "Version",
            order,
            order.index(versions.current),
            format_func=lambda entry: names[entry] + (" (current)" if entry == versions.current else ""),
            key="chosen version",
            width=320,
        )
        if st.button("Open this version", icon=":material/folder_open:"):
            new = open_context(here.source, chosen)
            st.switch_page("app.py", query_params=new.query)
        if st.button(
            "Roll back to it",
            icon=":material/undo:",
            disabled=chosen == versions.current,
            help="Makes it the current version again. It is a new entry; the versions after it stay.",
        ):
            st.session_state["rolling"] = chosen
    if "rolling" in st.session_state:
        roll_back(here, versions)


def roll_back(here: Context, versions) -> None:
    """Asks why, then adds the entry."""
    target = st.session_state["rolling"]
    if target not in versions.numbers or target == versions.current:
        del st.session_state["rolling"]
        return
    with st.form("roll back"):
        name = versions.name(target)
        why = st.text_input(
            f"Why does {name} become current again?", max_chars=500, placeholder="It is kept in the ledger."
        )
        confirm, leave, _ = st.columns([2, 1, 3])
        if leave.form_submit_button("Leave it", width="stretch"):
            del st.session_state["rolling"]
            st.rerun()
        if confirm.form_submit_button(f"Roll back to {name}", type="primary", width="stretch"):
            if not why.strip():
                st.error("Say why in a few words: whoever reads the history later will want to know.")
                return
            of = {"source": here.source, "parent": versions.current, "target": target}
            ledger().append("rolled back", why=why, who=user(), **of)
            del st.session_state["rolling"]
            st.rerun()


def forecasts(here: Context, patches) -> None:
    """Predicted against measured, a chart for each criterion."""
    known = here.criteria
    with st.container(horizontal=True):
        for name in patches["criterion"].unique():
            said = known.get(name, {"label": name, "unit": "its unit"})
            part = patches[patches["criterion"] == name]
            with st.container(width=400):
                figure = agreement_figure(part, title=said["label"], unit=said["unit"])
                chart(figure, agreement_alt(part), READ_AGREEMENT, key=f"agreement-{name}")


def detail(here: Context, entries, versions) -> None:
    """One entry in full."""
    st.subheader("One entry")
    by_id = {entry.id: entry for entry in reversed(entries)}
    number = st.selectbox(
        "Entry",
        list(by_id),
        format_func=lambda i: f"{i}: {happened(by_id[i], versions)}, {by_id[i].created:%Y-%m-%d %H:%M}",
        **here.choosing(f"of {len(entries)} entries", by_id),
    )
    entry = by_id[number]
    if "plan" in entry.details:
        outcome(here, entry)
    with st.expander("Settings, hashes, libraries, device", expanded="plan" not in entry.details):
        facts([(name, text.escape(value)) for name, value in facts_of(entry, versions)])
        if "plan" in entry.details:
            st.json({"plan": entry.details["plan"], "diagnostics": entry.details["diagnostics"]}, expanded=1)


def outcome(here: Context, entry) -> None:
    """What came of the patch of an entry, and what can be done with it."""
    record = record_of(entry)
    comparison = entry.details.get("test") or record.validation
    st.markdown(f"**{outcome_sentence(comparison)}**")
    st.caption(text.escape(patch_sentence(record.info)))
    st.dataframe(metric_table(comparison), hide_index=True)
    st.caption(f"{comparison['split']}, n = {comparison['n']:,}; 95 %, paired bootstrap over rows.")
    if comparison["verdicts"]["data"]:
        frame = verdict_table(comparison)
        st.dataframe(frame.style.map(text.verdict_style, subset=["verdict"]), hide_index=True)
        st.caption("What had to hold; change of each criterion, negative is better.")
    name = text.file_name(title(here.source), "entry", entry.id)
    buttons = st.container(horizontal=True)
    buttons.download_button(
        "Report",
        lambda: entry_report(entry, ledger()),
        f"{name}.html",
        "text/html",
        icon=":material/description:",
        key="report",
    )
    if entry.kind == "accepted":
        fault = kept_fault(entry)
        buttons.download_button(
            "Export bundle",
            lambda: entry_bundle(entry, ledger()),
            f"{name}.zip",
            "application/zip",
            icon=":material/folder_zip:",
            key="bundle",
            disabled=bool(fault),
            help="One zip: weights, entry, plan, comparison, report, and what it takes to check them.",
        )
        if fault:
            st.error(text.escape(fault), icon=":material/broken_image:")
    st.caption("To make this patch again and hold it against what was recorded, on this machine:")
    st.code(replay_line(entry), language="sh")


main()
