"""Which methods to believe, a section of the Methods page each: wrong labels, retraining, trust."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from puma_dash.core.task import CLASSIFICATION
from puma_dash.ui import methods_figures, text
from puma_dash.ui.methods import (
    Costs,
    about,
    flips_found,
    flips_sentence,
    flips_table,
    name_of,
    scores_of,
    trust_sentence,
    truths,
)
from puma_dash.ui.panels import chart, duration, job, tall
from puma_dash.ui.state import Context, entry
from puma_dash.workspace.store import Entry

IN_COPIES = "flipped in copies"
SUBSETS, TRAININGS = 32, 2
LARGEST_MODEL, MOST_ROWS = 4_000, 5_000
"""Beyond these a removal is not taken apart (core.evaluation.trust, which pages do not import)."""
HALF = 0.6
"""What training on half of the rows takes of a whole one."""


def wrong_labels(here: Context, costs: Costs) -> None:
    """Mislabel curves: known wrong labels, or ones flipped in copies."""
    if here.task is not CLASSIFICATION:
        st.info("This project is a regression: its rows have values, not labels that are right or wrong.")
        return
    columns = truths(here)
    sources = [*columns, IN_COPIES]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        source = st.selectbox(
            "Wrong labels",
            sources,
            format_func=lambda name: name if name == IN_COPIES else f"known from column {name}",
            width=280,
            help="Known ones need no training. Else labels are flipped in copies, each trained from scratch.",
            **here.choosing("flips-source", sources),
        )
        share, repeats = 0.1, 1
        if source == IN_COPIES:
            shares, counts = [0.05, 0.1, 0.2, 0.3], [1, 3, 5, 10, 20]
            share = st.selectbox(
                "Share flipped",
                shares,
                format_func="{:.0%}".format,
                width=140,
                **here.choosing("flips-share", shares, 0.1),
            )
            repeats = st.selectbox("Copies", counts, width=140, **here.choosing("flips-repeats", counts, 5))
    known = None if source == IN_COPIES else source
    settings = f"{share:g} in {repeats}" if known is None else f"known from {known}"
    found = flips_found(here, settings)
    chosen = pick_methods(here, costs, "flips-methods")
    missing = [method for method in chosen if method not in found]
    seconds = costs.seconds(missing, repeats, repeats if known is None else 0)
    done = job(here, "flips", "Searching for wrong labels")
    if missing and not live(here, "flips"):
        where = "in the rows" if known else f"in {repeats} {'copies' if repeats > 1 else 'copy'}"
        if st.button(
            f"Ask {len(missing)} {'more ' * bool(found)}method{'s' * (len(missing) > 1)}",
            type="primary",
            icon=":material/search:",
        ):
            params = {
                "methods": missing,
                "known": known,
                "share": share,
                "repeats": repeats,
                "settings": settings,
            }
            here.start("flips", {**params, **expected(seconds)})
            st.rerun()
        st.caption(about(seconds, f", {where}"))
    if done:
        here.forget("flips")
    _flips({method: found[method] for method in chosen if method in found}, known)


def _flips(shown: dict[str, Entry], known: str | None) -> None:
    """What searches for wrong labels found: the best method, curves, a table."""
    table = flips_table(shown)
    for method, held in shown.items():
        if "refused" in held.info:
            st.caption(f"{name_of(method)}: {text.escape(held.info['refused'])}")
    if not len(table):
        return
    info = next(held.info for held in shown.values() if "line" in held.info)
    st.markdown(f"**{text.escape(flips_sentence(shown))}**")
    over = f"{info['repeats']} copies" if info["repeats"] > 1 else "the wrong labels"
    subtitle = f"{info['flips']:,} wrong labels among {info['rows']:,} rows; 95 % intervals over {over}"
    curves = {name_of(m): held.arrays["curve"] for m, held in shown.items() if "line" in held.info}
    marked = {name_of(role): role for role in ("psi", "random")}
    figure = methods_figures.flips_figure(curves, marked, subtitle=subtitle)
    alt = "Share of wrong labels found in 10 % of the rows: " + "; ".join(
        f"{line['method']} {line['found at 10 %']}" for _, line in table.iterrows()
    )
    chart(figure, alt, methods_figures.READ_FLIPS, key="flips-figure")
    st.dataframe(table, hide_index=True, height=tall(len(table), most=560))
    st.caption(
        f"Mean ± half the 95 % interval over {over}. AUC: the chance that a wrong label is more suspicious "
        "than a right one; .5 is random. psi answers which rows move a number, which is another question "
        "than which labels are wrong."
        + " Labels that were wrong before the flips count as right: the more there are, the worse every "
        "method looks." * (known is None)
    )


def retraining(here: Context, costs: Costs) -> None:
    """Linear datamodeling score of the methods chosen."""
    name, criterion = pick_criterion(here, "datamodeling-criterion")
    chosen = pick_methods(here, costs, "datamodeling-methods")
    times = SUBSETS * TRAININGS
    job(here, "datamodeling", f"Retraining {times} times on half of the rows")
    if not live(here, "datamodeling"):
        seconds = costs.seconds(chosen, 1, times * HALF)
        if st.button(
            f"Retrain {times} times", type="primary", icon=":material/model_training:", disabled=not chosen
        ):
            params = {"methods": chosen, "criterion": criterion, "subsets": SUBSETS, "trainings": TRAININGS}
            here.start("datamodeling", {**params, **expected(seconds)})
            st.rerun()
        st.caption(
            f"{about(seconds)} {SUBSETS} subsets without half of the rows, {TRAININGS} trainings on each; "
            "further methods on the same criterion cost no retraining."
        )
    found = entry(here.index.findings.get(f"datamodeling {name}", ""))
    if found is None:
        return
    info = found.info
    table = pd.DataFrame(**info["table"])
    table["label"] = table["method"].map(name_of)
    label = here.criteria[name]["label"]
    ceiling = np.nan if info["ceiling"] is None else info["ceiling"]
    best = table.iloc[0]
    st.markdown(
        f"**Foresees best what retraining does to {text.escape(label)}: {best['label']}, rank correlation "
        f"{best['score']:.2f} ({best['low']:.2f} to {best['high']:.2f}).**"
    )
    subsets = info["subsets"][0]
    figure = methods_figures.datamodeling_figure(
        table, ceiling, subtitle=f"{label}, {subsets} subsets of the rows"
    )
    alt = "Rank correlation with retraining: " + "; ".join(
        f"{line['label']} {line['score']:.2f}" for _, line in table.iterrows()
    )
    chart(figure, alt, methods_figures.READ_DATAMODELING, key="datamodeling-figure")
    for method, reason in info["refused"].items():
        st.caption(f"{name_of(method)}: {text.escape(reason)}")
    st.caption(f"Retrained by {text.escape(info['trainer'])}.")


def trust(here: Context, costs: Costs) -> None:
    """The five terms between influence and retraining."""
    draft = here.draft()
    psi = scores_of(here)["psi"][0]
    wheres = [
        "the most harmful rows",
        *([f"the {len(draft.remove):,} rows marked to remove"] if len(draft.remove) else []),
    ]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        where = st.selectbox("Remove", wheres, width=280, **here.choosing("trust-rows", wheres))
        rows = draft.remove
        if where == wheres[0]:
            counts = [c for c in (1, 10, 20, 50, 100) if c < len(psi)]
            count = st.selectbox("How many", counts, width=140, **here.choosing("trust-count", counts, 20))
            rows = np.sort(np.argsort(psi, kind="stable")[:count])
        _, criterion = pick_criterion(here, "trust-criterion")
    job(here, "trust", "Retraining, and minimising what lies between it and influence")
    assert here.overview is not None
    large = here.overview.info["parameters"] > LARGEST_MODEL or len(psi) > MOST_ROWS
    if not live(here, "trust"):
        if st.button(
            f"Take apart the removal of {len(rows):,} rows",
            type="primary",
            icon=":material/account_tree:",
            disabled=large,
        ):
            here.start("trust", {"rows": rows.tolist(), "criterion": criterion})
            st.rerun()
        known = "" if costs.training is None else f" (about {duration(costs.training)})"
        st.caption(
            f"One training from scratch{known} and three from the trained model to the very end; for models "
            f"of at most {LARGEST_MODEL:,} parameters and {MOST_ROWS:,} rows"
            + (", which this one is not." if large else ".")
        )
    found = entry(here.index.findings.get("trust", ""))
    if found is None:
        return
    _terms(here, found)


def _terms(here: Context, found: Entry) -> None:
    """The terms of a removal: in a sentence, as bars, as a table."""
    info = found.info
    facts = here.criteria.get(info["criterion"], {"label": info["criterion"], "unit": ""})
    st.markdown(f"**{text.escape(trust_sentence(info, facts['unit']))}**")
    terms = pd.DataFrame(**info["terms"])
    count = len(found.arrays["rows"])
    figure = methods_figures.trust_figure(
        terms,
        info["retrained"],
        info["influence"],
        unit=facts["unit"],
        subtitle=f"{facts['label']}, {count:,} rows removed",
    )
    alt = "From retraining to influence: " + "; ".join(f"{n} {v:+.4f}" for n, v in terms["change"].items())
    chart(figure, alt, methods_figures.READ_TRUST, key="trust-figure")
    table = terms.reset_index(names="assumption")[["assumption", "meaning", "change", "outputs"]]
    number = st.column_config.NumberColumn
    st.dataframe(
        table,
        hide_index=True,
        column_config={
            "change": number(f"change ({facts['unit']})", format="%+.5f"),
            "outputs": number("outputs", format="%.2e", help="Mean squared change of the model's answers."),
        },
    )
    for name in info["unfinished"]:
        st.warning(f"The answer named {name} did not reach its minimum; its terms are not exact.")
    st.caption(
        f"Damping {info['damping']:.3g}; {duration(info['seconds'])}. Bae et al. (2022). One training with "
        "one seed, whose noise, of unknown size, is in the warm start. Leave-one-out of single rows on "
        "networks is mostly the noise of training; groups and the order of rows mean more."
    )


def pick_criterion(here: Context, name: str) -> tuple[str, str | dict[str, Any]]:
    """The name of the criterion chosen, and the criterion as the worker reads it."""
    criteria = list(here.criteria)
    chosen = st.selectbox(
        "Criterion",
        criteria,
        format_func=lambda criterion: here.criteria[criterion]["label"],
        width=280,
        **here.choosing(name, criteria, here.task.criterion),
    )
    return chosen, here.criteria[chosen].get("record", chosen)


def pick_methods(here: Context, costs: Costs, name: str) -> list[str]:
    """The methods chosen; the quick ones where nothing was."""

    def named(method: str) -> str:
        seconds = costs.known[method]
        return f"{name_of(method)} ({duration(seconds)})" if seconds and seconds > 1 else name_of(method)

    if name not in st.session_state:
        st.session_state[name] = [m for m in here.view.get(name, costs.quick) if m in costs.usable]
    return st.multiselect(
        "Methods",
        costs.usable,
        format_func=named,
        key=name,
        on_change=lambda: here.keep(name, st.session_state[name]),
    )


def live(here: Context, slot: str) -> bool:
    """Whether that job is under way."""
    state = here.job(slot)
    return state is not None and state.live


def expected(seconds: float | None) -> dict[str, float]:
    """The estimate that a job carries, where there is one."""
    return {} if seconds is None else {"expected": seconds}
