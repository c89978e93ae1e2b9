"""What is wrong, and where: the slices of the validation rows by evidence, and the findings as sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from puma_dash.core.evaluation import estimates
from puma_dash.core.evaluation.estimates import Estimate, share_interval
from puma_dash.ui.health import Held, Slice, confusions, figures, kept, worst_cell
from puma_dash.ui.text import percent

if TYPE_CHECKING:
    import pandas as pd

FEW = 20
"""Slices of fewer rows are shown but not ranked: one row moves their accuracy by 5 points or more."""


@st.cache_resource(show_spinner=False, max_entries=4, hash_funcs={Held: lambda held: held.key})
def slices(held: Held) -> list[Slice]:
    """Every label, prediction and column value with its rows; what covers all rows is none."""
    found = {f"label = {name}": held.target == k for k, name in enumerate(held.classes)}
    found |= {f"prediction = {name}": held.predicted == k for k, name in enumerate(held.classes)}
    for column in held.columns:
        found |= {f"{column} = {name}": rows for name, rows in held.parts(column).items()}
    return [Slice(name, np.flatnonzero(rows)) for name, rows in found.items() if 0 < rows.sum() < held.n]


@kept
def slice_table(held: Held) -> pd.DataFrame:
    """One line per slice, those whose errors chance explains least first; ``slice`` numbers ``slices``.

    Columns: slice, name, n, accuracy, low, high, nll, difference (of accuracy to the rest), p, corrected
    (Holm, over all ranked slices). Slices of fewer than ``FEW`` rows come last, without a p-value.
    """
    import pandas as pd

    found, wrong = slices(held), ~held.correct
    n = np.array([len(each.rows) for each in found], dtype=np.int64)
    errors = np.array([wrong[each.rows].sum() for each in found], dtype=np.int64)
    total, ranked = int(wrong.sum()), n >= FEW
    low, high = share_interval(n - errors, n)
    p, corrected = np.full((2, len(found)), np.nan)
    p[ranked] = estimates.chance_of_errors(errors[ranked], n[ranked], total, held.n)
    corrected[ranked] = estimates.holm(p[ranked])
    table = pd.DataFrame(
        {
            "slice": np.arange(len(found)),
            "name": [each.name for each in found],
            "n": n,
            "accuracy": 1 - errors / n,
            "low": low,
            "high": high,
            "nll": [float(held.loss[each.rows].mean(dtype=np.float64)) for each in found],
            "difference": (total - errors) / (held.n - n) - errors / n,
            "p": p,
            "corrected": corrected,
        }
    )
    return table.sort_values(["p", "difference"], kind="stable", na_position="last").reset_index(drop=True)


def interval(found: Estimate, as_percent: bool = False) -> str:
    """The interval in figures."""
    if np.isnan(found.value):
        return "no interval"
    scale, digits, unit = (100, 1, " %") if as_percent else (1, 3, "")
    return f"{scale * found.low:.{digits}f} to {scale * found.high:.{digits}f}{unit}"


def p_text(p: float) -> str:
    """A p-value as a person would read it."""
    return "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".")


def findings(held: Held) -> list[str]:
    """What is wrong, the most important first, as plain text."""
    known, counts = figures(held), confusions(held)
    worst_error = worst_cell(counts)
    accuracy = known["accuracy"]
    found = f"Accuracy {percent(accuracy.value)} ({interval(accuracy, True)}, n = {held.n:,})."
    if worst_error is None:
        found += " No errors."
    else:
        true, predicted = worst_error
        found += (
            f" Most errors: {held.classes[true]} taken for {held.classes[predicted]} "
            f"({counts[true, predicted]:,} of {counts[true].sum():,})."
        )
    return [found, _standing_out(held), _calibrated(held)]


def _standing_out(held: Held) -> str:
    """Which slice is worse than chance explains."""
    table = slice_table(held)
    ranked = table[table["p"].notna()]
    if ranked.empty or ranked["corrected"].iloc[0] > 0.05:
        return "No slice has more errors than chance explains."
    first = ranked.iloc[0]
    rest = first["accuracy"] - first["difference"]
    return (
        f"Worst slice: {first['name']}, {percent(first['accuracy'])} right ({first['n']:,} rows) against "
        f"{percent(rest)} of the rest (corrected {p_text(first['corrected'])})."
    )


def _calibrated(held: Held) -> str:
    """Whether confidence can be believed, on the whole."""
    ece = figures(held)["ece"]
    gap = float(held.confidence.mean(dtype=np.float64)) - float(held.correct.mean())
    if ece.low == 0:
        return f"Calibration: an ECE of {ece.value:.3f} is within what chance explains."
    kind = "over-confident" if gap > 0 else "under-confident"
    return (
        f"Calibration: on the whole {kind} by {100 * abs(gap):.1f} points; the ECE of {ece.value:.3f} is "
        "more than chance explains."
    )
