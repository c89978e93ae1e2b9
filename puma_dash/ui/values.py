"""What the Health page finds out about the validation rows of a regression: figures, slices, residuals."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from puma_dash.core.evaluation import estimates, residuals
from puma_dash.core.evaluation.estimates import Estimate
from puma_dash.ui.findings import FEW, interval, p_text
from puma_dash.ui.health import HeldRows, Slice, held_rows, overview_of
from puma_dash.ui.panels import plain_number, signed

if TYPE_CHECKING:
    import pandas as pd

    from puma_dash.ui.state import Context

LARGEST = 0.05
"""Share of the rows that are called the largest errors."""


@dataclass(frozen=True, eq=False, kw_only=True)
class HeldValues(HeldRows):
    """The validation rows of a regression; targets and predictions are (m, k).

    Args:
        outputs: names (k,).
    """

    outputs: list[str]

    @classmethod
    def of(cls, here: Context) -> HeldValues:
        """The rows of the project that is open."""
        names = ("target", "predicted", "loss")
        return cls(outputs=overview_of(here).info["classes"], **held_rows(here, names))

    @property
    def residual(self) -> np.ndarray:
        """Prediction - target (m, k)."""
        return self.predicted.astype(np.float64) - self.target

    @property
    def error(self) -> np.ndarray:
        """The size of the residuals, their mean over the outputs (m,)."""
        return np.abs(self.residual).mean(1)


kept = st.cache_data(show_spinner=False, max_entries=32, hash_funcs={HeldValues: lambda held: held.key})


@kept
def figures(held: HeldValues) -> dict[str, Estimate]:
    """RMSE, MAE and R² of all rows, with bootstrap intervals."""
    rows = residuals.per_row(held.predicted, held.target)
    return estimates.of_means(residuals.contributions(rows), residuals.from_means)


@kept
def rmse(held: HeldValues, rows: np.ndarray) -> Estimate:
    """RMSE of some rows, given as bool (m,) or numbers."""
    found = estimates.mean(held.loss[rows])
    value, low, high = (max(0.0, square) ** 0.5 for square in (found.value, found.low, found.high))
    return Estimate(value, low, high, found.n)


@kept
def bias(held: HeldValues, output: int) -> Estimate:
    """The mean residual of one output."""
    return estimates.mean(held.residual[:, output])


def largest(held: HeldValues) -> Slice:
    """The rows with the largest errors."""
    count = max(1, round(LARGEST * held.n))
    return Slice(f"the {count:,} largest errors", np.sort(np.argsort(-held.error, kind="stable")[:count]))


@kept
def worst(held: HeldValues, column: str) -> tuple[str, Estimate]:
    """The value of ``column`` whose rows are predicted worst, and their RMSE."""
    found = {name: rmse(held, rows) for name, rows in held.parts(column).items()}
    name = max(found, key=lambda part: found[part].value)
    return name, found[name]


@st.cache_resource(show_spinner=False, max_entries=4, hash_funcs={HeldValues: lambda held: held.key})
def slices(held: HeldValues) -> list[Slice]:
    """Quarters of the predictions and every value of a column, with their rows; what covers all is none."""
    found = {}
    for k, name in enumerate(held.outputs):
        of = "prediction" if len(held.outputs) == 1 else f"prediction of {name}"
        values = held.predicted[:, k]
        edges = np.unique(np.quantile(values, [0, 0.25, 0.5, 0.75, 1]))
        for i, (low, high) in enumerate(pairwise(edges)):
            above = values >= low if i == 0 else values > low
            found[f"{of} = {low:.4g} to {high:.4g}"] = above & (values <= high)
    for column in held.columns:
        found |= {f"{column} = {name}": rows for name, rows in held.parts(column).items()}
    return [Slice(name, np.flatnonzero(rows)) for name, rows in found.items() if 0 < rows.sum() < held.n]


@kept
def slice_table(held: HeldValues) -> pd.DataFrame:
    """One line per slice, those whose errors chance explains least first; ``slice`` numbers ``slices``.

    Columns: slice, name, n, rmse, low, high, difference (of RMSE to the rest), p (Mann-Whitney, one-sided:
    errors inside are larger than outside), corrected (Holm, over all ranked slices). Slices of fewer than
    ``FEW`` rows come last, without a p-value.
    """
    import pandas as pd
    from scipy.stats import mannwhitneyu

    found, lines = slices(held), []
    for number, each in enumerate(found):
        inside = np.zeros(held.n, dtype=bool)
        inside[each.rows] = True
        own = rmse(held, each.rows)
        rest = float(np.sqrt(held.loss[~inside].mean(dtype=np.float64)))
        p = np.nan
        if len(each.rows) >= FEW:
            p = float(mannwhitneyu(held.error[inside], held.error[~inside], alternative="greater").pvalue)
        lines.append((number, each.name, own.n, own.value, own.low, own.high, own.value - rest, p))
    names = ["slice", "name", "n", "rmse", "low", "high", "difference", "p"]
    table = pd.DataFrame(lines, columns=names)
    ranked = table["p"].notna()
    table["corrected"] = np.nan
    table.loc[ranked, "corrected"] = estimates.holm(table.loc[ranked, "p"])
    return table.sort_values("p", kind="stable", na_position="last").reset_index(drop=True)


def findings(held: HeldValues) -> list[str]:
    """What is wrong, the most important first, as plain text."""
    known = figures(held)
    error, explained = known["rmse"], known["r2"]
    first = f"RMSE {plain_number(error.value)} ({interval(error)}, n = {held.n:,})"
    if not np.isnan(explained.value):
        first += f"; R² {explained.value:.2f} ({explained.low:.2f} to {explained.high:.2f})"
    return [f"{first}.", _standing_out(held), _sides(held)]


def _standing_out(held: HeldValues) -> str:
    """Which slice is worse than chance explains."""
    table = slice_table(held)
    if table.empty or np.isnan(table["corrected"].iloc[0]) or table["corrected"].iloc[0] > 0.05:
        return "No slice is predicted worse than chance explains."
    first = table.iloc[0]
    return (
        f"Worst slice: {first['name']}, RMSE {plain_number(first['rmse'])} ({first['n']:,} rows) against "
        f"{plain_number(first['rmse'] - first['difference'])} of the rest (corrected "
        f"{p_text(first['corrected'])})."
    )


def _sides(held: HeldValues) -> str:
    """Whether predictions are too high or too low on the whole."""
    told = []
    for k, name in enumerate(held.outputs):
        off = bias(held, k)
        of = "" if len(held.outputs) == 1 else f" of {name}"
        if off.low <= 0 <= off.high:
            told.append(f"the mean residual{of}, {signed(off.value, 3)}, is within what chance explains")
        else:
            side = "high" if off.value > 0 else "low"
            told.append(
                f"predictions{of} are {plain_number(abs(off.value))} too {side} on average "
                f"({signed(off.low, 3)} to {signed(off.high, 3)})"
            )
    return f"On the whole {'; '.join(told)}."


def bins(held: HeldValues, output: int) -> dict[str, np.ndarray]:
    """Rows by residual of one output: ``low``, ``high`` and ``before`` (b,)."""
    values = held.residual[:, output]
    edges = residuals.residual_edges(values)
    counts = np.histogram(np.clip(values, *edges[[0, -1]]), edges)[0]
    return {"low": edges[:-1], "high": edges[1:], "before": counts}


def bin_slice(held: HeldValues, output: int, number: int) -> Slice:
    """The rows of one bin of the residuals."""
    known = bins(held, output)
    edges = np.append(known["low"], known["high"][-1])
    values = np.clip(held.residual[:, output], *edges[[0, -1]])
    at = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(known["low"]) - 1)
    of = "" if len(held.outputs) == 1 else f" of {held.outputs[output]}"
    name = f"residual{of} {known['low'][number]:.4g} to {known['high'][number]:.4g}"
    return Slice(name, np.flatnonzero(at == number))
