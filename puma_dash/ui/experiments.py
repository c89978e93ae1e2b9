"""What an experiment found, on the disk: a page to read, tables, and the settings it was run with."""

from __future__ import annotations

import dataclasses
import json
import math
import platform
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from plotly.offline import get_plotlyjs

from puma_dash._version import __version__
from puma_dash.ui.experiment_figures import FIGURES
from puma_dash.ui.text import with_half

if TYPE_CHECKING:
    import pandas as pd

    from puma_dash.core.experiments import Experiment, Result

TEMPLATE = Path(__file__).with_name("experiment.html.jinja")
SCRIPT = "plotly.min.js"


def write(key: str, experiment: Experiment, found: Result, seconds: float, folder: Path) -> list[Path]:
    """The files of the experiment ``key``, written to ``folder``: KEY.html, KEY.json and KEY-N.csv.

    The page draws with ``plotly.min.js`` beside it, which all pages of a folder share.
    """
    from jinja2 import Environment, StrictUndefined

    folder.mkdir(parents=True, exist_ok=True)
    script = folder / SCRIPT
    if not script.exists():
        script.write_text(get_plotlyjs(), "utf-8")
    settings = {
        "experiment": experiment.label,
        "source": experiment.reference,
        "settings": dataclasses.asdict(experiment),
        "seeds": list(range(experiment.seeds)),
        "seconds": round(seconds, 1),
        "told": found.told,
        "versions": {"puma-dash": __version__, "python": platform.python_version()}
        | {name: version(name) for name in ("torch", "numpy", "scikit-learn")},
    }
    tables = {f"{key}-{k}.csv": table for k, table in enumerate(found.tables.values(), 1)}
    for name, table in tables.items():
        table.to_csv(folder / name, index=False)
    (folder / f"{key}.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    figure = FIGURES[key](found).update_layout(font_family="system-ui, sans-serif", autosize=True)
    figure.update_xaxes(automargin=True).update_yaxes(automargin=True)
    drawn = figure.to_html(include_plotlyjs=False, full_html=False, config={"displayModeBar": False})
    shown: dict[str, Any] = {
        "experiment": experiment,
        "about": (type(experiment).__doc__ or "").strip(),
        "script": SCRIPT,
        "figure": drawn,
        "told": found.told,
        "tables": {
            title: readable(table).to_html(index=False, border=0) for title, table in found.tables.items()
        },
        "settings": settings,
    }
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = environment.from_string(TEMPLATE.read_text("utf-8")).render(**shown)
    (folder / f"{key}.html").write_text(page, "utf-8")
    return [folder / f"{key}.html", folder / f"{key}.json", *(folder / name for name in tables)]


def picture(key: str, arrays: dict[str, Any], tables: dict[str, pd.DataFrame]) -> Any:
    """The picture of the experiment ``key``, from what was kept of it."""
    found: Any = SimpleNamespace(arrays=arrays, tables=tables)
    return FIGURES[key](found)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A summary, each number with its interval in one cell."""
    import pandas as pd

    columns = {}
    for name in table.columns:
        if name.endswith(" ±"):
            continue
        columns[name] = table[name]
        if pd.api.types.is_float_dtype(table[name]):
            halves = table.get(f"{name} ±", [math.nan] * len(table))
            columns[name] = [with_half(value, half) for value, half in zip(table[name], halves, strict=True)]
    return pd.DataFrame(columns)
