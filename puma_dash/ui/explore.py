"""What the Explore page shows of the training rows: arrays, colours, hover texts, gallery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from puma_dash.core.first_order import predicted_change
from puma_dash.ui.answers import Classes, Values, answers_in
from puma_dash.ui.figures import thumbnails
from puma_dash.ui.panels import decimals
from puma_dash.ui.rules import Field, Text
from puma_dash.ui.state import Context, entry

if TYPE_CHECKING:
    import pandas as pd

    from puma_dash.workspace.drafts import Draft

OWN_COLUMNS = {
    *("image", "row", "psi", "label", "prediction", "confidence", "loss", "mark", "fit"),
    *("target", "residual"),
}
MARKS = ["none", "remove", "up-weight", "relabel"]


@dataclass(frozen=True, eq=False)
class Rows:
    """The training rows of a prepared project, as the cache holds them.

    Args:
        here: which project.
        psi: influence on the plain loss on validation (n,).
        value: that criterion now.
        answers: labels and predictions.
        loss: plain loss (n,).
        images: pictures (n, h, w) or (n, 3, h, w), or None.
        columns: name -> (values or codes (n,), categories or None) of everything else known of a row.
        texts: name -> texts of the columns that are neither.
        id: the column that names each row, where there is one.
    """

    here: Context
    psi: np.ndarray
    value: float
    answers: Classes | Values
    loss: np.ndarray
    images: np.ndarray | None
    columns: dict[str, tuple[np.ndarray, list[str] | None]]
    texts: dict[str, Text]
    id: str | None

    @classmethod
    def of(cls, here: Context) -> Rows:
        """The rows of the project that is open."""
        overview = here.overview
        valued = entry(here.index.values.get(main_psi(here), ""))
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
            answers_in(info, arrays),
            arrays["loss"],
            arrays.get("images"),
            {
                column_label(c["name"]): (arrays[f"column.{c['name']}"], c["categories"])
                for c in info["columns"]
            },
            {
                column_label(name): Text(arrays[f"text.{name}"], arrays[f"starts.{name}"])
                for name in info["texts"]
            },
            None if info["id"] is None else column_label(info["id"]),
        )

    @property
    def key(self) -> str:
        """What the rows were read from."""
        index = self.here.index
        return f"{index.overview}/{index.values[main_psi(self.here)]}"

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

    def known(self, rows: np.ndarray) -> np.ndarray:
        """Those of ``rows``, ascending, that the project has."""
        return rows[: np.searchsorted(rows, self.n)]

    def shown(self, name: str, chosen: np.ndarray) -> list[Any]:
        """What a column says of the rows ``chosen``."""
        if name in self.texts:
            return self.texts[name].of(chosen)
        values, categories = self.columns[name]
        if categories is not None:
            return [categories[code] if code >= 0 else "" for code in values[chosen]]
        return [int(value) if value.is_integer() else value for value in values[chosen].tolist()]

    def marks(self, draft: Draft) -> np.ndarray:
        """Codes (n,) into ``MARKS`` of what each row is marked for."""
        codes = np.zeros(self.n, dtype=np.int8)
        for code, marked in enumerate((draft.remove, draft.upweight.rows, draft.relabel.rows), 1):
            codes[marked] = code
        return codes

    def coordinates(self, label: str) -> tuple[np.ndarray | None, list[str]]:
        """Coordinates (n, 2) of that map and its axis titles; None where it has not been computed."""
        found = entry(self.here.index.embeddings.get(label, ""))
        return (None, []) if found is None else (found.arrays["xy"], found.info["axes"])


def main_psi(here: Context) -> str:
    """Where the index of the project has psi of the plain loss."""
    return f"psi/{here.task.criterion}"


@dataclass(frozen=True)
class Colouring:
    """One way to colour the map; psi of a criterion may still have to be computed."""

    rows: Rows
    criterion: str | dict[str, Any] | None = None
    values: np.ndarray | None = None
    categories: Sequence[str] | None = None
    key: str = ""
    """Of the cache entry, where the values may change under one name."""

    @property
    def sequential(self) -> bool:
        """Whether the values run from low to high, with no zero in between that means something."""
        if self.key:
            assert self.values is not None
            return bool(self.values.min() >= 0 or self.values.max() <= 0)
        return self.criterion is None and self.categories is None

    def load(self) -> tuple[np.ndarray | None, Sequence[str] | None]:
        """Values or codes (n,) and their categories; no values where not computed."""
        if self.criterion is None:
            return self.values, self.categories
        return psi_of(self.rows.here, self.criterion), None


def psi_of(here: Context, criterion: str | dict[str, Any]) -> np.ndarray | None:
    """psi (n,) of that criterion, or None where it has not been computed."""
    found = entry(here.index.values.get(f"psi/{criterion}", ""))
    return None if found is None else found.arrays["scores"]


def taken_in(here: Context) -> dict[str, tuple[str, np.ndarray]]:
    """Cache key and scores (n,) that users have taken in from files, by "scores: NAME"; low is suspicious."""
    found = {f"scores: {name}": (key, entry(key)) for name, key in here.index.scores.items()}
    return {name: (key, held.arrays["scores"]) for name, (key, held) in found.items() if held is not None}


def is_ranking(name: str) -> bool:
    """Whether a colour or a field of that name is a score to rank rows by."""
    return name.startswith(("psi of ", "scores: "))


def ranking(here: Context, rows: Rows) -> tuple[np.ndarray, str]:
    """Scores (n,) by which rows are ranked, and what they are: the map's colour, or psi of the plain loss."""
    colour = here.view.get("colour")
    if colour in (found := taken_in(here)):
        return found[colour][1], colour
    for name, facts in here.criteria.items():
        psi = psi_of(here, name) if colour == f"psi of {facts['label']}" else None
        if psi is not None:
            return psi, f"psi of {facts['label']}"
    return rows.psi, f"psi of {here.main['label']}"


