"""Removal evidence on the pages: what it says of a patch, and the button that computes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import streamlit as st

from puma_dash.core.task import REGRESSION, Task
from puma_dash.ui import text
from puma_dash.ui.change_figures import evidence_figure
from puma_dash.ui.compare import Record, ranged
from puma_dash.ui.cost import evidence_cost, evidence_cost_sentence
from puma_dash.ui.panels import chart, job, plain_number, side_by_side, signed
from puma_dash.ui.state import Context, entry
from puma_dash.workspace.evidence import evidence_key

if TYPE_CHECKING:
    import pandas as pd

MODELS = {
    "before": "before the patch",
    "after": "after the patch",
    "another retraining": "another retraining",
    "retrained with": "retrained with the rows",
}
"""What is measured, in the order in which it is shown."""


def evidence_of(patch: str) -> dict[str, Any] | None:
    """The record of the evidence on the patch of that key; None before it is computed."""
    found = entry(evidence_key(patch))
    return None if found is None else found.info


def evidence(here: Context, record: Record) -> None:
    """What a membership attack says of the patched model; the button for it before it is computed."""
    st.subheader("Removal evidence")
    told = refusal(here.task, record.info["plan"])
    if told:
        st.caption(told)
        return
    found = evidence_of(record.key)
    if found is None:
        st.caption(text.EVIDENCE_QUESTION)
        ask(here, [record], "Evidence for this patch", "evidence", record.info["diagnostics"]["device"])
        return
    st.markdown(text.escape(found["sentence"]))
    if note := powerless(found):
        st.warning(note, icon=":material/warning:")
    left, right = side_by_side()
    with left:
        figure, alt = evidence_chart(found)
        chart(figure, alt, text.READ_EVIDENCE, key="evidence-figure")
    with right:
        st.dataframe(membership_table(found), hide_index=True)
        st.dataframe(distance_table(found), hide_index=True)
        st.caption(text.READ_DISTANCES.format(count=found["references"]))


def ask(here: Context, records: Sequence[Record], label: str, slot: str, device: str) -> None:
    """The button that computes the evidence on ``records``, with its cost; its progress once it does."""
    state, names = here.job(slot), [record.key for record in records]
    if state is not None and set(names) & set(state.params.get("patches", ())):
        if job(here, slot, "Retraining models with and without the rows"):
            here.forget(slot)
            st.rerun()
        return
    known = evidence_cost(here, device)
    if st.button(label, key=slot, icon=":material/fingerprint:"):
        expected = {"expected": known["seconds"]} if known and "seconds" in known else {}
        here.start("evidence", {"patches": names, "device": device, **expected}, slot)
        st.rerun()
    if known is not None:
        st.caption(evidence_cost_sentence(known))


def refusal(task: Task, plan: dict[str, Any]) -> str:
    """Why there can be no evidence on a plan; empty where there can be."""
    if task is REGRESSION:
        return (
            "There is none for a regression: it needs the probabilities of classes, which tell members "
            "apart. The errors of the marked rows are above."
        )
    if not plan["remove"] and not plan["relabel"]:
        return "There is none for this plan, which only up-weights rows: nothing was to be removed."
    return ""


def powerless(found: dict[str, Any]) -> str:
    """What to say where the attack fails even on models that trained with the rows; empty where it works."""
    if _table(found, "membership").loc["retrained with", "auc_low"] > 0.5:
        return ""
    return (
        "Even models retrained with these rows are not told from models retrained without them. On these "
        "rows this attack says nothing, neither that their influence is gone nor that it is not."
    )


def removal_table(runners: Mapping[str, Record], known: Mapping[str, dict[str, Any]]) -> pd.DataFrame:
    """Methods side by side on the removed rows: their loss, membership AUC and TPR, distance to retraining.

    Args:
        runners: the patches, of one plan, by what their methods are called.
        known: of those whose evidence was computed, its record; the yardsticks of the first stand below.
    """
    import pandas as pd

    lines = [(name, _loss(runners[name]), found, "after") for name, found in known.items()]
    yardstick = next(iter(known.values()))
    lines += [(f"({MODELS[name]})", "–", yardstick, name) for name in MODELS if name != "after"]
    return pd.DataFrame(
        {
            "method": told,
            "loss on removed rows": loss,
            **_rates(_table(found, "membership").loc[name]),
            "distance to retraining (predictions on validation)": _distance(found, name),
        }
        for told, loss, found, name in lines
    )


def _loss(runner: Record) -> str:
    """The loss on the rows that were removed, where some were."""
    import pandas as pd

    marked = pd.DataFrame(**runner.validation["marked"]).set_index("rows")["loss after"]
    return plain_number(marked["removed"], 2) if "removed" in marked else "–"


def _distance(found: dict[str, Any], name: str) -> str:
    """Of predictions on validation, where it was measured."""
    apart = _table(found, "distances")["predictions on validation"]
    return plain_number(apart[name]) if name in apart else "–"


def _rates(scores: Mapping[str, float]) -> dict[str, str]:
    """AUC and TPR with their intervals."""
    return {
        f"{column} (95 % interval)": ranged(scores[name], scores[f"{name}_low"], scores[f"{name}_high"])
        for column, name in (("AUC", "auc"), ("TPR at 1 % FPR", "tpr"))
    }


def membership_table(found: dict[str, Any]) -> pd.DataFrame:
    """Score shift, AUC and TPR at 1 % FPR of the model before and after, and of the yardsticks."""
    import pandas as pd

    table = _table(found, "membership")
    return pd.DataFrame(
        {"model": told, "score shift (nats)": signed(table.loc[name, "shift"], 2), **_rates(table.loc[name])}
        for name, told in MODELS.items()
    )


def distance_table(found: dict[str, Any]) -> pd.DataFrame:
    """How far the model before and after, and another retraining, are from retraining."""
    import pandas as pd

    table = _table(found, "distances")
    shown = {name: [plain_number(value) for value in table[name]] for name in table}
    return pd.DataFrame({"distance to retraining": [MODELS[name] for name in table.index], **shown})


def evidence_chart(found: dict[str, Any]) -> tuple[Any, str]:
    """The AUC of each model with its interval, and its alternative text."""
    table = _table(found, "membership").loc[list(MODELS)]
    names, n = list(MODELS.values()), found["rows"]
    values = table["auc"], table["auc_low"], table["auc_high"]
    figure = evidence_figure(names, *values, title="Can the removed rows be told by their scores?", n=n)
    return figure, text.evidence_alt(names, *values)


def _table(found: dict[str, Any], name: str) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(**found[name]).astype(float)  # JSON has None for a distance that does not exist
