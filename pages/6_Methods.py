"""Methods: every method of the literature on this model and these rows, and which of them to believe."""

import pandas as pd
import streamlit as st

from puma_dash.ui import methods_figures, text
from puma_dash.ui.bootstrap import bootstrap
from puma_dash.ui.compare import Record
from puma_dash.ui.experiments import picture, readable
from puma_dash.ui.methods import (
    EXPERIMENTS,
    Costs,
    about,
    methods_table,
    name_of,
    scores_of,
)
from puma_dash.ui.methods_panels import expected, live, retraining, trust, wrong_labels
from puma_dash.ui.panels import chart, duration, job, ready, segments, tall
from puma_dash.ui.race import race
from puma_dash.ui.state import Context, entry

SECTIONS = {
    "Scores": "Score every row by any method; what is scored colours, ranks and selects rows on Explore.",
    "Wrong labels": "How many wrong labels does each method find, if rows are inspected in its order?",
    "Retraining": "Retrain without half of the rows, again and again: whose scores foresee what comes out?",
    "Agreement": "Do the methods put the rows in the same order, and do they point at the same ones?",
    "Trust": "Where do influence and retraining part, when rows are removed? One assumption at a time.",
    "Race": "The same rows removed by every method: time, what was held, what was left behind.",
    "The paper": "The experiments of the paper, run again here, with intervals over seeds.",
}


def main() -> None:
    """Draws the page."""
    here = ready(bootstrap("Methods"))
    st.title("Methods")
    section = segments("Question", SECTIONS, **here.choosing("methods-section", list(SECTIONS)))
    st.markdown(f"#### {SECTIONS[section]}")
    if section == "Race":
        raced(here)
    elif section == "The paper":
        paper(here)
    elif section == "Agreement":
        agreement(here)
    else:
        costs = estimated(here)
        asking = {"Scores": scores, "Wrong labels": wrong_labels, "Retraining": retraining, "Trust": trust}
        asking[section](here, costs)


def estimated(here: Context) -> Costs:
    """What the methods cost here; until the worker has estimated it, this shows that and stops the page."""
    costs = Costs.of(here)
    if costs is None:
        state = here.job("costs")
        if state is None or state.status == "done":
            here.start("costs", {})
        job(here, "costs", "Estimating what each method costs on this project")
        st.stop()
    return costs


def scores(here: Context, costs: Costs) -> None:
    """All methods in a table; those ticked score the rows."""
    table = methods_table(here, costs)
    event = st.dataframe(
        table,
        hide_index=True,
        height=tall(len(table), most=600),
        column_config={
            "method": st.column_config.TextColumn("method", width=240),
            "about": st.column_config.TextColumn("takes about", help="Estimated, on one core.", width=92),
            "took": st.column_config.TextColumn("scored in", width=100),
        },
        on_select="rerun",
        selection_mode="multi-row",
        key="methods-table",
    )
    picked = [table.index[row] for row in event["selection"]["rows"]]
    chosen = [method for method in picked if costs.refused[method] is None]
    for method in picked:
        if method not in chosen:
            st.caption(f"{name_of(method)}: {text.escape(costs.refused[method] or '')}")
    if job(here, "score", "Scoring all rows"):
        state = here.job("score")
        for method, reason in (state.result or {}).get("refused", {}).items():
            st.warning(f"{name_of(method)}: {text.escape(reason)}", icon=":material/block:")
    count = here.overview.info["rows"]["train"]
    named = name_of(chosen[0]) if len(chosen) == 1 else f"{len(chosen)} methods"
    if st.button(
        f"Score {count:,} rows by {named}" if chosen else "Tick methods to score the rows by",
        type="primary",
        icon=":material/calculate:",
        disabled=not chosen or live(here, "score"),
    ):
        params = {"methods": chosen, "criterion": here.task.criterion}
        here.start("score", {**params, **expected(costs.seconds(chosen))})
        st.rerun()
    if chosen:
        st.caption(about(costs.seconds(chosen)))
    st.caption(
        "For every method lower means more suspicious. Those that ask for a criterion are asked for "
        f"{here.main['label']} on validation. The Guide tells each in five sentences."
    )
    st.page_link(
        "pages/7_Guide.py",
        label="Read about them",
        icon=":material/menu_book:",
        query_params=here.query | {"method": "psi"},
    )


