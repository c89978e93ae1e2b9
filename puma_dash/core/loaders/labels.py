"""Labels: class numbers or names from whatever files hold, and rows put aside by class."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from puma_dash.core.loaders.encoding import to_numbers
from puma_dash.core.types import ProjectError, listing

if TYPE_CHECKING:
    import pandas as pd


def class_numbers(
    targets: Mapping[str, np.ndarray], class_names: tuple[str, ...], spelled: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """Class numbers (n,) of each split.

    Numbers stay what they are. Texts are looked up in ``class_names``; where none of them is there and all
    are whole numbers, they are those.

    Args:
        targets: split -> (n,) numbers or texts.
        class_names: in the order of the model's outputs, or none.
        spelled: what a label is called in a file -> what it is called in ``class_names``.

    Raises:
        ProjectError: a label is missing or unknown.
    """
    import pandas as pd

    targets = {split: _one_each(labels, split) for split, labels in targets.items()}
    if not spelled and all(labels.dtype != object for labels in targets.values()):
        return targets
    texts = {split: _texts(labels, split).replace(dict(spelled)) for split, labels in targets.items()}
    found = sorted({text for labels in texts.values() for text in labels.unique()})
    if class_names and set(found) & set(class_names):
        unknown = [text for text in found if text not in class_names]
        if unknown:
            near = difflib.get_close_matches(unknown[0], class_names, 1)
            raise ProjectError(
                f"expected labels among the class names {listing(class_names)}, but got {listing(unknown)}; "
                f'try [data.labels] with "{unknown[0]}" = "{(near or class_names)[0]}", if it means that.'
            )
        index = pd.Index(class_names, dtype=object)
        return {split: index.get_indexer(labels) for split, labels in texts.items()}
    numbers = {
        split: pd.to_numeric(labels, errors="coerce").to_numpy(float) for split, labels in texts.items()
    }
    if any((values != np.floor(values)).any() for values in numbers.values()):  # nan != nan
        raise ProjectError(
            f"expected class_names in the order of the model's outputs, since labels are names, but got "
            f"{list(class_names) or 'none'}; the labels are {listing(found)}, "
            f"try class_names = [{', '.join(repr(text) for text in found[:8])}] if that is the order."
        )
    return {split: values.astype(np.int64) for split, values in numbers.items()}


def values(targets: np.ndarray, split: str) -> np.ndarray:
    """Real values (n, k) to predict.

    Raises:
        ProjectError: a value is missing or no number.
    """
    import pandas as pd

    if targets.dtype != object:
        return targets.reshape(len(targets), -1) if targets.ndim < 3 else targets
    columns = pd.DataFrame(targets.reshape(len(targets), -1))
    return np.stack([to_numbers(columns[name], f"the {split} targets") for name in columns], axis=1)


def put_aside(labels: np.ndarray | None, n: int, share: float, seed: int) -> np.ndarray:
    """Which of ``n`` rows (bool) to put aside: about ``share`` of every class, at random.

    Args:
        labels: (n,) class numbers, or None to take any rows.
        n: number of rows.
        share: between 0 and 1; at least one row of every class is put aside, and one stays.
        seed: of the draw.

    Raises:
        ProjectError: a class has a single row.
    """
    labels = (
        np.zeros(n, dtype=np.int64) if labels is None else np.unique(labels, return_inverse=True)[1].ravel()
    )
    counts = np.bincount(labels)
    if counts.min() < 2:
        raise ProjectError(
            "expected at least two rows of every class, to put validation rows aside, but one class has a "
            "single row; try validation rows of their own in [data]."
        )
    shuffled = np.random.default_rng(seed).permutation(n)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    place = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)  # 0, 1, ... within each class
    quota = np.clip(np.round(share * counts), 1, counts - 1)
    aside = np.zeros(n, dtype=bool)
    aside[by_class] = place < np.repeat(quota, counts)
    return aside


def _one_each(labels: np.ndarray, split: str) -> np.ndarray:
    if labels.size > len(labels):
        raise ProjectError(
            f"expected one label per row, but the {split} targets have shape {labels.shape}; "
            'try targets.argmax(1) for one-hot rows, or loss = "squared_error" for real values.'
        )
    return labels.reshape(-1)


def _texts(labels: np.ndarray, split: str) -> pd.Series:
    import pandas as pd

    texts = pd.Series(labels).astype("string").str.strip()
    missing = np.flatnonzero(texts.isna() | (texts == ""))
    if len(missing):
        raise ProjectError(
            f"expected a label in every {split} row, but rows {listing(missing.tolist())} have none; "
            "try leaving those rows out."
        )
    return texts.astype(object)
