"""How far to believe a project's numbers: each check is one finding, in words for people who decide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from puma_dash.core.engine import Engine, engine_of
from puma_dash.core.evaluation.repeats import repeats, rows_also_in
from puma_dash.core.evaluation.stationarity import Stationarity, stationarity
from puma_dash.core.evaluation.training_mode import modules_that_differ
from puma_dash.core.objective import BinaryCrossEntropy, ignorance, model_dtype
from puma_dash.core.task import CLASSIFICATION
from puma_dash.core.types import SPLITS, Project, ProjectError, Split, listing

if TYPE_CHECKING:
    from puma_dash.core.engine import CancelEvent, Progress

NEAR_A_MINIMUM, FAR_FROM_A_MINIMUM = 0.02, 0.05
"""Share of the training loss that one step would gain. Seen on the demos: .003 to .017 as they are, .06 to .5
untrained, .7 to 400 after AdamW's decoupled decay, and up to 1.6 with ten times the true weight decay."""
FITS_BETTER = 2.0
"""Another weight decay is named where it makes the step's gain this many times smaller."""
ROUNDING = 1e-8
"""Shares of the loss, and weight decays, below this are rounding."""
SAMPLE = 512
"""Training rows on which outputs are compared, at random."""
ROUNDINGS = 1000
"""Outputs are the same up to this many roundings of the model's type."""
FEW, VERY_FEW = 20, 5
"""With 20 rows of a class one row is 5 points of its accuracy, with 5 rows 20 points."""
IMBALANCE = 10
MEMORISED = 0.01
"""Share of what a model that knows nothing loses below which one has memorised its training rows."""


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    status: str
    """ok, note or warning."""
    value: float | None
    """The figure that the status rests on; None where there is none."""
    sentence: str
    advice: str = ""


def health(
    project: Project,
    device: str | None = None,
    progress: Progress | None = None,
    cancel: CancelEvent | None = None,
) -> list[Finding]:
    """What speaks for and against believing the numbers of ``project``: one finding per check.

    Costs about as much as psi of two criteria. Checks that make no sense for a regression are left out.

    Args:
        project: model and data.
        device: "cuda", "cuda:1", "cpu"; None takes CUDA where there is one.
        progress: called as ``progress(done, total, message)``.
        cancel: an event; once set, the call raises ``Cancelled``.
    """
    engine = engine_of(project, device, progress, cancel)
    checks = CHECKS if project.task is not CLASSIFICATION else CHECKS | CHECKS_OF_CLASSES
    findings: list[Finding] = []
    for done, (name, check) in enumerate(checks.items()):
        engine.tick(done, len(checks), f"Checking {name}")
        findings += check(engine)
    return findings


def noted(engine: Engine) -> list[Finding]:
    """What whoever made the project says of its data, such as validation rows put aside."""
    return [Finding("data", "note", None, note) for note in engine.project.notes]


def at_a_minimum(engine: Engine) -> list[Finding]:
    """Whether the model minimises its objective as declared, and whether the weight decay fits."""
    try:
        found = stationarity(engine)
    except (ProjectError, RuntimeError) as error:
        told = f"Whether the model is at a minimum could not be computed: {str(error).splitlines()[0]}"
        advice = (
            "Influence meets the same obstacle: pass the curvature that the message names, or use operations "
            "that PyTorch differentiates in forward mode."
        )
        return [Finding("stationarity", "warning", None, told, advice)]
    return [_minimum(found, engine.weight_decay), _weight_decay(found, engine.project.weight_decay)]


def _minimum(found: Stationarity, wd: float) -> Finding:
    gains = (
        f"one Newton step further would gain {found.gain:.2g}, {_percent(found.share)} of the training loss "
        f"of {found.loss:.3g}"
    )
    if found.share <= NEAR_A_MINIMUM:
        told = f"The model is close to a minimum of its objective: {gains}."
        return Finding("stationarity", "ok", found.share, told)
    far = found.share > FAR_FROM_A_MINIMUM
    told = (
        f"The model is {'not' if far else 'not quite'} at a minimum of its objective, the mean loss plus "
        f"weight decay {wd:g}: {gains}. Retraining would also train it further; a patch does not."
    )
    advice = "Train to convergence, or declare the loss and the L2 weight decay that training really used."
    return Finding("stationarity", "warning" if far else "note", found.share, told, advice)


