"""The gallery of the Explore page: the selected rows, one by one."""

import numpy as np
import streamlit as st

from puma_dash.ui.explore import Rows, gallery
from puma_dash.ui.state import Context
from puma_dash.workspace.drafts import Draft

GALLERY_LIMIT = 60


def details(here: Context, rows: Rows, draft: Draft) -> None:
    """The selected rows, most harmful first."""
    st.subheader("Selected rows")
    if not len(draft.selection):
        st.caption("Nothing is selected.")
        return
    chosen = draft.selection
    chosen = chosen[np.argsort(rows.psi[chosen], kind="stable")]
    st.caption(
        f"{min(len(chosen), GALLERY_LIMIT):,} shown of {len(chosen):,} selected of {rows.n:,}, "
        "most harmful first."
    )
    frame, columns = gallery(rows, chosen[:GALLERY_LIMIT], draft)
    st.dataframe(
        frame, hide_index=True, column_config=columns, row_height=52 if rows.images is not None else None
    )
    st.download_button(
        f"Export {len(chosen):,} row numbers",
        "\n".join(["row", *map(str, draft.selection.tolist())]),
        f"{here.source.replace(':', '-')}-selected.csv",
        "text/csv",
        icon=":material/download:",
    )
