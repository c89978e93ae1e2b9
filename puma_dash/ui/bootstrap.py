"""The first line of every page: its title, its frame and the project it is about."""

from __future__ import annotations

import streamlit as st

from puma_dash._version import __version__
from puma_dash.core.types import ProjectError
from puma_dash.ui import app_folder, tour
from puma_dash.ui.state import Context, context, jobs, ledger
from puma_dash.ui.text import escape
from puma_dash.workspace import places

LOGO = str(app_folder() / "assets" / "logo.svg")
SIDEBAR = 220
"""Its width in pixels; the pages need the rest."""
PAGES = (
    ("app.py", "Workspace", ":material/folder_open:"),
    ("pages/1_Health.py", "Health", ":material/monitor_heart:"),
    ("pages/2_Explore.py", "Explore", ":material/scatter_plot:"),
    ("pages/3_Patch.py", "Patch", ":material/healing:"),
    ("pages/4_Compare.py", "Compare", ":material/difference:"),
    ("pages/5_History.py", "History", ":material/history:"),
    ("pages/6_Methods.py", "Methods", ":material/compare_arrows:"),
    ("pages/7_Guide.py", "Guide", ":material/menu_book:"),
)


def bootstrap(title: str) -> Context | None:
    """The context of the page called ``title``, after drawing its frame; may run any number of times."""
    st.set_page_config(f"{title} · PUMA Dash", LOGO, layout="wide", initial_sidebar_state=SIDEBAR)
    st.logo(LOGO, size="large")
    here = context()
    jobs()
    try:
        ledger()
    except ProjectError as error:
        st.error(escape(str(error)), icon=":material/database_off:")
        st.stop()
    with st.sidebar:
        for path, label, icon in PAGES:
            st.page_link(path, label=label, icon=icon, query_params=here.query if here else None)
        st.divider()
        if here is None:
            st.caption("No project is open.")
        else:
            overview = here.overview
            name = overview.info["name"] if overview else places.title(here.source)
            versions = ledger().versions(here.source)
            current = " (current)" if here.version == versions.current else ""
            st.markdown(f"**{escape(name)}**  \n{versions.name(here.version)}{current}")
            draft = here.draft()
            if draft.marked:
                counts = {"remove": len(draft.remove), "up-weight": len(draft.upweight)}
                counts["relabel"] = len(draft.relabel)
                said = ", ".join(f"{count:,} to {kind}" for kind, count in counts.items() if count)
                st.caption(f"Draft: {said}.")
        st.caption(f"PUMA Dash {__version__}")
    if here is not None and here.overview is not None and tour.wanted():
        tour.show(here, title)
    return here
