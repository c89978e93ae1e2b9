"""The nouns of PUMA Dash: frozen records that carry data, results and where they came from.

Nothing here computes, and importing this module does not import torch, so that the pages stay light.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import inspect
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from puma_dash.core.task import CLASSIFICATION, Task

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    import torch
    from torch import Tensor, nn

    from puma_dash.core.objective import Loss
    from puma_dash.core.plan import PatchPlan
    from puma_dash.core.recorder import Records

SPLITS = ("train", "validation", "test")
TRUSTED_RATIO = (0.5, 2.0)
"""Where measured / predicted lies outside, the straight-line prediction does not hold."""
NEGLIGIBLE_CHANGE = 1e-6
"""Changes of a criterion this small, in its unit, raise no doubt."""


class ProjectError(ValueError):
    """What a user can mend: the message says what was expected, what came and what to try."""


class Cancelled(Exception):
    """Raised inside a long call when its ``cancel`` event was set."""


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of one split.

    Args:
        inputs: array or tensor (n, ...), what the model takes; row i is ``inputs[i]``.
        targets: (n,) class numbers, or (n, k) real values for squared error.
        weights: (n,) non-negative training weights a_i, or None for all 1.
        groups: DataFrame of n rows with the columns that name groups (sensitive attributes).
        meta: DataFrame of n rows with anything else known of a row.
    """

    inputs: Tensor
    targets: Tensor
    weights: Tensor | None = None
    groups: pd.DataFrame | None = None
    meta: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        """Turns arrays into tensors, without a copy where that is possible."""
        for name in ("inputs", "targets", "weights"):
            object.__setattr__(self, name, _tensor(getattr(self, name), name))

    def __len__(self) -> int:
        """Number of rows n."""
        return int(self.inputs.shape[0])

    def take(self, rows: np.ndarray | Tensor) -> Split:
        """The split restricted to ``rows``, in that order."""
        index = np.asarray(rows)
        return Split(
            self.inputs[index],
            self.targets[index],
            None if self.weights is None else self.weights[index],
            None if self.groups is None else self.groups.iloc[index].reset_index(drop=True),
            None if self.meta is None else self.meta.iloc[index].reset_index(drop=True),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Project:
    """A trained model and its data, validated once.

    The model is copied and put in eval mode; the one passed in is never touched.

    Args:
        name: what the pages call it.
        model: any ``nn.Module`` that maps inputs (b, ...) to outputs (b, c).
        train: the rows the model was trained on.
        validation: the rows on which criteria are evaluated.
        test: held-out rows for the final verdict, or None.
        loss: a key of ``LOSSES`` (cross_entropy, binary_cross_entropy, squared_error) or an instance, such as
            ``puma.SoftmaxCrossEntropy(label_smoothing=0.1)``.
        weight_decay: L2 coefficient wd of training, J = mean loss + (wd / 2) |theta|^2; None if unknown.
        class_names: one name per class, or per output of a regression; defaults to their numbers.
        trainer: callable ``(fresh_model, split, weights, weight_decay, seed) -> model`` used by everything
            that retrains; None stands for the documented Adam recipe, "our recipe, not the author's".
        notes: what a reader of results should know of the data; the health checks tell them.
        records: what the training of this model left behind (``puma.Recorder``), for methods that need it.

    Raises:
        ProjectError: the model or the data cannot be used; the message says why and what to try.
    """

    name: str
    model: nn.Module
    train: Split
    validation: Split
    test: Split | None = None
    loss: str | Loss = "cross_entropy"
    weight_decay: float | None = 0.0
    class_names: tuple[str, ...] | None = None
    trainer: Callable[..., nn.Module] | None = None
    notes: tuple[str, ...] = ()
    records: Records | None = None
    memo: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)
    """Work that later calls on the same project reuse (engines, factors); dropped with the project.

    Under "store" a workspace may put ``store(name, compute)``, which keeps on disk the arrays that
    ``compute()`` makes, for this project under this name.
    """

    def __post_init__(self) -> None:
        """Copies the model and checks everything at the edge, so that nothing inside has to."""
        from puma_dash.core.checks import check_project
        from puma_dash.core.objective import resolve_loss

        object.__setattr__(self, "loss", resolve_loss(self.loss))
        if self.class_names is not None:
            object.__setattr__(self, "class_names", tuple(str(name) for name in self.class_names))
        object.__setattr__(self, "model", copy.deepcopy(self.model).eval())
        names, splits = check_project(self)
        for name, value in {"class_names": names, **splits}.items():
            object.__setattr__(self, name, value)
        if self.records is not None:
            from puma_dash.core.recorder import check_records

            check_records(self.records, self.model, len(self.train))

    def split(self, name: str) -> Split:
        """The split called ``name``: train, validation or test."""
        if name not in SPLITS:
            raise ProjectError(f"expected one of the splits {', '.join(SPLITS)}, but got {name!r}.")
        split = getattr(self, name)
        if split is None:
            raise ProjectError(
                f"expected project {self.name!r} to have a {name} split, but it has none; "
                f"try another split, or pass {name}=puma.Split(inputs, targets)."
            )
        return split

    @property
    def task(self) -> Task:
        """What the model is asked, by its loss: a class of each row, or values."""
        return cast("Loss", self.loss).task

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; none for a regression, whose ``class_names`` are those of its outputs."""
        return (self.class_names or ()) if self.task is CLASSIFICATION else ()

    def with_model(self, model: nn.Module) -> Project:
        """The same project around another model, whose training left no records."""
        return replace(self, model=model, records=None)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the weights, the data, the objective and the records: what every result is tied to."""
        settings = self.loss, self.weight_decay, self.class_names, _described(self.trainer)
        digest = hashlib.sha256(repr(settings).encode())
        for name, module in self.model.named_modules():
            hooks = (
                repr(hook) for hook in module._forward_pre_hooks.values() if dataclasses.is_dataclass(hook)
            )
            described = re.sub(r" at 0x[0-9a-f]+", "", module.extra_repr() + "".join(hooks))
            digest.update(f"{name}|{_code(type(module))}|{described}".encode())
        digest.update(repr([name for name, p in self.model.named_parameters() if p.requires_grad]).encode())
        for name, value in self.model.state_dict().items():
            _feed(digest, name, value)
        for split_name in SPLITS:
            split = getattr(self, split_name)
            for part in () if split is None else ("inputs", "targets", "weights"):
                _feed(digest, f"{split_name}.{part}", getattr(split, part))
            for columns in () if split is None else (split.groups, split.meta):
                digest.update(b"none" if columns is None else _frame(columns))
        if self.records is not None:
            digest.update(self.records.digest.encode())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Selection:
    """Sorted unique row numbers, or a bool mask, with a reason; combine with ``|``, ``&`` and ``-``."""

    rows: np.ndarray
    reason: str = ""

    def __post_init__(self) -> None:
        """Sorts the rows and drops repetitions."""
        rows = row_array(self.rows)
        rows.setflags(write=False)
        object.__setattr__(self, "rows", rows)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def __iter__(self) -> Iterator[int]:
        """The rows as ints, in ascending order."""
        return iter(self.rows.tolist())

    def __or__(self, other: Selection) -> Selection:
        """Rows in either."""
        return Selection(np.union1d(self.rows, other.rows), _join(self.reason, "or", other.reason))

    def __and__(self, other: Selection) -> Selection:
        """Rows in both."""
        return Selection(np.intersect1d(self.rows, other.rows), _join(self.reason, "and", other.reason))

    def __sub__(self, other: Selection) -> Selection:
        """Rows in this one only."""
        return Selection(np.setdiff1d(self.rows, other.rows), _join(self.reason, "but not", other.reason))