def fields(here: Context, rows: Rows, draft: Draft) -> dict[str, Field]:
    """Everything that a rule can ask of a row."""
    found = {
        f"psi of {facts['label']}": Field(psi)
        for name, facts in here.criteria.items()
        if (psi := psi_of(here, name)) is not None
    }
    found |= {name: Field(scores) for name, (_, scores) in taken_in(here).items()}
    found |= rows.answers.fields()
    found["loss"] = Field(rows.loss)
    found["mark"] = Field(rows.marks(draft), MARKS)
    for name, (values, categories) in rows.columns.items():
        found[name] = Field(values, categories)
    for name, texts in rows.texts.items():
        found[name] = Field(texts)
    return found


@st.cache_resource(show_spinner=False, max_entries=4, hash_funcs={Rows: lambda rows: rows.key})
def ids(rows: Rows) -> dict[str, int]:
    """Row of each id."""
    assert rows.id is not None
    if rows.id in rows.texts:
        lines = rows.texts[rows.id].lines.tobytes().decode().split("\n")
        return dict(zip(lines, range(rows.n), strict=False))  # after the last line comes an empty one
    values, categories = rows.columns[rows.id]
    named = np.array(categories)[values] if categories is not None else values
    if np.issubdtype(named.dtype, np.floating) and np.array_equal(named, np.floor(named)):
        named = named.astype(np.int64)
    return dict(zip(map(str, named.tolist()), range(rows.n), strict=True))


def column_label(name: str) -> str:
    """What a column of the data is called: never like one of our own, whose numbers it would hide."""
    own = name in OWN_COLUMNS or is_ranking(name)
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
    for name, (key, scores) in taken_in(here).items():
        found[name] = Colouring(rows, values=scores, key=key)
    for name, field in rows.answers.fields().items():
        found[name] = Colouring(rows, values=np.asarray(field.values), categories=field.categories)
    found["loss"] = Colouring(rows, values=rows.loss)
    for name, (values, categories) in rows.columns.items():
        found[name] = Colouring(rows, values=values, categories=categories)
    return found


