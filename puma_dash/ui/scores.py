"""Scores as files on the Explore page: ours for other tools, theirs to colour the map, select and rank by."""

from __future__ import annotations

import io
import re
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from puma_dash.core.reading import READ, scores_in
from puma_dash.core.saved import ROW, Ids
from puma_dash.core.types import ProjectError
from puma_dash.ui import text
from puma_dash.ui.explore import Rows, fields, ids, is_ranking
from puma_dash.workspace.drafts import Draft
from puma_dash.workspace.places import title
from puma_dash.workspace.store import Store, home, key

if TYPE_CHECKING:
    import pandas as pd

    from puma_dash.ui.state import Context

LONGEST_NAME = 40
LARGEST_FILE = 100
"""In MB: some million rows."""


def scores(here: Context, rows: Rows) -> None:
    """Downloads the scores of all rows, and takes in those of another tool under a name."""
    st.markdown(f"**Download** psi of all {rows.n:,} rows")
    with st.container(horizontal=True, gap="xsmall"):
        for kind in ("csv", "parquet"):
            st.download_button(
                kind.upper() if kind == "csv" else kind.capitalize(),
                partial(written, here, rows, kind),
                f"{text.file_name(title(here.source))}-scores.{kind}",
                icon=":material/download:",
                key=f"scores_{kind}",
                width="stretch",
                on_click="ignore",
            )
    name_column = "" if rows.id is None else f" or {rows.id}"
    file = st.file_uploader(
        "Take in scores of another tool",
        [suffix[1:] for suffix in READ],
        key="scores_file",
        max_upload_size=LARGEST_FILE,
        help=f"A score for each row: with a column {ROW} (from 0){name_column}, or in the order of the rows.",
    )
    if file is None:
        return
    name = st.text_input("Called", Path(file.name).stem[:LONGEST_NAME], max_chars=LONGEST_NAME).strip()
    column = st.text_input("Column of the scores, where the file has several", key="scores_column").strip()
    negate = st.toggle("High scores are the suspicious ones", key="scores_negate")

    if st.button("Take in", key="scores_take", type="primary", width="stretch", disabled=not name):
        try:
            take_in(here, rows, name, file.name, file.getvalue(), column or None, negate)
        except ProjectError as error:
            st.error(text.escape(str(error)))
        else:
            st.rerun()  # the page, which reads the index anew


def take_in(
    here: Context, rows: Rows, name: str, file: str, data: bytes, column: str | None, negate: bool
) -> None:
    """Keeps the scores in ``data``, the content of a file of that name, and colours the map by them.

    Raises:
        ProjectError: they are not one finite score for each row of this project.
    """
    named = None if rows.id is None else Ids(rows.id, np.array(list(ids(rows)), dtype=object))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / re.sub(r"[^\w.-]", "_", file)[-80:]
        path.write_bytes(data)
        values, used = scores_in(path, rows.n, named, column)
    values = -values if negate else values
    entry = key("scores", here.index.fingerprint, values)
    facts = {"file": file, "column": used, "negated": negate}
    Store(home() / "cache").save(entry, {"scores": values}, facts)
    here.index.with_scores(name, entry)
    here.keep("colour", f"scores: {name}")


def written(here: Context, rows: Rows, kind: str) -> bytes:
    """Row, id where there is one, and every score known of each row, as CSV or Parquet."""
    frame = table(here, rows)
    if kind == "csv":
        return frame.to_csv(index=False).encode()
    held = io.BytesIO()
    frame.to_parquet(held, index=False)
    return held.getvalue()


def table(here: Context, rows: Rows) -> pd.DataFrame:
    """What ``written`` writes; psi of the plain loss is called psi, so that it is the one read back."""
    import pandas as pd

    found: dict[str, object] = {ROW: np.arange(rows.n)}
    if rows.id is not None:
        found[rows.id] = list(ids(rows))[: rows.n]
    found["psi"] = rows.psi
    main = f"psi of {here.main['label']}"
    for name, field in fields(here, rows, Draft()).items():
        if is_ranking(name) and name != main:
            found[name] = np.asarray(field.values)
    return pd.DataFrame(found)