@dataclass(frozen=True, eq=False)
class Valuation:
    """One score per training row; for every method lower means more suspicious.

    For psi: psi < 0 says that removing the row is predicted to improve the criterion (harmful), and removing
    row j changes the criterion by about ``scores[j] / n``.
    """

    scores: np.ndarray
    method: str
    criterion: str
    fingerprint: str
    diagnostics: dict[str, Any]

    def harmful(self, k: int) -> np.ndarray:
        """The ``k`` row numbers with the lowest scores, lowest first."""
        return np.argsort(self.scores, kind="stable")[: max(0, int(k))]

    def save(self, path: str | Path, project: Project | None = None) -> None:
        """Writes a line per training row as CSV, Parquet or JSON: row, id where ``project`` has ids, score.

        ``puma.read_scores`` reads it back.
        """
        from puma_dash.core.saved import scores_table, write_table

        told = {"criterion": self.criterion, "method": self.method, "project": self.fingerprint}
        write_table(path, scores_table(self, project), told)


@dataclass(frozen=True, eq=False)
class Forecast:
    """What a plan is predicted to do, before anything is changed.

    ``criteria`` maps each held criterion to its predicted change dC (negative is better), to first order:
    -(tau/n) sum_j e_j psi_j. All else is predicted from outputs that move along a straight line: ``refined``
    maps the held criteria and those asked for to dC; ``strengths`` has the change of each criterion and
    metric (columns, named alike: the same name is the same number) at strengths tau (index) from 0;
    ``metrics`` has the columns before, predicted, change; ``flips`` lists the evaluation rows whose predicted
    class changes, none of a regression.
    """

    criteria: dict[str, float]
    refined: dict[str, float]
    strengths: pd.DataFrame
    metrics: pd.DataFrame
    flips: pd.DataFrame
    weights: np.ndarray
    fingerprint: str
    diagnostics: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Patch:
    """A patched model, what was asked, what was predicted and what was measured.

    ``delta`` (p,) is the change of the trained parameters, empty for an ensemble; ``weights`` (n,) are the
    training weights a_i (1 + e_i) the patch stands for at strength 1; ``predicted`` and ``measured`` map
    each held criterion to its change dC; ``strength`` is the strength applied, which guard rails may have
    lowered.
    """

    model: nn.Module
    plan: PatchPlan
    delta: torch.Tensor
    weights: np.ndarray
    predicted: dict[str, float]
    measured: dict[str, float]
    strength: float
    seconds: float
    fingerprint: str
    diagnostics: dict[str, Any]

    @property
    def ratio(self) -> dict[str, float]:
        """Criterion -> measured / predicted change; nan where nothing was predicted to change."""
        return ratios(self.predicted, self.measured)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Criteria whose prediction does not hold: what was measured counts."""
        return doubtful(self.predicted, self.measured)

    def save(self, path: str | Path) -> None:
        """Writes the patched model's state dict as safetensors; ``puma.read_patch`` reads all of it back."""
        from safetensors.torch import save_file

        from puma_dash.core.records import plain, plan_record

        record = {
            "plan": plan_record(self.plan),
            "weights": self.weights.tolist(),
            "predicted": self.predicted,
            "measured": self.measured,
            "strength": self.strength,
            "seconds": self.seconds,
            "diagnostics": plain(self.diagnostics),
        }
        state = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}
        told = {"project": self.fingerprint, "patch": json.dumps(record)}
        save_file(state, str(path), metadata=told)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Before and after on one split.

    ``metrics``: one row per metric, and of classes per gap between the ``groups`` of the data, with before,
    after, change and the interval (low, high) of the change;
    ``verdicts``: one row for the error rate (of values: the absolute error) and for each held criterion;
    ``per_group``: accuracy (RMSE) of each group of rows that the data name; ``marked``: loss and accuracy on
    the rows touched, with ``marked_rows`` one by one.

    Of classes: ``reliability``: bins of both models; ``flips``: every row with its classes and confidences
    before and after and its kind (``diagnostics["mcnemar_p"]`` is the exact test); ``confusion``: rows of
    each (target, predicted) before and after, without empty cells; ``per_class``: accuracy (recall) of each
    class. Of values: ``residuals``: how many rows have which residual (value - target) before and after;
    ``answers``: target and values before and after of every row and output. What does not apply is empty.
    """

    split: str
    n: int
    metrics: pd.DataFrame
    reliability: pd.DataFrame
    flips: pd.DataFrame
    confusion: pd.DataFrame
    residuals: pd.DataFrame
    answers: pd.DataFrame
    verdicts: pd.DataFrame
    per_class: pd.DataFrame
    per_group: pd.DataFrame
    marked: pd.DataFrame
    marked_rows: pd.DataFrame
    fingerprint: str
    diagnostics: dict[str, Any]


def ratios(predicted: Mapping[str, float], measured: Mapping[str, float]) -> dict[str, float]:
    """Criterion -> measured / predicted change; nan where the prediction is exactly 0."""
    return {name: measured[name] / change if change else math.nan for name, change in predicted.items()}


def doubtful(predicted: Mapping[str, float], measured: Mapping[str, float]) -> tuple[str, ...]:
    """Criteria whose ratio lies outside ``TRUSTED_RATIO``, where the change is not negligible."""
    low, high = TRUSTED_RATIO
    return tuple(
        name
        for name, ratio in ratios(predicted, measured).items()
        if not low <= round(ratio, 2) <= high
        and max(abs(predicted[name]), abs(measured[name])) > NEGLIGIBLE_CHANGE
    )


def _tensor(value: Any, name: str) -> Any:
    import torch

    if value is None or isinstance(value, torch.Tensor):
        return value
    array = np.asarray(value)
    if array.dtype == object or array.dtype.kind in "USO":
        raise ProjectError(
            f"expected {name} to be numbers, but got {array.dtype}; try encoding names as class numbers."
        )
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    return torch.from_numpy(array)


def _code(kind: type) -> str:
    """What a module class computes: its name where torch defines it, else its source where there is one."""
    if kind.__module__.split(".")[0] != "torch":
        with contextlib.suppress(OSError, TypeError):
            return inspect.getsource(kind)
    return kind.__qualname__


def _described(trainer: Any) -> str:
    """What a trainer does: its settings where it is a dataclass, else its source where there is one."""
    if trainer is None or dataclasses.is_dataclass(trainer):
        return repr(trainer)
    with contextlib.suppress(OSError, TypeError):
        return inspect.getsource(trainer)
    return getattr(trainer, "__qualname__", type(trainer).__qualname__)


def _feed(digest: Any, name: str, value: Tensor | None) -> None:
    import torch

    if value is None:
        return
    array = value.detach().cpu().contiguous()
    digest.update(f"{name}|{array.dtype}|{tuple(array.shape)}".encode())
    digest.update(array.reshape(-1).view(torch.uint8).numpy().data if array.numel() else b"")


def _frame(frame: pd.DataFrame) -> bytes:
    """Names and contents of a table."""
    from pandas.util import hash_pandas_object

    try:
        rows = hash_pandas_object(frame, index=False)
    except TypeError:  # lists and the like
        rows = hash_pandas_object(frame.astype(str), index=False)
    return repr(list(frame.columns)).encode() + rows.to_numpy().tobytes()


def _join(left: str, word: str, right: str) -> str:
    return f"({left}) {word} ({right})" if left and right else left or right


def row_array(rows: Any) -> np.ndarray:
    """Sorted unique row numbers (k,), from numbers in any order or a bool mask of all rows."""
    array = np.asarray(rows.rows if isinstance(rows, Selection) else rows)
    if array.dtype == bool and array.ndim == 1:
        return np.flatnonzero(array)
    whole = array.astype(np.int64) if array.dtype.kind in "iuf" and array.ndim == 1 else None
    if whole is None or not np.array_equal(whole, array):
        raise ProjectError(f"expected whole row numbers, but got {listing(array.ravel().tolist())}.")
    return np.unique(whole)


def listing(rows: Iterable[Any], most: int = 8) -> str:
    """The first ``most`` of ``rows``, sorted, as text: ``3, 7, 9 and 41 more``."""
    ordered = sorted(rows)
    text = ", ".join(str(row) for row in ordered[:most])
    return text if len(ordered) <= most else f"{text} and {len(ordered) - most} more"
