"""Which valuation finds wrong labels: how soon each order of the rows comes upon those known to be wrong.

Either a column of the training rows says which labels are wrong, or labels are flipped in copies of the
project, whose models are trained on them from scratch, by the project's own trainer. Labels of the project
that are wrong already count as right in such a copy, so that all methods seem worse than they are: where
there are as many of them as flips, a perfect finder comes upon half of the flips in as many rows.

The curve of a method is the share of the flips found among the first share x of the rows, most suspicious
first; rows of equal score come in any order, so their expected share is shown. AUC is the probability that a
flipped row is more suspicious than another.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from puma_dash.core import api
from puma_dash.core.demos.base import flip_labels
from puma_dash.core.engine import choose_device, within
from puma_dash.core.evaluation.statistics import half_width
from puma_dash.core.recorder import train_recorded
from puma_dash.core.registry import parsed
from puma_dash.core.task import CLASSIFICATION
from puma_dash.core.training import Recipe, fresh, from_scratch, trainer_of
from puma_dash.core.types import Cancelled, Project, ProjectError
from puma_dash.core.valuation import VALUATIONS

if TYPE_CHECKING:
    import pandas as pd

    from puma_dash.core.engine import CancelEvent, Progress

POINTS = 101
"""Shares inspected at which curves are kept, from 0 to 1."""
AT = (10, 20)
"""Percent inspected at which the table tells what was found."""
MEASURES = ("AUC", *(f"found at {at} %" for at in AT))
RESAMPLES = 1_000
TRAINING = 0.3
"""Share of the progress that training a copy is taken for."""
QUICK = ("psi", "influence", "self_influence", "gradient_dot", "representer", "knn_shapley", "loss", "random")


class Search(NamedTuple):
    """What the methods found on one model."""

    placed: dict[str, np.ndarray]
    """Method -> what ``placed`` says of each flip (flips, 1 + POINTS)."""
    seconds: dict[str, float]
    refused: dict[str, str]
    """Method -> why it could not be asked."""


@dataclass(frozen=True, eq=False)
class FlipSearch:
    """How well each method finds wrong labels.

    ``table`` has a row per method, the best first: "AUC", "found at 10 %" and "found at 20 %", each with "±",
    half the width of its 95 % interval (Student's t over ``repeats`` copies; where there is one model, over
    its wrong labels: the bootstrap, and Wilson's for shares), and "seconds" of a search. ``curves`` has the
    mean, low and high (3, 101) of each method at shares inspected from 0 to 1, ``refused`` the methods that
    could not be asked.
    """

    table: pd.DataFrame
    curves: dict[str, np.ndarray]
    refused: dict[str, str]
    flips: int
    rows: int
    repeats: int
    fingerprint: str
    diagnostics: dict[str, Any]


def find_flips(
    project: Project,
    methods: Iterable[str] = QUICK,
    *,
    known: str | None = None,
    share: float = 0.1,
    repeats: int = 5,
    seed: int = 0,
    device: str | None = None,
    progress: Progress | None = None,
    cancel: CancelEvent | None = None,
) -> FlipSearch:
    """How soon each method comes upon wrong labels, by its own scores with its defaults.

    Args:
        project: a classifier and its data.
        methods: keys of ``VALUATIONS``, with settings in brackets where they are not the defaults, as in
            ``influence(solver="lissa")``.
        known: a column of ``train.meta`` that is true for wrong labels; None flips some in copies.
        share: of the labels of each copy that are flipped, to another class at random.
        repeats: copies, each with other flips and trained anew.
        seed: of the first copy, and of the bootstrap.
        device: as in ``puma.value``.
        progress: called as ``progress(done, total, message)``.
        cancel: an event; once set, the call raises ``Cancelled``.

    Raises:
        ProjectError: the project has no classes, the column is not there or names no row or all, or no
            method could be asked.
        Cancelled: ``cancel`` was set.
    """
    names = list(dict.fromkeys(methods))
    for name in names:
        parsed(VALUATIONS, name, "valuation method")
    if project.task is not CLASSIFICATION:
        raise ProjectError(
            "expected a classifier, whose labels can be wrong, but the project is a regression."
        )
    start, told = time.perf_counter(), progress or (lambda done, total, message: None)
    if known is not None:
        flipped = known_flips(project, known)
        found = [search(project, flipped, names, seed=seed, device=device, progress=told, cancel=cancel)]
    else:
        if not 0 < share < 1 or repeats < 1:
            raise ProjectError(
                f"expected a share between 0 and 1 and at least 1 repeat, but got {share} and {repeats}."
            )
        found = []
        for k in range(repeats):
            part, name = within(told, k / repeats, (k + 1) / repeats), f"Copy {k + 1} of {repeats}"
            train, ask = within(part, 0, TRAINING), within(part, TRAINING, 1)
            told_train, told_ask = _named(train, f"{name}: training"), _named(ask, name)
            copy, flipped = flipped_copy(
                project, share, seed + k, device=device, progress=told_train, cancel=cancel
            )
            found.append(
                search(copy, flipped, names, seed=seed + k, device=device, progress=told_ask, cancel=cancel)
            )
    facts = {"seconds": time.perf_counter() - start, "device": str(choose_device(device)), "seed": seed}
    return summed(found, flipped, seed, project.fingerprint, {**facts, "known": known, "share": share})


def known_flips(project: Project, column: str) -> np.ndarray:
    """Which labels a column of ``train.meta`` says are wrong, bool (n,).

    Raises:
        ProjectError: there is no such column of truth values, or it says the same of all rows.
    """
    meta = project.train.meta
    if meta is None or column not in meta:
        there = "none" if meta is None else ", ".join(map(str, meta.columns))
        raise ProjectError(f"expected a column of the training rows ({there}), but got {column!r}.")
    values = meta[column].to_numpy()
    if values.dtype != bool or values.all() or not values.any():
        raise ProjectError(
            f"expected column {column!r} to be true for some rows, whose labels are wrong, and false for the "
            "others, but it is not; try another column, or flips in copies."
        )
    return values


def flipped_copy(
    project: Project,
    share: float,
    seed: int,
    *,
    device: str | None = None,
    progress: Progress | None = None,
    cancel: CancelEvent | None = None,
) -> tuple[Project, np.ndarray]:
    """``project`` with a share of its labels flipped and a model trained on them, and which ones (n,) bool.

    Rows of weight 0 keep theirs. Our own recipes record the training, for methods that need that.
    """
    train, classes = project.train, len(project.classes)
    used = np.ones(len(train), bool) if train.weights is None else train.weights.numpy(force=True) > 0
    rng, flipped = np.random.default_rng(seed), np.zeros(len(train), bool)
    targets = train.targets.numpy(force=True).copy()
    targets[used], flipped[used] = flip_labels(targets[used], share, classes, rng)
    split = replace(train, targets=torch.as_tensor(targets).to(train.targets))
    trainer, _ = trainer_of(project)
    weights = torch.ones(len(train), dtype=torch.float64) if train.weights is None else train.weights.double()

    def on_epoch(epoch: int) -> None:
        if cancel is not None and cancel.is_set():
            raise Cancelled
        if progress is not None and isinstance(trainer, Recipe):
            progress(epoch, trainer.epochs, f"epoch {epoch + 1}")

    on_epoch(0)
    rest = split, weights, project.weight_decay or 0.0, seed
    if isinstance(trainer, Recipe):
        start = fresh(project.model, seed).to(choose_device(device))
        model, records = train_recorded(trainer, start, *rest, on_epoch=on_epoch)
    else:
        model, records = from_scratch(trainer, project.model, *rest), None
    return replace(project, train=split, model=model.cpu(), records=records), flipped


def search(
    project: Project,
    flipped: np.ndarray,
    methods: Iterable[str],
    *,
    seed: int = 0,
    device: str | None = None,
    progress: Progress | None = None,
    cancel: CancelEvent | None = None,
) -> Search:
    """What each method finds of the ``flipped`` rows (n,) bool; ``seed`` is that of the methods with one."""
    names = list(methods)
    found = Search({}, {}, {})
    for k, name in enumerate(names):
        method = parsed(VALUATIONS, name, "valuation method")
        if hasattr(method, "seed"):
            method = replace(method, seed=seed)
        part = None if progress is None else within(progress, k / len(names), (k + 1) / len(names))
        told = None if part is None else _named(part, method.label)
        cold = replace(project)  # knows nothing yet, so that each method pays for what it needs
        begin = time.perf_counter()
        try:
            scores = api.value(cold, method, device=device, progress=told, cancel=cancel).scores
        except ProjectError as reason:
            found.refused[name] = str(reason)
            continue
        found.seconds[name] = time.perf_counter() - begin
        found.placed[name] = placed(scores, flipped)
    if not found.placed:
        raise ProjectError(
            "\n\n".join(found.refused.values()) or "expected at least one method, but got none."
        )
    return found


def placed(scores: np.ndarray, flipped: np.ndarray) -> np.ndarray:
    """Of each flip (m, 1 + POINTS): the share of unflipped rows behind it, and the chance that it is found.

    The chance is that at each share inspected, in the order of ``scores`` (n,), equal ones in any order. The
    means over the flips are the AUC and the curve.
    """
    levels, level = np.unique(scores, return_inverse=True)
    size, wrong = (np.bincount(level, weight, len(levels)) for weight in (None, flipped))
    before = np.cumsum(size) - size  # rows of a lower score
    chance = np.clip((np.linspace(0, len(scores), POINTS) - before[:, None]) / size[:, None], 0, 1)
    right = size - wrong
    behind = (right.sum() - np.cumsum(right) + right / 2) / right.sum()
    return np.hstack([behind[:, None], chance])[level[flipped]]


def summed(
    found: list[Search], flipped: np.ndarray, seed: int, fingerprint: str, facts: dict[str, Any]
) -> FlipSearch:
    """The table and the curves of searches on one model or several."""
    import pandas as pd

    asked = [name for name in found[0].placed if all(name in one.placed for one in found)]
    lines, curves = [], {}
    for name in asked:
        each = np.stack([one.placed[name].mean(0) for one in found])  # (repeats, 1 + POINTS)
        mean = each.mean(0)
        if len(found) > 1:
            low, high = mean - half_width(each), mean + half_width(each)
        else:
            low, high = _over_flips(found[0].placed[name], seed)
        half = (high - low) / 2
        values = [0, *(1 + round(at / 100 * (POINTS - 1)) for at in AT)]
        line = {"method": name}
        for measure, k in zip(MEASURES, values, strict=True):
            line |= {measure: mean[k], f"{measure} ±": half[k]}
        lines.append({**line, "seconds": float(np.median([one.seconds[name] for one in found]))})
        curves[name] = np.clip([mean, low, high], 0, 1)[:, 1:]
    table = pd.DataFrame(lines).sort_values("AUC", ascending=False, kind="stable", ignore_index=True)
    refused = {name: why for one in found for name, why in one.refused.items()}
    rows, repeats = len(flipped), len(found)
    return FlipSearch(table, curves, refused, int(flipped.sum()), rows, repeats, fingerprint, facts)


def _over_flips(each: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """95 % intervals of the means of ``each`` (m, k), what ``placed`` says of m flips: low and high (k,).

    The percentile bootstrap over flips for the AUC, and Wilson's interval for the shares found, which has a
    width where all are.
    """
    from statsmodels.stats.proportion import proportion_confint

    m = len(each)
    low, high = proportion_confint(each.sum(0), m, method="wilson")
    drawn = np.random.default_rng(seed).multinomial(m, np.full(m, 1 / m), RESAMPLES) @ each[:, 0] / m
    low[0], high[0] = np.quantile(drawn, [0.025, 0.975])
    return low, high


def _named(progress: Progress | None, name: str) -> Progress | None:
    """``progress`` that says ``name`` before each message."""
    return progress and (lambda done, total, message: progress(done, total, f"{name}: {message}"))
