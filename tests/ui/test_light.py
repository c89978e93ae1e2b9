"""What the pages import stays light: torch and its kin are for the worker."""

import subprocess
import sys

MODULES = (
    "bootstrap",
    "state",
    "panels",
    "explore",
    "tray",
    "forecast",
    "gallery",
    "story",
    "explore_map",
    "patching",
    "compare",
    "report",
    "history",
    "figures",
    "gesture",
    "text",
    "guide",
    "method_texts",
)
HEAVY = ("torch", "sklearn", "umap", "numba", "scipy", "torchmetrics", "statsmodels", "plotly.express")


def test_pages_import_nothing_heavy():
    imports = "; ".join(f"import puma_dash.ui.{name}" for name in MODULES)
    script = f"import sys; import puma_dash; {imports}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
