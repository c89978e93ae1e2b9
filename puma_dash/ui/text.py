"""What the charts say in words: how to read each one, and what it shows for those who cannot see it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

PSI_SENTENCE = (
    "Criterion: lower is better. psi < 0: removing this row is predicted to improve it (harmful). "
    "psi > 0: the row is valuable."
)

READ_MAP_PSI = (
    "Each dot is a training row. Orange rows are harmful, blue rows valuable, small grey rows matter little; "
    "draw around rows to select them."
)
READ_MAP_CATEGORIES = (
    "Each dot is a training row, coloured by its category; where categories overlap, none hides another; "
    "draw around rows to select them."
)
READ_MAP_SEQUENTIAL = (
    "Each dot is a training row, coloured from low to high; high values lie on top; "
    "draw around rows to select them."
)
READ_RELIABILITY = (
    "On the dotted line confidence equals accuracy; below it the model is over-confident, above it "
    "under-confident. The bars count the rows behind each point: few rows, little evidence."
)
READ_HISTOGRAM = (
    "Bars count rows by psi, harmful on the left, valuable on the right; each gridline is ten times the one "
    "below, and the outermost bars hold everything beyond them."
)
READ_PREDICTED_MEASURED = (
    "The ring is the predicted change, the disc the measured one; left of zero is better. Each line has its "
    "own scale: compare ring with disc within a line, and the numbers between lines."
)
READ_STRENGTH = (
    "Below zero is better. The dashed line is the rail, the most it may get worse; the dotted line is the "
    "strength asked for. Outputs are taken to move along a straight line, so trust small strengths most."
)
READ_CLASSES = "The ring is the rate before, the disc after; the longer the line, the larger the change."
READ_CONFUSION = (
    "A line for each label, a column for what the model takes it for. Blue cells moved the right way, orange "
    "ones the wrong way: more on the diagonal is right, more beside it wrong."
)
READ_REGIONS = (
    "The hue is the class the model answers there, the paler the less sure it is. Dots are training rows in "
    "the colour of their label; the patch touched those with rings."
)
EVIDENCE_QUESTION = (
    "Would a membership attack on the removed rows take the patched model for one that never saw them? "
    "Models retrained from scratch, with the rows and without, are the measure."
)
READ_EVIDENCE = (
    "AUC is the chance that the attack rates a removed row higher for this model than for one retrained "
    "without the rows: on the dotted line it cannot tell them apart, at 1 it always can. Lines are 95 % "
    "intervals over rows, of another retraining over which one it was."
)
READ_DISTANCES = (
    "Means over {count} models retrained without the rows: of parameters the Euclidean distance, of "
    "predictions the mean total variation (0 the same, 1 disjoint). Another retraining is the floor: as much "
    "comes from the seed alone."
)
READ_REMOVAL = (
    "On the removed rows: at an AUC of 0.5 and a TPR of 0.01 a membership attack does not tell the model "
    "from retraining. In brackets the yardsticks, retraining itself among them. Evidence, no proof."
)
READ_RAILS = (
    "Change on {split}, negative is better. Pass: surely within what is allowed; fail: surely beyond it; "
    "inconclusive: these rows do not tell. All verdicts together are wrong with a chance of at most 5 %: p "
    "is adjusted for their number (Holm), so one may be inconclusive although its interval looks clear."
)


def map_alt(
    n: int,
    colored_by: str,
    *,
    selected: int | None = None,
    removed: int = 0,
    upweighted: int = 0,
    relabelled: int = 0,
    gone: int = 0,
) -> str:
    """Returns the alternative text of the map."""
    parts = [f"Map of {n:,} training rows, coloured by {colored_by}"]
    if selected is not None:
        parts.append(f"{selected:,} selected")
    if removed:
        parts.append(f"{removed:,} marked for removal")
    if upweighted:
        parts.append(f"{upweighted:,} marked to count more")
    if relabelled:
        parts.append(f"{relabelled:,} marked to get another label")
    if gone:
        parts.append(f"{gone:,} removed before")
    return ", ".join(parts) + "."


def reliability_alt(
    before: Mapping[str, ArrayLike], after: Mapping[str, ArrayLike] | None = None, *, n: int
) -> str:
    """Returns the alternative text of the reliability diagram, with the widest gap of each series."""
    text = f"Reliability diagram of {n:,} rows, widest gap"
    if after is None:
        return f"{text}: {_widest_gap(before)}."
    return f"{text} before: {_widest_gap(before)}; after: {_widest_gap(after)}."


def histogram_alt(psi: ArrayLike, selected: ArrayLike | None = None) -> str:
    """Returns the alternative text of the histogram of psi."""
    values = np.asarray(psi, dtype=float)
    harmful = values < 0
    text = f"Histogram of psi: {harmful.sum():,} of {values.size:,} rows are harmful."
    if selected is None:
        return text
    chosen = np.asarray(selected, dtype=bool)
    return f"{text} Of {chosen.sum():,} selected rows, {(harmful & chosen).sum():,} are."


def predicted_measured_alt(predicted: Mapping[str, float], measured: Mapping[str, float]) -> str:
    """Returns the alternative text of the predicted and measured changes, all values in words."""
    changes = [
        f"{name} predicted {value:+.3g}, "
        + (f"measured {measured[name]:+.3g}" if name in measured else "not measured")
        for name, value in predicted.items()
    ]
    return "Change of each criterion, negative is better: " + "; ".join(changes) + "."


def strength_alt(
    strengths: ArrayLike, changes: Mapping[str, ArrayLike], rails: Mapping[str, float], *, at: float
) -> str:
    """Returns the alternative text of the predicted changes against strength, and where rails are passed."""
    x = np.asarray(strengths, dtype=float)
    parts = []
    for name, values in changes.items():
        change = np.asarray(values, dtype=float)
        passed = x[change > rails[name]]
        rail = f"passes its rail of {rails[name]:+.3g} at {passed[0]:g}" if len(passed) else "keeps its rail"
        parts.append(
            f"{name} {np.interp(at, x, change):+.3g} at {at:g}, lowest at {x[change.argmin()]:g}, {rail}"
        )
    return f"Predicted change against strength, {x.min():g} to {x.max():g}: {'; '.join(parts)}."


def class_alt(
    class_names: Sequence[str], before: ArrayLike, after: ArrayLike, rate: str, *, share: bool = True
) -> str:
    """Returns the alternative text of the rates per class, with the largest gain and loss."""
    change = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    text = f"{rate} of {len(class_names)} {'classes' if share else 'groups'} before and after"
    if not np.isfinite(change).any():
        return f"{text}."
    ends = int(np.nanargmin(change)), int(np.nanargmax(change))
    told = [f"{100 * change[k]:+.1f} points" if share else f"{change[k]:+.3g}" for k in ends]
    low, high = (f"{said} ({class_names[k]})" for said, k in zip(told, ends, strict=True))
    return f"{text}: from {low} to {high}."


def confusion_alt(classes: Sequence[str], cells: Mapping[str, ArrayLike]) -> str:
    """Returns the alternative text of the confusion matrix, with the cell that changed most."""
    before, after = (np.asarray(cells[name], dtype=int) for name in ("before", "after"))
    text = f"Confusion matrix of {len(classes)} classes before and after"
    if not np.any(before != after):
        return f"{text}: no cell changed."
    at = int(np.abs(after - before).argmax())
    label, taken = (classes[int(np.asarray(cells[name])[at])] for name in ("target", "predicted"))
    return (
        f"{text}; the largest change: label {label} predicted {taken}, {before[at]:,} to {after[at]:,} rows."
    )


def evidence_alt(models: Sequence[str], auc: ArrayLike, low: ArrayLike, high: ArrayLike) -> str:
    """Returns the alternative text of the AUC of each model, all values in words."""
    ends = zip(models, np.asarray(auc), np.asarray(low), np.asarray(high), strict=True)
    told = "; ".join(f"{name} {a:.2f} ({b:.2f} to {c:.2f})" for name, a, b, c in ends)
    return f"Membership AUC of {len(models)} models, 0.5 where the removed rows cannot be told: {told}."


def regions_alt(regions: Mapping[str, ArrayLike], classes: Sequence[str]) -> str:
    """Returns the alternative text of the decision regions, with the share of the plane that changed."""
    before, after = np.asarray(regions["class"])
    return (
        f"Decision regions of {len(classes)} classes before and after, side by side; the answer changes on "
        f"{percent(np.mean(before != after), 0)} of the plane shown."
    )


def _widest_gap(bins: Mapping[str, ArrayLike]) -> str:
    """Returns where confidence and accuracy are furthest apart, in words."""
    filled = np.asarray(bins["count"]) > 0
    confidence, accuracy = (np.asarray(bins[key], dtype=float)[filled] for key in ("confidence", "accuracy"))
    if not filled.any():
        return "no rows"
    at = np.argmax(np.abs(confidence - accuracy))
    return f"accuracy {accuracy[at]:.2f} where confidence is {confidence[at]:.2f}"


# ------------------------------------------------------------------------------------------------- the pages


KEYS = {"harmful": "H", "remove": "D", "undo": "Z", "redo": "Y", "deselect": "X", "patch": "P"}
"""Keyboard shortcuts, by what they do."""

METRICS = {
    "accuracy": "Accuracy",
    "nll": "NLL (nats)",
    "brier": "Brier score",
    "ece": "ECE (15 bins)",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
}


def file_name(*parts: object) -> str:
    """Returns the parts as a name for a download: words of letters and digits, with hyphens between."""
    return "-".join(re.findall(r"\w+", " ".join(map(str, parts))))


def metric(name: str) -> str:
    """Returns what people call a metric, or a gap between groups."""
    return METRICS.get(name, name.capitalize())


def percent(share: float, digits: int = 1) -> str:
    """Returns a share as a percentage."""
    return "not defined" if np.isnan(share) else f"{100 * share:.{digits}f} %"


class Demo(NamedTuple):
    """How a demo introduces itself."""

    title: str
    text: str
    cost: str
    button: str


DEMOS = {
    "digits": Demo(
        "Handwritten digits",
        "1,000 real images to train on, 100 of them with a wrong label. Find those, patch them away.",
        "A 64-32-10 network, trained in about 3 s.",
        "Try digits",
    ),
    "two-moons": Demo(
        "Two moons",
        "800 points in the plane, 80 of them with a wrong label. See calibration break and mend.",
        "A 2-16-16-2 network, trained in about 2 s.",
        "Try two moons",
    ),
    "radial": Demo(
        "Radial clusters",
        "Six clusters of two classes. Remove the influence of one; both classes hold elsewhere.",
        "A 2-16-16-2 network, trained in about 1 s.",
        "Try radial",
    ),
    "mnist": Demo(
        "MNIST",
        "10,000 real images, 1,000 of them with a wrong label, and a convolutional network. They are read "
        "from the folder that PUMA_DASH_MNIST names, or else from openml.org.",
        "A convolutional network of 56,970 parameters, trained in about 15 s.",
        "Try MNIST",
    ),
}
VERDICTS = {"pass": "✓ pass", "fail": "✗ fail", "inconclusive": "? inconclusive"}
VERDICT_COLORS = {"pass": "#00845F", "fail": "#D04F00", "inconclusive": "#7F8794"}


def verdict_style(shown: str) -> str:
    """Returns the CSS of a verdict as ``VERDICTS`` words it."""
    color = next((c for name, c in VERDICT_COLORS.items() if VERDICTS[name] == shown), "inherit")
    return f"color: {color}; font-weight: 600"


INTENTS = {"unseen": "as if never seen", "forget": "forget"}
STEPS_HELP = (
    "1 is the straight patch of the paper. More steps bend it: each takes the curvature where the last one "
    "ended, and comes closer to retraining."
)
METHODS = {
    "puma": "PUMA patch",
    "influence": "Naive influence removal",
    "retrain": "Retrain from scratch",
    "fine_tune": "Fine-tuning",
    "sisa": "SISA ensemble",
    "amnesiac": "Amnesiac ML",
    "unrolled_sgd": "Unrolled SGD",
    "gradient_ascent": "Ascent (a warning)",
}
KNOWS = {
    "whole": "It removes rows whole: it knows no strength, no steps, no intent and no compensation.",
    "strength": "It knows a strength, but no steps, no intent and no compensation.",
}
NOT_HELD = "What must not get worse is measured and judged, but nothing is done to hold it."


def with_half(value: float, half: float | None) -> str:
    """Returns a number and, where it is known, half the width of its interval."""
    return f"{value:.3f}" + ("" if half is None or np.isnan(half) else f" ± {half:.3f}")


def escape(text: str) -> str:
    """Returns text from data, safe inside Markdown."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]()<>#+-.!|~$:" else c for c in text)