def _weight_decay(found: Stationarity, declared: float | None) -> Finding:
    fits = "the model looks trained " + (
        f"with about {found.best:.1g}" if found.best > ROUNDING else "without any"
    )
    better = found.gain > FITS_BETTER * found.least and found.share > ROUNDING
    if declared is None:
        told = "Weight decay is unknown and taken as 0; " + (fits if better else "the model does not tell it")
        advice = "Declare weight_decay, which bounds the curvature from below."
        return Finding("weight decay", "note", found.best if better else None, f"{told}.", advice)
    if better and found.share > NEAR_A_MINIMUM:
        told = (
            f"Weight decay {declared:g} is declared, but {fits}: with that, one Newton step would gain "
            f"{found.least:.1g} instead of {found.gain:.1g}."
        )
        advice = "Look it up in the training code; AdamW's decoupled decay is another objective than L2."
        return Finding("weight decay", "warning", found.best, told, advice)
    told = f"No weight decay fits the model much better than the declared {declared:g}."
    return Finding("weight decay", "ok", declared, told)


def same_twice(engine: Engine) -> list[Finding]:
    """Whether the same rows give the same outputs again."""
    split = _sample(engine)
    gap, same = _compared(engine, engine.outputs(split), engine.outputs(split))
    if same:
        told = f"Two calls give the same outputs, on {len(split):,} training rows."
        return [Finding("determinism", "ok", gap, told)]
    told = f"Two calls give outputs that differ by up to {gap:.2g}, on {len(split):,} training rows."
    advice = "Remove dropout, noise or augmentation that stays active in eval mode."
    return [Finding("determinism", "warning", gap, told, advice)]


def on_their_own(engine: Engine) -> list[Finding]:
    """Whether a row's outputs are the same alone and beside others."""
    split = _sample(engine)
    alone = Engine(engine.project, device=engine.device, batch_size=1)
    gap, same = _compared(engine, engine.outputs(split), alone.outputs(split))
    if same:
        told = f"Outputs do not depend on the other rows of a batch, on {len(split):,} training rows."
        return [Finding("independence", "ok", gap, told)]
    told = (
        f"Outputs of a row alone and beside others differ by up to {gap:.2g}, on {len(split):,} training "
        "rows: the influence of one row is not defined."
    )
    advice = "Use BatchNorm with running statistics in eval mode, and no operation across rows."
    return [Finding("independence", "warning", gap, told, advice)]


def in_training(engine: Engine) -> list[Finding]:
    """Whether the model computes differently in training: dropout, batch statistics."""
    kinds = modules_that_differ(engine.project.model, engine.project.train)
    if not kinds:
        return [Finding("eval mode", "ok", 0, "The model computes the same in training and in use.")]
    named = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
    told = (
        f"The model computes differently in training ({named}). "
        "Everything here is about the model in use, whose mean loss is not exactly what training minimised."
    )
    advice = "Read the stationarity with that in mind."
    return [Finding("eval mode", "note", kinds.total(), told, advice)]


def repeated_rows(engine: Engine) -> list[Finding]:
    """Exact repetitions inside the training rows, and evaluation rows that were trained on."""
    project, used = engine.project, _trained_on(engine)
    again, contradicting = repeats(project.train, project.model, used)
    told = f"{_some(again, len(used), 'training')} repeat an earlier training row exactly{_which(again)}."
    status, advice = "ok", ""
    if len(again):
        status, advice = "note", "Mark all copies of a row together: one that stays keeps the influence."
    if len(contradicting):
        told += (
            f" {len(contradicting):,} rows have an identical row with another label{_which(contradicting)}."
        )
        status, advice = (
            "warning",
            "Look at the contradicting rows first: of their labels at most one is right.",
        )
    findings = [Finding("duplicates", status, len(again), told, advice)]
    for name in SPLITS[1:]:
        split = getattr(project, name)
        if split is None:
            continue
        known = rows_also_in(split, project.train, project.model, used)
        told = f"{_some(known, len(split), name)} are training rows too{_which(known)}."
        advice = f"Take them out of {name}: a model looks better than it is on rows that it was trained on."
        status = "warning" if len(known) else "ok"
        findings.append(
            Finding(f"leakage into {name}", status, len(known), told, advice if len(known) else "")
        )
    return findings


