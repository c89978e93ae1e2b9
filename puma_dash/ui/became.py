"""What became of rows: those of validation that flipped, the marked training rows, the plane around them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import streamlit as st

from puma_dash.ui import text
from puma_dash.ui.answers import answers_in
from puma_dash.ui.change_figures import regions_figure
from puma_dash.ui.compare import Record, changed_table, forgotten_sentences
from puma_dash.ui.figures import thumbnails
from puma_dash.ui.panels import chart, decimals, segments, tall
from puma_dash.ui.state import Context, entry
from puma_dash.workspace.store import Entry

SHOWN = 120
"""Rows of a flip, or of those marked, that are shown."""
TALL = 44
"""Pixels of a row with a picture."""
COLUMNS: dict[str, Any] = {
    "image": st.column_config.ImageColumn("Image", width="small"),
    **{
        name: st.column_config.ProgressColumn(name, format="%.0f %%", min_value=0, max_value=100)
        for name in ("confidence before", "confidence after")
    },
    "change of error": st.column_config.NumberColumn(format="%+.4g"),
}
FLIPS = {"fixed": "wrong → right", "broken": "right → wrong", "kept right": "right", "kept wrong": "wrong"}


def flips(here: Context, comparison: dict, record: Record) -> None:
    """The four cells, and the rows of the one that is chosen."""
    split, counts = comparison["split"], comparison["flips"]
    st.subheader("Flips")
    kind = segments(
        f"Rows of {split}",
        FLIPS,
        lambda kind: f"{kind.capitalize()} **{counts[kind]:,}** ({FLIPS[kind]})",
        width="stretch",
        **here.choosing(f"flips-{split}", FLIPS, "broken" if counts["broken"] else "fixed"),
    )
    if not counts[kind]:
        st.caption(f"No {split} row is of this kind.")
        return
    arrays, columns = known_rows(here, comparison, record)
    if "flips.kind" not in arrays:
        st.dataframe(changed_table(comparison, overview(here).info["classes"], kind), hide_index=True)
        st.caption(f"Of {split}, only the rows that changed sides are still known.")
        return
    rows = np.flatnonzero(arrays["flips.kind"] == list(counts).index(kind))
    moved = arrays["flips.confidence"][rows] - arrays["confidence"][rows]
    order = np.argsort(-np.abs(moved), kind="stable")
    chosen = rows[order][:SHOWN]
    shown = f"{len(chosen):,} shown of {len(rows):,}" if len(chosen) < len(rows) else f"{len(rows):,}"
    listing(flipped(arrays, columns, overview(here).info["classes"], chosen))
    st.caption(f"{shown} {split} row{'s' * (len(rows) != 1)}, largest change of confidence first.")


MOVED = {"further": "from its target", "closer": "to its target"}


def moved(here: Context, comparison: dict, record: Record) -> None:
    """Of values: the rows whose prediction moved closer to the target, or further from it, most first."""
    split = comparison["split"]
    st.subheader("Rows")
    arrays, columns = known_rows(here, comparison, record)
    if "answers.after" not in arrays:
        st.caption(f"The rows of {split} are not in the cache any more.")
        return
    target, before, after = (arrays[name] for name in ("target", "predicted", "answers.after"))
    change = (np.abs(after - target) - np.abs(before - target)).mean(1)  # (n,)
    sign = {"further": 1, "closer": -1}
    kind = segments(
        f"Rows of {split}",
        MOVED,
        lambda kind: f"{kind.capitalize()} **{np.sum(sign[kind] * change > 0):,}** ({MOVED[kind]})",
        width="stretch",
        **here.choosing(f"moved-{split}", MOVED),
    )
    rows = np.flatnonzero(sign[kind] * change > 0)
    if not len(rows):
        st.caption(f"No {split} row is of this kind.")
        return
    chosen = rows[np.argsort(-sign[kind] * change[rows], kind="stable")][:SHOWN]
    data = pictured(arrays, chosen)
    for k, name in enumerate(overview(here).info["classes"]):
        of = "" if target.shape[1] == 1 else f" of {name}"
        for what, values in (("target", target), ("before", before), ("after", after)):
            data[f"{what}{of}"] = values[chosen, k]
    data["change of error"] = change[chosen]
    listing(data | described(arrays, columns, chosen))
    shown = f"{len(chosen):,} shown of {len(rows):,}" if len(chosen) < len(rows) else f"{len(rows):,}"
    st.caption(f"{shown} {split} row{'s' * (len(rows) != 1)}, largest change of the absolute error first.")


def overview(here: Context) -> Entry:
    """What is known of the project, which is prepared where this is asked."""
    assert here.overview is not None
    return here.overview


def listing(data: dict[str, Any]) -> None:
    """A table of rows, tall enough for their pictures."""
    line = TALL if "image" in data else 35
    losses = {
        name: st.column_config.NumberColumn(name, format=decimals(data[name]))
        for name in ("loss before", "loss after")
        if name in data
    }
    st.dataframe(
        data,
        hide_index=True,
        column_config=COLUMNS | losses,
        height=tall(len(data["row"]), line, 345),
        row_height=line,
    )


def known_rows(
    here: Context, comparison: dict, record: Record
) -> tuple[Mapping[str, np.ndarray], list[dict[str, Any]]]:
    """Arrays of the rows that were compared, with what became of them, and what their columns are."""
    if comparison["split"] == "validation":
        prefix, arrays = "validation.", overview(here).arrays
        own = {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}
        return {**own, **record.arrays}, overview(here).info["validation_columns"]
    found = entry(comparison.get("rows", ""))
    return ({}, []) if found is None else (found.arrays, found.info["columns"])


def flipped(
    arrays: Mapping[str, np.ndarray], columns: list[dict[str, Any]], classes: list[str], chosen: np.ndarray
) -> dict[str, Any]:
    """The rows ``chosen`` with label, prediction and confidence before and after."""
    data = pictured(arrays, chosen)
    data["label"] = [classes[k] for k in arrays["target"][chosen]]
    data["before"] = [classes[k] for k in arrays["predicted"][chosen]]
    data["after"] = [classes[k] for k in arrays["flips.after"][chosen]]
    data["confidence before"] = 100 * arrays["confidence"][chosen]
    data["confidence after"] = 100 * arrays["flips.confidence"][chosen]
    return data | described(arrays, columns, chosen)


def pictured(arrays: Mapping[str, np.ndarray], chosen: np.ndarray) -> dict[str, Any]:
    """Number, and picture where there are any, of the rows ``chosen``."""
    images = arrays.get("images")
    pictures: dict[str, Any] = {} if images is None else {"image": thumbnails(images[chosen])}
    return pictures | {"row": chosen}


def described(
    arrays: Mapping[str, np.ndarray], columns: list[dict[str, Any]], chosen: np.ndarray
) -> dict[str, Any]:
    """What the data say of the rows ``chosen``."""
    data: dict[str, Any] = {}
    for column in columns:
        values, names = arrays[f"column.{column['name']}"][chosen], column["categories"]
        data[f"data: {column['name']}"] = (
            values if names is None else [names[k] if k >= 0 else "" for k in values]
        )
    return data


def marked(here: Context, comparison: dict, record: Record) -> None:
    """What became of the marked training rows."""
    import pandas as pd

    st.subheader("The marked training rows")
    summary = pd.DataFrame(**comparison["marked"])
    st.markdown("  \n".join(map(text.escape, forgotten_sentences(comparison, summary))))
    if "marked.row" not in record.arrays:
        return
    names = summary["rows"].tolist()
    done = names[0]
    if len(names) > 1:
        done = segments("Shown", names, **here.choosing("marked-rows", names))
    own = {name.removeprefix("marked."): a for name, a in record.arrays.items() if name.startswith("marked.")}
    index = np.flatnonzero(own["done"] == names.index(done))
    gained = own["loss after"][index] - own["loss before"][index]
    index = index[np.argsort(-np.abs(gained), kind="stable")][:SHOWN]
    answers = answers_in(overview(here).info, overview(here).arrays)
    data = pictured(overview(here).arrays, own["row"][index])
    age = {"relabelled, old label": "old ", "relabelled, new label": "new "}.get(done, "")
    for name, source in ((age + here.task.target, "label"), ("before", "before"), ("after", "after")):
        data[name] = answers.words(own[source][index])
    for name in ("loss before", "loss after"):
        data[name] = own[name][index]
    listing(data)
    total = int((own["done"] == names.index(done)).sum())
    st.caption(
        f"{len(index):,} of {total:,} rows {done}, largest change of loss ({here.main['unit']}) first. "
        "Another answer than the one that was taught is no proof that a row is forgotten."
    )


def regions(here: Context, record: Record) -> None:
    """What the models answer everywhere, where the data lie in the plane."""
    found = {n.removeprefix("regions."): a for n, a in record.arrays.items() if n.startswith("regions.")}
    points = entry(here.index.embeddings.get("own columns", ""))
    if not found or points is None:
        return
    st.subheader("Decision regions")
    touched = np.zeros(len(overview(here).arrays["target"]), dtype=bool)
    touched[record.arrays["marked.row"]] = True
    classes = overview(here).info["classes"]
    figure = regions_figure(
        found,
        points.arrays["xy"],
        overview(here).arrays["target"],
        touched,
        classes,
        title="What the model answers, before and after",
    )
    chart(figure, text.regions_alt(found, classes), text.READ_REGIONS, key="regions")
