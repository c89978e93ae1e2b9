"""What the Health page shows of the validation rows: figures, gaps, confusions, bins; the tails of psi."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from puma_dash.core.evaluation import calibration, estimates
from puma_dash.core.evaluation.estimates import Estimate
from puma_dash.ui.explore import column_label

if TYPE_CHECKING:
    from puma_dash.ui.state import Context
    from puma_dash.workspace.store import Entry

MOST_CLASSES = 15
"""More classes than these do not fit into a confusion matrix that can be read and clicked."""
FAR = 3.0
"""Robust standard deviations beyond which psi counts as a tail."""


@dataclass(frozen=True, eq=False, kw_only=True)
class HeldRows:
    """The validation rows of a prepared project, as the cache holds them, whatever they are asked.

    Args:
        key: what they were read from.
        target: labels (m,), or values (m, k).
        predicted: predicted classes (m,), or values (m, k).
        loss: plain loss (m,).
        columns: name -> (values or codes (m,), categories or None) of everything else known of a row.
        groups: those of the columns by which groups are compared.
    """

    key: str
    target: np.ndarray
    predicted: np.ndarray
    loss: np.ndarray
    columns: dict[str, tuple[np.ndarray, list[str] | None]]
    groups: list[str]

    @property
    def n(self) -> int:
        """Number of validation rows."""
        return len(self.target)

    def parts(self, column: str) -> dict[str, np.ndarray]:
        """The rows of each value of a column, as bool (m,); of a column of numbers, of each quarter."""
        values, categories = self.columns[column]
        if categories is not None:
            found = {name: values == code for code, name in enumerate(categories)}
            missing = values < 0
        else:
            missing = np.isnan(values)
            edges = np.unique(np.nanquantile(values, [0, 0.25, 0.5, 0.75, 1])) if not missing.all() else ()
            found = {}
            for i, (low, high) in enumerate(pairwise(edges)):
                above = values >= low if i == 0 else values > low
                found[f"{low:.4g} to {high:.4g}"] = above & (values <= high)
        found["missing"] = missing
        return {name: rows for name, rows in found.items() if rows.any()}


@dataclass(frozen=True, eq=False, kw_only=True)
class Held(HeldRows):
    """The validation rows of a classifier.

    Args:
        classes: names.
        confidence: of the prediction (m,).
        brier: squared distance of the probabilities from the truth (m,).
    """

    classes: list[str]
    confidence: np.ndarray
    brier: np.ndarray

    @classmethod
    def of(cls, here: Context) -> Held:
        """The rows of the project that is open."""
        own = ("target", "predicted", "confidence", "loss", "brier")
        return cls(classes=overview_of(here).info["classes"], **held_rows(here, own))

    @property
    def correct(self) -> np.ndarray:
        """Bool (m,): which predictions are right."""
        return self.predicted == self.target


def overview_of(here: Context) -> Entry:
    """What is known of the project, which is prepared where this is asked."""
    assert here.overview is not None
    return here.overview


def held_rows(here: Context, names: tuple[str, ...]) -> dict[str, Any]:
    """The fields of ``HeldRows``, and the arrays ``names``, of the project that is open."""
    info, arrays = overview_of(here).info, overview_of(here).arrays
    columns = {
        column_label(c["name"]): (arrays[f"validation.column.{c['name']}"], c["categories"])
        for c in info["validation_columns"]
    }
    groups = [column_label(name) for name in info["groups"]]
    own = {name: arrays[f"validation.{name}"] for name in names}
    known = [g for g in groups if g in columns]
    return {"key": here.index.overview, "columns": columns, "groups": known, **own}


@dataclass(frozen=True)
class Slice:
    """Validation rows that share something.

    Args:
        name: what they share, such as "label = 8".
        rows: their numbers.
    """

    name: str
    rows: np.ndarray


# --- figures --------------------------------------------------------------------------

kept = st.cache_data(show_spinner=False, max_entries=32, hash_funcs={Held: lambda held: held.key})


@kept
def figures(held: Held) -> dict[str, Estimate]:
    """Accuracy, NLL, Brier score, ECE and smooth ECE of all rows."""
    correct, confidence = held.correct, held.confidence
    return {
        "accuracy": estimates.share(correct),
        "nll": estimates.mean(held.loss),
        "brier": estimates.mean(held.brier),
        "ece": calibration.calibration_error(confidence, correct),
        "smooth_ece": calibration.smooth_calibration_error(confidence, correct),
    }


@kept
def worst(held: Held, column: str | None) -> tuple[str, Estimate]:
    """The value of ``column`` (None: the class) whose rows are right least often, and how often."""
    if column is None:
        parts = {name: held.target == k for k, name in enumerate(held.classes)}
    else:
        parts = held.parts(column)
    found = {name: estimates.share(held.correct[rows]) for name, rows in parts.items() if rows.any()}
    name = min(found, key=lambda part: found[part].value)
    return name, found[name]


@kept
def parity_gaps(held: Held, column: str, positive: int) -> tuple[Estimate, Estimate]:
    """Demographic-parity and equalized-odds gap between the groups of ``column``, of the predicted class.

    The largest difference between groups of how often ``positive`` is predicted: among all rows, and among
    those that are positive or among the others, whichever is larger (Hardt, Price & Srebro 2016). Rows whose
    group is missing count in none.
    """
    parts = held.parts(column)
    parts.pop("missing", None)
    chosen, truth = held.predicted == positive, held.target == positive
    kinds = np.array([[(rows & kind).sum() for rows in parts.values()] for kind in (truth, ~truth)])
    hits = np.array([[(rows & kind & chosen).sum() for rows in parts.values()] for kind in (truth, ~truth)])
    parity = estimates.rate_gap(hits.sum(0, keepdims=True), kinds.sum(0, keepdims=True))
    return parity, estimates.rate_gap(hits, kinds)


# --- confusions -----------------------------------------------------------------------


def confusions(held: Held) -> np.ndarray:
    """Counts (c, c): row k holds the rows of class k by what was predicted."""
    c = len(held.classes)
    return np.bincount(held.target.astype(np.int64) * c + held.predicted, minlength=c * c).reshape(c, c)


def most_confused(counts: np.ndarray, most: int = MOST_CLASSES) -> np.ndarray:
    """The classes (k,) to show, in order: all, or those in most errors where there are too many."""
    errors = counts - np.diag(np.diag(counts))
    total = errors.sum(0) + errors.sum(1)
    return np.sort(np.argsort(-total, kind="stable")[:most])


def worst_cell(counts: np.ndarray) -> tuple[int, int] | None:
    """The error that is made most often, as (class, predicted); of equals that of the rarer class."""
    errors = counts - np.diag(np.diag(counts))
    if not errors.any():
        return None
    shares = errors / np.maximum(counts.sum(1, keepdims=True), 1)
    cells = np.lexsort((-shares.ravel(), -errors.ravel()))
    true, predicted = np.unravel_index(cells[0], counts.shape)
    return int(true), int(predicted)


def cell(held: Held, true: int, predicted: int) -> Slice:
    """The rows of one class with one prediction."""
    names = held.classes
    said = (
        f"{names[true]} taken for {names[predicted]}" if true != predicted else f"{names[true]}, rightly so"
    )
    return Slice(said, np.flatnonzero((held.target == true) & (held.predicted == predicted)))


# --- calibration ----------------------------------------------------------------------


def calibration_parts(held: Held) -> dict[str, np.ndarray | None]:
    """What the reliability diagram can be drawn of: all rows, each predicted class, each group."""
    found: dict[str, np.ndarray | None] = {f"all rows ({held.n:,})": None}
    for k, name in enumerate(held.classes):
        rows = held.predicted == k
        if rows.any():
            found[f"predicted {name} ({rows.sum():,})"] = rows
    for column in held.groups:
        for name, rows in held.parts(column).items():
            found[f"{column} = {name} ({rows.sum():,})"] = rows
    return found


@kept
def reliability(
    held: Held, part: str, binning: str
) -> tuple[np.ndarray, calibration.Bins, tuple[np.ndarray, np.ndarray]]:
    """Edges, bins ("equal width" or "equal mass") and consistency band of a part of the rows."""
    rows = calibration_parts(held)[part]
    confidence, correct = held.confidence, held.correct
    if rows is not None:
        confidence, correct = confidence[rows], correct[rows]
    wide = binning == "equal width"
    edges = calibration.equal_width() if wide else calibration.equal_mass(confidence)
    bins = calibration.binned(confidence, correct, edges)
    return edges, bins, calibration.consistency_band(bins)


def mean_gap(bins: calibration.Bins) -> float:
    """How far mean confidence lies above accuracy, over all rows of the bins."""
    gaps = bins["count"] * (bins["confidence"] - bins["accuracy"])
    return float(np.nansum(gaps) / bins["count"].sum())


def widest_bin(bins: calibration.Bins) -> int:
    """The bin that adds most to the calibration error."""
    return int(np.nan_to_num(bins["count"] * np.abs(bins["accuracy"] - bins["confidence"])).argmax())


def bin_slice(held: Held, part: str, rows: np.ndarray | None, edges: np.ndarray, number: int) -> Slice:
    """The rows of a bin of a part of the reliability diagram."""
    inside = calibration.bin_of(held.confidence, edges) == number
    chosen = inside if rows is None else inside & rows
    where = "" if rows is None else f", {part.rsplit(' (', 1)[0]}"
    texts = _told_apart(edges)
    return Slice(f"confidence {texts[number]} to {texts[number + 1]}{where}", np.flatnonzero(chosen))


def _told_apart(edges: np.ndarray) -> list[str]:
    """Edges with as many digits as it takes to tell them apart, three or more."""
    for digits in range(3, 9):
        texts = [f"{edge:.{digits}g}" for edge in edges]
        if len(set(texts)) == len(edges):
            break
    return texts


# --- psi ------------------------------------------------------------------------------


def tails(psi: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Rows of the harmful and of the valuable tail, and where they begin: median ∓ 3 robust deviations.

    The robust standard deviation is 1.4826 times the median distance from the median (Hampel 1974).
    """
    middle = float(np.median(psi))
    reach = FAR * 1.4826 * float(np.median(np.abs(psi - middle)))
    low, high = middle - reach, middle + reach
    return np.flatnonzero(psi < low), np.flatnonzero(psi > high), (low, high)


def top_share(psi: np.ndarray, share: float = 0.01) -> float:
    """The part of the total |psi| that the largest ``share`` of the rows accounts for."""
    size = np.sort(np.abs(psi))[::-1]
    total = float(size.sum())
    return float(size[: max(1, round(share * len(size)))].sum()) / total if total else 0.0
