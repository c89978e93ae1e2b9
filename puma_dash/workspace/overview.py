"""The overview: what the pages know of a project, as arrays and facts for the cache."""

from __future__ import annotations

import hashlib
from typing import Any, TypedDict

import numpy as np
import pandas as pd
import torch

from puma_dash.core.criteria import CRITERIA, usable_criteria
from puma_dash.core.engine import Engine
from puma_dash.core.evaluation.measures import measures_of
from puma_dash.core.evaluation.metrics import per_row
from puma_dash.core.evaluation.repeats import row_keys
from puma_dash.core.registry import usable
from puma_dash.core.saved import ids_of
from puma_dash.core.task import CLASSIFICATION
from puma_dash.core.types import Project
from puma_dash.core.unlearning import UNLEARNERS
from puma_dash.core.valuation import VALUATIONS
from puma_dash.workspace.index import LAYOUT

LARGEST_THUMBNAIL = 128
MOST_CATEGORIES = 30


class _Column(TypedDict):
    name: str
    categories: list[str] | None


def overview_of(
    project: Project, engine: Engine, source: str
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What the pages know of a project: numbers of each training and validation row, and facts.

    The arrays of the validation rows are named like those of the training rows, after "validation.".
    """
    train, validation = project.train, project.validation
    arrays, columns, _ = rows_of_split(engine, "train")
    validation_arrays, validation_columns, held_out = rows_of_split(engine, "validation")
    arrays |= {f"validation.{name}": array for name, array in validation_arrays.items()}
    _, same = np.unique(row_keys(train.inputs, project.model), axis=0, return_inverse=True)
    arrays["same"] = same.ravel().astype(np.int32)  # one number for all rows with the same inputs
    truth = validation.targets.numpy(force=True)
    info = {
        "layout": LAYOUT,
        "name": project.name,
        "source": source,
        "fingerprint": project.fingerprint,
        "task": project.task.name,
        "classes": list(project.class_names or ()),
        "loss": str(engine.loss),
        "weight_decay": project.weight_decay,
        "notes": list(project.notes),
        "parameters": len(engine.theta),
        "inputs": list(train.inputs.shape[1:]),
        "rows": {"train": len(train), "validation": len(validation), "test": len(project.test or ())},
        "columns": columns,
        "validation_columns": validation_columns,
        "texts": [name.removeprefix("text.") for name in arrays if name.startswith("text.")],
        "id": None if (ids := ids_of(train)) is None else ids.name,
        "groups": [str(name) for name in (() if validation.groups is None else validation.groups.columns)],
        "criteria": {
            key: {"label": CRITERIA[key].label, "unit": CRITERIA[key].unit, "refused": reason}
            for key, reason in usable_criteria(project).items()
        },
        "methods": usable(UNLEARNERS, project),
        "valuations": {
            key: {"needs": list(VALUATIONS[key].needs), "refused": reason}
            for key, reason in usable(VALUATIONS, project).items()
        },
        "metrics": measures_of(project.task).metrics(held_out, truth),
        "summary": _summary(project),
    }
    return arrays, info


def rows_of_split(engine: Engine, split: str) -> tuple[dict[str, np.ndarray], list[_Column], np.ndarray]:
    """Arrays of the rows of a split, what its columns are, and the answers (m, c).

    Targets and predictions are class numbers (m,), of a regression values (m, k).
    """
    data = engine.project.split(split)
    outputs = engine.outputs(split)
    answers, targets = engine.answers(outputs), data.targets.numpy(force=True)
    losses = engine.loss.plain(outputs, engine.split(split).targets).numpy(force=True)
    arrays = {"loss": losses.astype(np.float32)}
    if engine.project.task is CLASSIFICATION:
        arrays |= {
            "target": targets.astype(np.int32),
            "predicted": answers.argmax(1).astype(np.int32),
            "confidence": answers.max(1).astype(np.float32),
            "brier": per_row(answers, targets)["brier"].astype(np.float32),
        }
    else:
        arrays |= {"target": targets.astype(np.float32), "predicted": answers.astype(np.float32)}
    if data.weights is not None:
        arrays["weight"] = data.weights.numpy(force=True).astype(np.float32)
    images = _images(data.inputs)
    if images is not None:
        arrays["images"] = images
    arrays |= _texts(data.meta)
    return arrays, _columns(data.meta, arrays) + _columns(data.groups, arrays), answers


def annotations_digest(project: Project) -> str:
    """Names and contents of what is known of the rows beside inputs and labels."""
    digest = hashlib.sha256()
    splits = (project.train, project.validation)
    for frame in (frame for split in splits for frame in (split.meta, split.groups)):
        if frame is not None:
            digest.update(repr(list(frame.columns)).encode())
            digest.update(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
    return digest.hexdigest()


def _images(inputs: torch.Tensor) -> np.ndarray | None:
    """Rows as 8-bit pictures (n, h, w) or (n, 3, h, w) where their shape says that they are pictures."""
    shape = tuple(inputs.shape[1:])
    picture = len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))
    if not picture or max(shape[-2:]) > LARGEST_THUMBNAIL or min(shape[-2:]) < 4:
        return None
    low, high = inputs.amin().item(), inputs.amax().item()
    scaled = (inputs.numpy(force=True) - low) * (255 / max(high - low, 1e-12))
    images = scaled.round().astype(np.uint8)
    return images[:, 0] if len(shape) == 3 and shape[0] == 1 else images


def _columns(frame: pd.DataFrame | None, arrays: dict[str, np.ndarray]) -> list[_Column]:
    """Puts each column of ``frame`` into ``arrays``, as numbers or as codes, and describes it."""
    described: list[_Column] = []
    if frame is None:
        return described
    for name in frame.columns:
        column = frame[name]
        few = column.nunique() <= MOST_CATEGORIES
        if pd.api.types.is_numeric_dtype(column) and not (few or pd.api.types.is_bool_dtype(column)):
            arrays[f"column.{name}"] = column.to_numpy(np.float64, na_value=np.nan)
            described.append(_Column(name=str(name), categories=None))
        elif few:
            codes, categories = pd.factorize(column, sort=True)
            arrays[f"column.{name}"] = codes.astype(np.int32)
            described.append(_Column(name=str(name), categories=[str(c) for c in categories]))
    return described


def _texts(frame: pd.DataFrame | None) -> dict[str, np.ndarray]:
    """The columns of ``frame`` that are neither numbers nor few categories, each as one long text.

    Under "text.NAME" lie the rows as UTF-8, a line each, and under "starts.NAME" where each begins (n + 1,).
    """
    found: dict[str, np.ndarray] = {}
    if frame is None:
        return found
    for name in frame.columns:
        column = frame[name]
        if pd.api.types.is_numeric_dtype(column) or column.nunique() <= MOST_CATEGORIES:
            continue
        lines = column.astype("string").fillna("").str.replace(r"\s+", " ", regex=True)
        text = np.frombuffer(("\n".join(lines) + "\n").encode(), np.uint8)
        found[f"text.{name}"] = text
        found[f"starts.{name}"] = np.concatenate([[0], np.flatnonzero(text == ord("\n")) + 1])
    return found


def _summary(project: Project) -> str:
    shape = " x ".join(str(size) for size in project.train.inputs.shape[1:]) or "1"
    count, what = len(project.class_names or ()), "class" if project.classes else "output"
    several = {"class": "classes", "output": "outputs"}[what] if count != 1 else what
    return f"{type(project.model).__name__}, inputs {shape}, {count} {several}"
