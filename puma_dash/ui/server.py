"""Streamlit's command line, with a thread that imports what the first page needs while a browser starts.

``python -m puma_dash.ui.server`` takes what ``streamlit`` takes. Without it the first visitor waits a second
longer, for pandas and SQLAlchemy most of all.
"""

from __future__ import annotations

import importlib
from threading import Thread

FIRST_PAGE = (
    "puma_dash.ui.bootstrap",
    "puma_dash.ui.explore_map",
    "puma_dash.ui.tray",
    "puma_dash.ui.gallery",
    "puma_dash.ui.forecast",
    "puma_dash.workspace.ledger",
    "pandas.io.formats.style",
)


def main() -> None:
    """Runs the command and exits."""
    from streamlit.web import cli

    Thread(target=lambda: [importlib.import_module(name) for name in FIRST_PAGE], daemon=True).start()
    cli.main(prog_name="streamlit")


if __name__ == "__main__":
    main()
