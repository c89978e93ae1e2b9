"""What the Explore page shows of the training rows: arrays, colours, hover texts, gallery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from puma_dash.core.first_order import predicted_change
from puma_dash.ui.figures import thumbnails
from puma_dash.ui.state import Context, entry

if TYPE_CHECKING:
    import pandas as pd

    from puma_dash.workspace.drafts import Draft

PSI = "psi/cross_entropy"
OWN_COLUMNS = {"image", "row", "psi", "label", "prediction", "confidence", "mark", "fit"}


@dataclass(frozen=True, eq=False)
class Rows:
    """The training rows of a prepared project, as the cache holds them.

    Args:
        here: which project.
        psi: influence on validation cross-entropy (n,).
        value: that criterion now.
        target: labels (n,).
        predicted: predicted classes (n,).
        confidence: of the prediction (n,).
        images: pictures (n, h, w) or (n, 3, h, w), or None.
        classes: names.
        columns: name -> (values or codes (n,), categories or None) of everything else known of a row.
    """

    here: Context
    psi: np.ndarray
    value: float
    target: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    images: np.ndarray | None
    classes: list[str]
    columns: dict[str, tuple[np.ndarray, list[str] | None]]

    @classmethod
    def of(cls, here: Context) -> Rows:
        """The rows of the project that is open."""
        overview = here.overview
        valued = entry(here.index.values.get(PSI, ""))
        assert overview is not None
        if valued is None:
            st.error("The influence of the rows is not in the cache any more. Prepare the project again.")
            if st.button("Prepare again"):
                here.start("prepare", {})
                st.switch_page("app.py", query_params=here.query)
            st.stop()
        assert valued is not None
        arrays, info = overview.arrays, overview.info
        return cls(
            here,
            valued.arrays["scores"],
            valued.info["criterion_value"],
            arrays["target"],
            arrays["predicted"],
            arrays["confidence"],
            arrays.get("images"),
            info["classes"],
            {
                column_label(c["name"]): (arrays[f"column.{c['name']}"], c["categories"])
                for c in info["columns"]
            },
        )

    @property
    def key(self) -> str:
        """What the rows were read from."""
        index = self.here.index
        return f"{index.overview}/{index.values[PSI]}"

    @property
    def n(self) -> int:
        """Number of training rows."""
        return len(self.psi)

    @property
    def flat(self) -> bool:
        """Whether the inputs are plain vectors, so that two columns can be a map."""
        overview = self.here.overview
        return overview is not None and len(overview.info["inputs"]) == 1

    def mask(self, rows: np.ndarray) -> np.ndarray:
        """Bool (n,): which rows are among ``rows``."""
        mask = np.zeros(self.n, dtype=bool)
        mask[rows[rows < self.n]] = True
        return mask

    def coordinates(self, label: str) -> tuple[np.ndarray | None, list[str]]:
        """Coordinates (n, 2) of that map and its axis titles; None where it has not been computed."""
        found = entry(self.here.index.embeddings.get(label, ""))
        return (None, []) if found is None else (found.arrays["xy"], found.info["axes"])


@dataclass(frozen=True)
class Colouring:
    """One way to colour the map; psi of a criterion may still have to be computed."""

    rows: Rows
    criterion: str | dict[str, Any] | None = None
    values: np.ndarray | None = None
    categories: list[str] | None = None
    title: str = "psi"

    def load(self) -> tuple[np.ndarray | None, list[str] | None, str]:
        """Values or codes (n,), their categories, title of the scale; no values where not computed."""
        if self.criterion is None:
            return self.values, self.categories, self.title
        found = entry(self.rows.here.index.values.get(f"psi/{self.criterion}", ""))
        return (None if found is None else found.arrays["scores"]), None, "psi"


def column_label(name: str) -> str:
    """What a column of the data is called: never like one of our own, whose numbers it would hide."""
    own = name in OWN_COLUMNS or name.startswith("psi of ")
    return f"data: {name}" if own else name


def colourings(here: Context, rows: Rows) -> dict[str, Colouring]:
    """Everything the map can be coloured by."""
    found = {
        f"psi of {facts['label']}": Colouring(rows, criterion=key) for key, facts in here.criteria.items()
    }
    asked = here.job("value")
    if asked is not None and "label" in asked.params:  # on its way, from Health
        found.setdefault(
            f"psi of {asked.params['label']}", Colouring(rows, criterion=asked.params["criterion"])
        )
    right = (rows.target == rows.predicted).astype(np.int32)
    found["label"] = Colouring(rows, values=rows.target, categories=rows.classes, title="label")
    found["prediction"] = Colouring(rows, values=rows.predicted, categories=rows.classes, title="prediction")
    found["fit"] = Colouring(rows, values=right, categories=["misfit", "fits its label"], title="fit")
    for name, (values, categories) in rows.columns.items():
        if categories is not None:
            found[name] = Colouring(rows, values=values, categories=categories, title=name)
    return found


def leading(rows: Rows) -> tuple[str, np.ndarray]:
    """What "most harmful" refers to: the criterion whose psi colours the map, else cross-entropy; its psi."""
    asked = st.session_state.get("colour")
    for key, facts in rows.here.criteria.items():
        found = entry(rows.here.index.values.get(f"psi/{key}", ""))
        if found is not None and asked == f"psi of {facts['label']}":
            return facts["label"], found.arrays["scores"]
    return "cross-entropy", rows.psi


def forecast_now(rows: Rows, draft: Draft) -> float:
    """Predicted change of validation cross-entropy by the marks of ``draft``: -(1/n) sum_j e_j psi_j."""
    removed = predicted_change(rows.psi, draft.remove)
    upweighted = predicted_change(rows.psi, draft.upweight.rows, draft.upweight.values)
    return float(removed + upweighted)


@st.cache_data(show_spinner=False, max_entries=8, hash_funcs={Rows: lambda rows: rows.key})
def hover_texts(rows: Rows) -> list[str]:
    """What to say of each row under the mouse."""
    return [
        f"row {i}\nlabel {rows.classes[t]}, predicted {rows.classes[p]} ({c:.0%})\npsi {s:+.3f}"
        for i, (t, p, c, s) in enumerate(
            zip(rows.target, rows.predicted, rows.confidence, rows.psi, strict=True)
        )
    ]


def gallery(rows: Rows, chosen: np.ndarray, draft: Draft) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A table of the rows ``chosen``, with thumbnails of pictures, and how to show its columns."""
    import pandas as pd

    marks = dict.fromkeys(draft.remove.tolist(), "remove")
    marks |= {row: f"weight {1 + e:g}" for row, e in draft.upweight.items()}
    marks |= {row: f"label {rows.classes[int(label)]}" for row, label in draft.relabel.items()}
    data: dict[str, Any] = {}
    columns: dict[str, Any] = {}
    if rows.images is not None:
        data["image"] = thumbnails(rows.images[chosen])
        columns["image"] = st.column_config.ImageColumn("Image", width="small")
    data["row"] = chosen
    data["psi"] = rows.psi[chosen]
    data["label"] = [rows.classes[k] for k in rows.target[chosen]]
    data["prediction"] = [rows.classes[k] for k in rows.predicted[chosen]]
    data["confidence"] = rows.confidence[chosen]
    data["mark"] = [marks.get(row, "") for row in chosen.tolist()]
    for name, (values, categories) in rows.columns.items():
        shown = values[chosen]
        data[name] = shown if categories is None else [categories[k] if k >= 0 else "" for k in shown]
    columns["psi"] = st.column_config.NumberColumn("psi", format="%.3f")
    columns["confidence"] = st.column_config.ProgressColumn(
        "confidence", format="percent", min_value=0.0, max_value=1.0
    )
    return pd.DataFrame(data), columns