def agreement(here: Context) -> None:
    """Rank correlations and overlaps of the methods that have scored the rows."""
    job(here, "score", "Scoring all rows")
    known = {name_of(method): values for method, (values, _) in scores_of(here).items()}
    if len(known) < 2 and live(here, "score"):
        return
    if len(known) < 2:
        st.info("Only psi has scored the rows so far. Score them by other methods first.")
        if st.button("Go to Scores", icon=":material/calculate:"):
            here.keep("methods-section", "Scores")
            st.rerun()
        return
    from puma_dash.core.evaluation.agreement import agreement as compared

    measures = list(methods_figures.READ_AGREEMENT)
    measure = segments("Measure", measures, **here.choosing("agreement", measures))
    table = compared(known)[measures.index(measure)]
    n = here.overview.info["rows"]["train"]
    figure = methods_figures.agreement_figure(
        table, title=f"Agreement: {measure}", subtitle=f"n = {n:,} rows"
    )
    pairs = [(a, b, table.loc[a, b]) for k, a in enumerate(table) for b in list(table)[:k]]
    most, least = max(pairs, key=lambda pair: pair[2]), min(pairs, key=lambda pair: pair[2])
    alt = " ".join(
        f"{word} agree {a} and {b}, {value:.2f}.".replace("-", "−")
        for word, (a, b, value) in (("Most", most), ("Least", least))
    )
    st.markdown(f"**{text.escape(alt)}**")
    chart(figure, alt, methods_figures.READ_AGREEMENT[measure], key=f"agreement-{measure}")


def raced(here: Context) -> None:
    """The race of the last patch."""
    record = Record.of(here.history().patch)
    if record is None:
        st.info("Methods of removal race on a plan: mark rows and patch them first.")
        st.page_link(
            "pages/3_Patch.py", label="Go to Patch", icon=":material/healing:", query_params=here.query
        )
        return
    race(here, record)


def paper(here: Context) -> None:
    """An experiment of the source: run it, see it."""
    keys = list(EXPERIMENTS)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        key = st.selectbox(
            "Experiment", keys, format_func=EXPERIMENTS.get, width=420, **here.choosing("experiment", keys)
        )
        counts = [1, 2, 3, 5, 10]
        seeds = st.selectbox("Seeds", counts, width=140, **here.choosing("experiment-seeds", counts, 3))
        busy = live(here, f"experiment {key}")
        if st.button("Run", type="primary", icon=":material/play_arrow:", disabled=busy):
            here.start("experiment", {"experiment": key, "seeds": seeds}, f"experiment {key}")
            st.rerun()
    job(here, f"experiment {key}", EXPERIMENTS[key])
    found = entry(here.index.findings.get(f"experiment {key}", ""))
    if found is None:
        st.caption("Not run here yet. From a terminal: puma-dash reproduce " + key)
        return
    info = found.info
    st.markdown(f"**{text.escape(info['told'])}**")
    tables = {title: pd.DataFrame(**table) for title, table in info["tables"].items()}
    seeds, took = info["seeds"], duration(info["seconds"])
    told = f"{seeds} seeds; intervals: 95 % over seeds." if seeds > 1 else "1 seed: no intervals over seeds."
    alt = f"{EXPERIMENTS[key]}. {info['told']}"
    chart(picture(key, found.arrays, tables), alt, f"{told} It took {took}.", key=f"figure-{key}")
    for title, table in tables.items():
        st.markdown(f"**{text.escape(title)}**")
        st.dataframe(readable(table), hide_index=True)


main()
