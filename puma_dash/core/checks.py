"""The checks at the edge: whether model, data and loss of a project fit together, once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from puma_dash.core.objective import PROBE_ROWS, BinaryCrossEntropy, ClassLoss, as_model_input
from puma_dash.core.task import REGRESSION
from puma_dash.core.types import SPLITS, ProjectError, listing

if TYPE_CHECKING:
    from puma_dash.core.types import Project, Split

CHUNK_NUMBERS = 2**24
"""Rows, which may be mapped from a disk, are looked through in chunks of about this many numbers."""


def check_project(project: Project) -> tuple[tuple[str, ...], dict[str, Split]]:
    """The class names and the splits, labels as whole numbers (n,), of a project that fits together.

    Raises:
        ProjectError: they do not; one sentence per fault.
    """
    wd = project.weight_decay
    if wd is not None and not 0 <= wd < float("inf"):
        raise ProjectError(f"expected weight_decay >= 0 or None (unknown), but got {wd!r}.")
    if not any(p.requires_grad for p in project.model.parameters()):
        raise ProjectError(
            "expected a model with parameters that require a gradient, but none does; "
            "try model.requires_grad_(True)."
        )
    splits = {name: split for name in SPLITS if (split := getattr(project, name)) is not None}
    for name, split in splits.items():
        check_rows(split, name)
    width = {name: _check_model(project.model, split, name) for name, split in splits.items()}["train"]
    names = project.class_names
    if project.task is REGRESSION:
        if names is not None and len(names) != width:
            raise ProjectError(f"expected {width} class names, one per output, but got {len(names)}.")
        names = names or tuple(f"output {k}" for k in range(width))
        return names, {name: _with_values(split, name, width) for name, split in splits.items()}
    if isinstance(project.loss, BinaryCrossEntropy):
        if width != 1:
            raise ProjectError(
                f"expected a model with one logit for binary_cross_entropy, but its outputs have {width} "
                'columns; try loss="cross_entropy".'
            )
        classes = 2
    else:
        classes = width
        if classes < 2:
            raise ProjectError(
                "expected at least 2 logits for cross_entropy, but the model has 1; "
                'try loss="binary_cross_entropy".'
            )
    if names is not None and len(names) != classes:
        raise ProjectError(f"expected {classes} class names, one per class, but got {len(names)}.")
    weights = project.loss.class_weights if isinstance(project.loss, ClassLoss) else None
    if weights is not None and len(weights) != classes:
        raise ProjectError(f"expected {classes} class_weights, one per class, but got {len(weights)}.")
    names = names or tuple(str(k) for k in range(classes))
    return names, {name: _with_labels(split, name, names) for name, split in splits.items()}


def check_rows(split: Split, name: str) -> None:
    """Checks the rows of one split by themselves.

    Raises:
        ProjectError: there are none, or as many of one part as not of another, or numbers that are none.
    """
    n = len(split)
    if n == 0:
        raise ProjectError(f"expected rows in the {name} split, but it is empty.")
    for part in ("targets", "weights", "groups", "meta"):
        value = getattr(split, part)
        if value is not None and len(value) != n:
            raise ProjectError(
                f"expected {name} {part} to have as many rows as the inputs ({n}), but got {len(value)}."
            )
    if split.inputs.is_complex():
        raise ProjectError(f"expected real {name} inputs, but got {split.inputs.dtype}.")
    for part in ("inputs", "targets", "weights"):
        value = getattr(split, part)
        if value is not None and value.is_floating_point():
            parts = value.split(max(1, CHUNK_NUMBERS * n // max(value.numel(), 1)))
            finite = torch.cat([part.isfinite().reshape(len(part), -1).all(1) for part in parts])
            if not finite.all():
                rows = (~finite).nonzero().ravel().tolist()
                raise ProjectError(
                    f"expected finite {name} {part}, but rows {listing(rows)} hold NaN or infinity; "
                    "try dropping or imputing those rows."
                )
    if split.weights is not None:
        _check_weights(split.weights, name)


def _check_weights(weights: Tensor, name: str) -> None:
    if weights.ndim != 1:
        raise ProjectError(
            f"expected {name} weights of shape (n,), one per row, but got {tuple(weights.shape)}."
        )
    if (weights < 0).any():
        rows = (weights < 0).nonzero().ravel().tolist()
        raise ProjectError(f"expected {name} weights >= 0, but rows {listing(rows)} have negative ones.")
    if not (weights > 0).any():
        raise ProjectError(f"expected {name} weights above 0 for some rows, but all are 0.")


@torch.no_grad()
def _check_model(model: nn.Module, split: Split, name: str) -> int:
    rows = as_model_input(split.inputs[:PROBE_ROWS], model)
    try:
        first, second = model(rows), model(rows)
    except ProjectError:
        raise
    except Exception as error:
        raise ProjectError(
            f"expected the model to take {name} inputs of shape {tuple(rows.shape)} ({rows.dtype}), "
            f"but it raised {type(error).__name__}: {error}; try model(inputs[:{len(rows)}]) yourself."
        ) from error
    if not isinstance(first, Tensor) or first.ndim != 2 or len(first) != len(rows):
        came = f"shape {tuple(first.shape)}" if isinstance(first, Tensor) else type(first).__name__
        raise ProjectError(
            f"expected outputs of shape ({len(rows)}, c) for {len(rows)} rows, but got {came}; "
            "try a small wrapper module that returns the logits as (b, c)."
        )
    if not first.isfinite().all():
        raise ProjectError(f"expected finite outputs on {name} rows, but the model gives NaN or infinity.")
    if not torch.equal(first, second):
        raise ProjectError(
            "expected the same outputs for the same rows in eval mode, but two calls differ; "
            "try removing dropout, noise or augmentation that stays active in eval mode."
        )
    if len(rows) >= 4:
        halves = torch.cat([model(half) for half in rows.tensor_split(2)])
        if not torch.allclose(halves, first, rtol=1e-3, atol=1e-4 * float(first.abs().max() + 1)):
            raise ProjectError(
                "expected each row's output not to depend on the rows beside it, but it does; "
                "try BatchNorm with running statistics (track_running_stats=True) in eval mode."
            )
    return int(first.shape[1])


def _with_values(split: Split, name: str, width: int) -> Split:
    targets = split.targets if split.targets.ndim > 1 else split.targets[:, None]
    if tuple(targets.shape[1:]) != (width,):
        raise ProjectError(
            f"expected {name} targets of shape (n, {width}) like the outputs, "
            f"but got {tuple(split.targets.shape)}."
        )
    if targets.is_complex():
        raise ProjectError(f"expected real {name} targets, but got {targets.dtype}.")
    return replace(split, targets=targets if targets.is_floating_point() else targets.double())


def _with_labels(split: Split, name: str, names: tuple[str, ...]) -> Split:
    targets: Any = split.targets
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if targets.ndim != 1:
        raise ProjectError(
            f"expected {name} targets to be class numbers of shape (n,), but got {tuple(targets.shape)}; "
            "try targets.argmax(1) for one-hot rows."
        )
    whole = targets.long()
    if targets.is_floating_point() and not torch.equal(whole.to(targets.dtype), targets):
        raise ProjectError(
            f"expected whole class numbers in {name} targets, but got fractions; "
            'try loss="squared_error" for real values.'
        )
    outside = ((whole < 0) | (whole >= len(names))).nonzero().ravel().tolist()
    if outside:
        raise ProjectError(
            f"expected {name} labels from 0 to {len(names) - 1}, but rows {listing(outside)} have others "
            f"({listing({int(whole[row]) for row in outside[:100]})})."
        )
    missing = [names[k] for k in range(len(names)) if not (whole == k).any()]
    if missing:
        raise ProjectError(
            f"expected every class in the {name} split, but it has no row of {', '.join(missing[:8])}; "
            "try a stratified split, or a model without that class."
        )
    return replace(split, targets=whole)