def forecast_now(rows: Rows, draft: Draft) -> float:
    """Predicted change of the plain loss on validation by the marks of ``draft``: -(1/n) sum_j e_j psi_j."""
    return _change(rows.psi, draft)


def forecasts_now(here: Context, draft: Draft) -> dict[str, tuple[float, float]]:
    """Value now and predicted change by the marks of ``draft``, of each criterion whose psi is computed."""
    found = {}
    for name in here.criteria:
        valued = entry(here.index.values.get(f"psi/{name}", ""))
        if valued is not None:
            found[name] = valued.info["criterion_value"], _change(valued.arrays["scores"], draft)
    return found


def _change(psi: np.ndarray, draft: Draft) -> float:
    """The sum of psi over removals and up-weights; what a new label does, psi cannot say."""
    marked = np.concatenate([draft.remove, draft.upweight.rows])
    e = np.concatenate([np.full(len(draft.remove), -1.0), draft.upweight.values])
    return float(predicted_change(psi, marked, e))


def hover_texts(rows: Rows, some: np.ndarray) -> list[str]:
    """What to say of each of ``some`` rows under the mouse."""
    scores, name = ranking(rows.here, rows)
    each = zip(some, rows.answers.told(some), scores[some], strict=True)
    return [f"row {i:,}\n{told}\n{name} {s:+.3f}" for i, told, s in each]


def marks_of(rows: Rows, chosen: np.ndarray, draft: Draft) -> list[str]:
    """What each of the rows ``chosen`` is marked for, in words."""
    words = np.where(np.isin(chosen, draft.remove), "remove", "").astype(object)
    for marks, word in (
        (draft.upweight, lambda e: f"weight {1 + e:g}"),
        (draft.relabel, lambda new: f"{rows.here.task.target} {rows.answers.words(np.array([new]))[0]}"),
    ):
        _, at, found = np.intersect1d(chosen, marks.rows, assume_unique=True, return_indices=True)
        values, codes = np.unique(marks.values[found], return_inverse=True)
        words[at] = np.array([word(value) for value in values], dtype=object)[codes]
    return words.tolist()


def gallery(rows: Rows, chosen: np.ndarray, draft: Draft) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A table of the rows ``chosen``, with thumbnails of pictures, and how to show its columns."""
    import pandas as pd

    data: dict[str, Any] = {}
    columns: dict[str, Any] = {}
    if rows.images is not None:
        data["image"] = thumbnails(rows.images[chosen])
        columns["image"] = st.column_config.ImageColumn("Image", width="small")
    data["row"] = chosen
    scores, ranked_by = ranking(rows.here, rows)
    data["psi"] = scores[chosen]
    answered = rows.answers.columns(chosen)
    data |= answered
    data["loss"] = rows.loss[chosen]
    data["mark"] = marks_of(rows, chosen, draft)
    for name in (*rows.columns, *rows.texts):
        data[name] = rows.shown(name, chosen)
    shown_as = {"psi": "psi" if ranked_by.startswith("psi of ") else "score", "loss": "loss"}
    for name, title in shown_as.items():
        told = ranked_by if name == "psi" else None
        columns[name] = st.column_config.NumberColumn(title, format=decimals(data[name]), help=told)
    columns["mark"] = st.column_config.TextColumn("mark", width=90)
    for name in (name for name, values in answered.items() if not isinstance(values, list)):
        columns[name] = st.column_config.NumberColumn(name, format="%.4g")
    if "confidence" in answered:
        data["confidence"] = 100 * answered["confidence"]
        columns["confidence"] = st.column_config.ProgressColumn(
            "confidence", format="%.0f %%", min_value=0, max_value=100
        )
    return pd.DataFrame(data), columns
