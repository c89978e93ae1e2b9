"""What the pages share: figures, gestures, session state, text."""

from pathlib import Path

SERVED = "PUMA_DASH_PROJECT"
"""Environment variable with the demo or module:factory that the server was started on."""

PRESENT = "PUMA_DASH_PRESENT"
"""Environment variable that is there where the server was started with the guided tour."""


def app_folder() -> Path:
    """The folder of app.py, pages, assets and .streamlit: ``_app`` in an installation, else the checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_app"
    return installed if installed.is_dir() else package.parent