def softmax_applied(engine: Engine) -> list[Finding]:
    """Whether the outputs are probabilities already, where the loss expects logits."""
    outputs = torch.cat([engine.outputs("train"), engine.outputs("validation")])
    binary = isinstance(engine.loss, BinaryCrossEntropy)
    top = outputs.amax() if binary else (outputs.sum(1) - 1).abs().amax() + 1
    if outputs.amin() < 0 or top > 1 + (0 if binary else 1e-4):
        return [Finding("logits", "ok", None, "The outputs are logits, as the loss expects.")]
    what = "a sigmoid" if binary else "softmax"
    told = (
        f"All {len(outputs):,} outputs are probabilities already, to which the loss applies {what} once "
        "more: loss, confidence and influence are those of another, flatter model."
    )
    return [Finding("logits", "warning", None, told, f"Return logits: take {what} out of the model.")]


def classes(engine: Engine) -> list[Finding]:
    """Whether every class has enough rows to be judged, and none drowns in training."""
    names = engine.project.classes
    targets = engine.project.train.targets.numpy(force=True)[_trained_on(engine)]
    train, validation = (
        np.bincount(labels, minlength=len(names))
        for labels in (targets, engine.project.validation.targets.numpy(force=True))
    )
    smallest = int(validation.min())
    told = (
        f"Classes have {train.min():,} to {train.max():,} training and {smallest:,} to {validation.max():,} "
        "validation rows."
    )
    if smallest < FEW:
        few = [names[k] for k in np.flatnonzero(validation < FEW)]
        told += (
            f" In class {', '.join(few[:8])}, one row moves accuracy by up to {100 / smallest:.0f} points."
        )
        advice = "Read figures of single classes with their intervals, or put more of their rows aside."
        return [Finding("classes", "warning" if smallest < VERY_FEW else "note", smallest, told, advice)]
    if train.max() > IMBALANCE * train.min():
        advice = "Hold a criterion on the rows of small classes: the mean over all rows hardly sees them."
        return [Finding("classes", "note", smallest, told, advice)]
    return [Finding("classes", "ok", smallest, told)]


def memorised(engine: Engine) -> list[Finding]:
    """Whether the training rows are fitted so well that little is left to measure influence with."""
    used = torch.as_tensor(_trained_on(engine), device=engine.device)
    outputs, targets = engine.outputs("train")[used], engine.split("train").targets[used]
    loss, n = float(engine.loss.plain(outputs, targets).mean()), len(used)
    nothing = ignorance(engine.loss.plain, targets, len(engine.project.classes))
    if engine.project.task is CLASSIFICATION:
        right = int((engine.loss.probabilities(outputs).argmax(1) == targets).sum())
        told = f"The model is right on {right:,} of {n:,} training rows, at a mean loss of {loss:.2g} nats"
    else:
        share = _percent(loss / nothing) if nothing else "none"
        told = f"On {n:,} training rows the model leaves {share} of the targets' variance unexplained"
    if loss > MEMORISED * nothing:
        return [Finding("memorisation", "ok", loss, f"{told}.")]
    told += ": gradients and curvature have all but vanished, and psi rests on what little is left."
    advice = "Read psi as a rough order and trust what is measured; stronger weight decay would help."
    return [Finding("memorisation", "warning", loss, told, advice)]


CHECKS: dict[str, Callable[[Engine], list[Finding]]] = {
    "the data": noted,
    "the objective": at_a_minimum,
    "determinism": same_twice,
    "independence of rows": on_their_own,
    "training mode": in_training,
    "repeated rows": repeated_rows,
    "memorisation": memorised,
}
CHECKS_OF_CLASSES: dict[str, Callable[[Engine], list[Finding]]] = {
    "logits": softmax_applied,
    "classes": classes,
}


def _sample(engine: Engine) -> Split:
    rows = np.random.default_rng(0).permutation(engine.n)[:SAMPLE]
    return engine.split("train").take(rows)


def _compared(engine: Engine, first: Tensor, second: Tensor) -> tuple[float, bool]:
    """The largest difference, and whether rounding in the model's own type explains it."""
    gap, scale = float((first - second).abs().max()), float(first.abs().max())
    return gap, gap <= ROUNDINGS * torch.finfo(model_dtype(engine.project.model)).eps * scale


def _trained_on(engine: Engine) -> np.ndarray:
    """Training rows (m,) whose weight is not 0."""
    weights = engine.project.train.weights
    return np.arange(engine.n) if weights is None else np.flatnonzero(weights.numpy(force=True))


def _percent(share: float) -> str:
    return f"{100 * share:,.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def _some(rows: np.ndarray, n: int, split: str) -> str:
    return f"{len(rows):,} of {n:,} {split} rows ({_percent(len(rows) / n)})"


def _which(rows: np.ndarray) -> str:
    return f": rows {listing(rows.tolist())}" if len(rows) else ""
