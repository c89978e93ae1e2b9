"""The rows most like one row, and what that and the model together make one suspect of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from puma_dash.core.embedding.base import features, penultimate
from puma_dash.core.types import ProjectError

if TYPE_CHECKING:
    from puma_dash.core.engine import Engine

NEIGHBOURS = 10
SAMPLED = 256
"""Rows whose neighbourhoods say what distances are usual."""
TOGETHER = 16
"""Of these, compared with all rows at a time."""


class Neighbours(NamedTuple):
    """The training rows nearest to one of them, itself left out."""

    rows: NDArray[np.int64]
    """(k,) nearest first"""
    distances: NDArray[np.float32]
    """(k,)"""
    same: NDArray[np.int64]
    """(s,) the nearest with the same label"""
    other: NDArray[np.int64]
    """(t,) the nearest with another label"""
    usual: float
    """The median, over rows drawn at random, of the distance to their k-th neighbour."""
    far: float
    """Its 99th percentile: a row farther than that from its own k-th neighbour lies apart."""
    space: str
    """Where distances are taken, in words."""


def neighbours(engine: Engine, row: int, k: int = NEIGHBOURS, shown: int = 6) -> Neighbours:
    """The ``k`` training rows nearest to ``row`` by Euclidean distance, and the nearest of each kind.

    Rows are compared by what the model's last linear layer takes in, or by their inputs where there is no
    such layer. One pass of the model and one matrix product the first time, then one product with a vector.

    Args:
        engine: of the project.
        row: training row number.
        k: neighbours that count.
        shown: the most of one label and of all others that are listed.
    """
    vectors, sizes, space, usual, far = _compared(engine, k)
    # |a - b|^2 = |a|^2 - 2 a b + |b|^2 loses digits where a and b are close: what it finds is measured anew
    near = sizes - 2 * (vectors @ vectors[row])
    near[row] = np.inf
    labels = engine.project.train.targets.numpy(force=True)
    alike = (labels == labels[row]).reshape(len(labels), -1).all(1)

    def nearest(candidates: NDArray[np.bool_] | None, count: int) -> NDArray[np.int64]:
        left = near if candidates is None else np.where(candidates, near, np.inf)
        found = _lowest(left, min(3 * count, len(near)))
        found = found[np.isfinite(left[found])]
        return found[np.argsort(_distances(vectors, row, found), kind="stable")][:count]

    rows = nearest(None, k)
    distances = _distances(vectors, row, rows)
    return Neighbours(rows, distances, nearest(alike, shown), nearest(~alike, shown), usual, far, space)


def duplicates(engine: Engine, row: int) -> NDArray[np.int64]:
    """The other training rows whose input is the same as that of ``row``, number by number."""
    inputs = engine.project.train.inputs
    alike = (inputs == inputs[row]).reshape(len(inputs), -1).all(1).numpy(force=True)
    alike[row] = False
    return np.flatnonzero(alike)


class Row(NamedTuple):
    """What the suspicions about one row rest on."""

    label: int
    prediction: int
    confidence: float
    """Of the prediction."""
    neighbours: NDArray[np.int64]
    """(k,) labels of the nearest rows"""
    distance: float
    """To the farthest of these."""
    usual: float
    """The same distance of other rows, its median."""
    far: float
    """The same, its 99th percentile."""
    copies: NDArray[np.int64]
    """(d,) labels of the other rows with the same input"""


AGREE = 0.6
"""Share of the neighbours from which on they agree on a class."""
FEW = 0.2
"""Share of the neighbours up to which they do not support a label."""
GAP = 0.4
"""Difference between confidence and that share from which on the model is over- or under-confident."""


def suspicions(row: Row, classes: list[str]) -> list[tuple[str, str]]:
    """Kinds of trouble that ``row`` is suspected of, strongest evidence first, each with one sentence.

    With s(c) the share of the k nearest rows labelled c:

    - duplicate: another row has the identical input;
    - mislabelled: the model predicts c, not the label, and the neighbours agree: s(c) >= .6 and
      s(label) <= .2;
    - over-confident: not mislabelled, and the confidence in the predicted class exceeds s of it by >= .4;
    - under-confident: the model predicts the label, and s(label) exceeds its confidence by >= .4;
    - outlier: its k-th neighbour is farther than the 99th percentile of that distance over other rows.

    None of them is proof. Neighbourhoods in a space that the model learnt agree with the model more often
    than they should.

    Args:
        row: what is known of it.
        classes: names.
    """
    found = _duplicate(row.copies != row.label, "label")
    k = len(row.neighbours)
    share = np.bincount(row.neighbours, minlength=len(classes)) / max(k, 1)
    label, predicted = classes[row.label], classes[row.prediction]
    supporting = round(share[row.prediction] * k)
    wrong = row.prediction != row.label
    mislabelled = wrong and share[row.prediction] >= AGREE and share[row.label] <= FEW
    if mislabelled:
        found.append(
            (
                "mislabelled",
                f"labelled {label}, but the model says {predicted} ({100 * row.confidence:.0f} %) and so do "
                f"{supporting} of its {k} nearest rows; {round(share[row.label] * k)} carry its label.",
            )
        )
    elif k and row.confidence - share[row.prediction] >= GAP:
        found.append(
            (
                "over-confident",
                f"the model is {100 * row.confidence:.0f} % sure of {predicted}, but only {supporting} of "
                f"its {k} nearest rows carry that label.",
            )
        )
    if k and not wrong and share[row.label] - row.confidence >= GAP:
        found.append(
            (
                "under-confident",
                f"{supporting} of its {k} nearest rows carry its label, {label}, but the model is only "
                f"{100 * row.confidence:.0f} % sure of it.",
            )
        )
    return found + _outlier(row)


class ValueRow(NamedTuple):
    """What the suspicions about one row of a regression rest on."""

    target: NDArray[np.float64]
    """(k,) of its k outputs"""
    prediction: NDArray[np.float64]
    """(k,)"""
    large: float
    """The residual that 1 in 100 training rows exceeds, the mean size over the outputs."""
    neighbours: NDArray[np.float64]
    """(m, k) targets of the nearest rows"""
    distance: float
    """As in ``Row``."""
    usual: float
    far: float
    copies: NDArray[np.float64]
    """(d, k) targets of the other rows with the same input"""


def suspicions_of_value(row: ValueRow) -> list[tuple[str, str]]:
    """Kinds of trouble that ``row`` is suspected of, each with one sentence.

    - duplicate and outlier: as in ``suspicions``;
    - wrong target: the residual is larger than that of 99 % of the rows, and the median target of the k
      nearest rows is at least twice as near to the prediction as to the target.

    Args:
        row: what is known of it.
    """
    found = _duplicate((row.copies != row.target).any(1), "target")
    if len(row.neighbours):
        middle = np.median(row.neighbours, axis=0)
        apart = np.abs(row.prediction - row.target).mean()
        near, off = (np.abs(middle - values).mean() for values in (row.prediction, row.target))
        if apart > row.large and 2 * near <= off:
            said, given, usual = (
                ", ".join(f"{value:.4g}" for value in values)
                for values in (row.prediction, row.target, middle)
            )
            found.append(
                (
                    "wrong target",
                    f"its target is {given}, but the model says {said}, and the median of its "
                    f"{len(row.neighbours)} nearest rows is {usual}; 99 % of the rows are fitted better.",
                )
            )
    return found + _outlier(row)


def _duplicate(others: NDArray[np.bool_], target: str) -> list[tuple[str, str]]:
    """What to say of other rows with the same input; ``others`` (d,) have another label or target."""
    if not len(others):
        return []
    told = (
        f", {others.sum()} of them with another {target}" if others.any() else f", all with the same {target}"
    )
    have = "row has" if len(others) == 1 else "rows have"
    return [("duplicate", f"{len(others)} other training {have} the identical input{told}.")]


def _outlier(row: Row | ValueRow) -> list[tuple[str, str]]:
    k = len(row.neighbours)
    if not k or row.distance <= row.far:
        return []
    times = f"{row.distance / row.usual:.1f} times" if row.usual > 0 else "farther than"
    told = f"its {k}th nearest row is {times} as far as is usual, farther than for 99 % of the rows."
    return [("outlier", told)]


def _compared(engine: Engine, k: int) -> tuple[NDArray[np.float32], NDArray[np.float32], str, float, float]:
    """What rows are compared by (n, d), its squared lengths (n,), its name, usual and far distances."""
    if ("neighbours", k) not in engine.memo:
        try:
            vectors, space = penultimate(engine), "what the model's last layer takes in"
        except ProjectError:
            vectors, space = features(engine, "inputs"), "the inputs"
        vectors -= vectors.mean(0)
        sizes = np.einsum("nd,nd->n", vectors, vectors)
        usual, far = np.percentile(_reach(engine, vectors, sizes, k), [50, 99]).tolist()
        engine.memo["neighbours", k] = vectors, sizes, space, usual, far
    return engine.memo["neighbours", k]


def _reach(
    engine: Engine, vectors: NDArray[np.float32], sizes: NDArray[np.float32], k: int
) -> NDArray[np.float32]:
    """Distances to the ``k``-th neighbour, of rows drawn at random."""
    n = len(vectors)
    drawn = np.random.default_rng(0).choice(n, min(SAMPLED, n), replace=False)
    found = []
    for start in range(0, len(drawn), TOGETHER):
        engine.tick(start, len(drawn), "How far neighbours usually are")
        rows = drawn[start : start + TOGETHER]
        squares = sizes - 2 * (vectors[rows] @ vectors.T) + sizes[rows, None]  # (b, n)
        squares[np.arange(len(rows)), rows] = -1
        kth = min(k, n - 1)
        found.append(np.partition(squares, kth, axis=1)[:, kth])
    return np.sqrt(np.concatenate(found).clip(0))


def _distances(vectors: NDArray[np.float32], row: int, others: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.linalg.norm(vectors[others] - vectors[row], axis=1)


def _lowest(values: NDArray, count: int) -> NDArray[np.int64]:
    """The rows of the ``count`` lowest values, in any order."""
    if count >= len(values):
        return np.arange(len(values))
    return np.argpartition(values, count)[:count]
