"""The charts of a regression before and after, from the record of a comparison: for page and report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from puma_dash.ui.values_figures import (
    READ_MOVED,
    READ_RESIDUALS,
    answers_alt,
    answers_figure,
    residuals_alt,
    residuals_figure,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

HEADINGS = {"answers": "Predictions", "residuals": "Residuals"}


def values_chart(comparison: dict[str, Any], kind: str, output: str) -> tuple[go.Figure, str, str]:
    """Figure, alternative text and how to read it, of the "answers" or "residuals" of one output."""
    import pandas as pd

    split, n = comparison["split"], comparison["n"]
    table = pd.DataFrame(**comparison[kind])
    table = table[table["output"] == output]
    if kind == "residuals":
        bins = {name: table[name].to_numpy() for name in ("low", "high", "before", "after")}
        figure = residuals_figure(
            bins, title=f"Prediction - target on {split}", subtitle=f"n = {n:,} rows", output=output
        )
        return figure, residuals_alt(bins), READ_RESIDUALS
    series = [table[name].to_numpy() for name in ("target", "before", "after")]
    drawn = f"{len(table):,} drawn of {n:,} rows" if len(table) < n else f"n = {n:,} rows"
    figure = answers_figure(
        *series, title=f"Predictions against targets on {split}", subtitle=drawn, output=output
    )
    return figure, answers_alt(*series), READ_MOVED
