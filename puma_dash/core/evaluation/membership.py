"""Removal evidence: how far a patched model is, on the removed rows, from models that never saw them.

Each reference model is retrained from scratch with another seed, k times with the rows and k times on the
rows as the plan leaves them. A row i and a model f have the score

    s_i(f) = log N(phi_i(f); mu_in_i, sigma_in) - log N(phi_i(f); mu_out_i, sigma_out),

phi = log(p / (1 - p)) of the row's label, the means mu over the references of either kind by row, the
standard deviations over all rows: s > 0 where f treats the row as models do that trained on it. A reference
is scored by the others, so that scores of a patched model and of retraining may be compared: if they cannot
be told apart, AUC is 0.5. That is evidence about these rows, this attack and k references, and no proof.

References:
    Carlini et al. (2022), Membership inference attacks from first principles.
    Hayes et al. (2024), Inexact unlearning needs more careful evaluations to avoid a false sense of privacy.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from puma_dash.core.engine import Engine, engine_of
from puma_dash.core.evaluation.statistics import row_draws
from puma_dash.core.retraining import Check, Training, results, retraining_estimate
from puma_dash.core.task import CLASSIFICATION
from puma_dash.core.types import Patch, Project, ProjectError
from puma_dash.core.unlearning.tuning import planned_rows

if TYPE_CHECKING:
    import pandas as pd

    from puma_dash.core.curvature import Estimate
    from puma_dash.core.engine import CancelEvent, Progress

FALSE_POSITIVES = 0.01
LEVEL = 0.95
SMALLEST_PROBABILITY = 1e-12


@dataclass(frozen=True, eq=False)
class RemovalEvidence:
    """How a patched model differs from retraining on the rows whose influence was to go.

    ``membership`` has a row for the model before, after and retrained with the rows: ``score``, the mean
    membership score; ``shift``, by how much it lies above that of retraining without them; ``auc`` and
    ``tpr`` at 1 % false positives of telling the two apart, each with a bootstrap interval over rows (.5 and
    .01: not told apart). Its last row, "another retraining", is the yardstick: each reference without the
    rows against the others, the mean and 95 % of them. A single model is off by its seed, which the
    intervals of the other rows do not know.

    ``distances`` has the distance to retraining of the model before, after, and of another retraining (the
    floor): |theta - theta_retrained| and the mean total variation between predicted probabilities on
    validation and on the removed rows, each the mean over references. ``rows`` has the scores by row.
    """

    membership: pd.DataFrame
    distances: pd.DataFrame
    rows: pd.DataFrame
    references: int
    fingerprint: str
    diagnostics: dict[str, Any]

    @property
    def sentence(self) -> str:
        """What was seen, in words that claim no more."""
        before, after, exact = (
            self.membership.loc[name] for name in ("before", "after", "another retraining")
        )
        return (
            f"Membership-score shift versus retraining on {len(self.rows):,} rows: {before['shift']:+.2f} "
            f"before the patch, {after['shift']:+.2f} after; AUC {before['auc']:.2f} before, "
            f"{after['auc']:.2f} after ({after['auc_low']:.2f} to {after['auc_high']:.2f}), and "
            f"{exact['auc_low']:.2f} to {exact['auc_high']:.2f} of one retraining against "
            f"others. Evidence from {self.references} references of each kind, no proof of removal."
        )


def removal_evidence(
    project: Project,
    patch: Patch,
    references: int = 8,
    *,
    jobs: int | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: Progress | None = None,
    cancel: CancelEvent | None = None,
) -> RemovalEvidence:
    """Membership scores of the removed and relabelled rows against ``references`` retrained models each way.

    Args:
        project: the model and data before the patch.
        patch: of it; its plan removes or relabels rows.
        references: models retrained with the rows, and as many without; each takes a whole training.
        jobs: how many train at a time; None follows ``joblib.parallel_config``, which may name a cluster,
            and else takes one process per core if it pays.
        seed: the first of the references' seeds, and of the intervals.
        device: where references train and rows are scored.
        progress: called as ``progress(done, total, message)``.
        cancel: an event; once set, the call raises ``Cancelled``.

    The references are kept: those without the rows for other patches by the same plan, the others for all.

    Raises:
        ProjectError: the patch is of another project, it removes nothing, or the task has no classes.
    """
    import pandas as pd

    if patch.fingerprint != project.fingerprint:
        raise ProjectError("expected a patch of this project, but it belongs to another; try patching again.")
    if project.task is not CLASSIFICATION:
        raise ProjectError(
            "expected classes, whose probabilities tell members apart, but the project is a regression; "
            "try puma.compare, which shows the marked rows' errors."
        )
    removed = np.array(sorted({*patch.plan.remove, *patch.plan.relabel}), dtype=np.int64)
    if not len(removed):
        raise ProjectError(
            "expected a plan that removes or relabels rows, but this one only up-weights some."
        )
    if references < 4:
        raise ProjectError(
            f"expected at least 4 references of each kind, to score one by the others, but got {references}."
        )
    start = time.perf_counter()

    def half(number: int) -> Progress | None:
        return progress and (lambda done, total, told: progress(number * total + done, 2 * total, told))

    engine = engine_of(project, device, half(0), cancel)
    training = Training.of(engine)
    with_rows = references_of(engine, training, (), references, jobs, seed)
    engine.listen(half(1), cancel)
    changed, weights = planned_rows(engine, patch.plan)  # without what a method adds to compensate
    training = replace(training, train=changed, weights=torch.as_tensor(weights))
    marks = patch.plan.remove, tuple(patch.plan.upweight.items()), tuple(patch.plan.relabel.items())
    without = references_of(engine, training, marks, references, jobs, seed)
    engine.tick(references, references, "Scoring the rows")
    marked, labels = engine.split("train").take(removed), project.train.targets[removed].numpy(force=True)

    def looked(model: nn.Module) -> tuple[np.ndarray, np.ndarray]:
        there = Engine(project.with_model(model), device=engine.device)
        return tuple(  # type: ignore[return-value]
            there.probabilities(there.outputs(split)).astype(np.float64)
            for split in (marked, engine.split("validation"))
        )

    seen = [looked(model) for model in (project.model, patch.model, *with_rows, *without)]
    phi = np.stack([logits(p, labels) for p, _ in seen])  # (2 + 2k, rows)
    members, others = phi[2 : 2 + references], phi[2 + references :]
    scores = {
        name: leave_one_out(found, members, others)
        for name, found in {"before": phi[0], "after": phi[1], "retrained with": members}.items()
    }
    against = leave_one_out(others, members, others)
    table = {name: _told_apart(found, against, seed) for name, found in scores.items()}
    table["another retraining"] = _among(members, others)
    return RemovalEvidence(
        membership=pd.DataFrame.from_dict(table, orient="index"),
        distances=_distances(engine, [project.model, patch.model], without, seen, references),
        rows=pd.DataFrame({"row": removed, **{name: found.mean(0) for name, found in scores.items()}}).assign(
            **{"retrained without": against.mean(0)}
        ),
        references=references,
        fingerprint=project.fingerprint,
        diagnostics={"seconds": time.perf_counter() - start, "seed": seed, "device": str(engine.device)},
    )


def evidence_estimate(project: Project, references: int = 8, *, device: str | None = None) -> Estimate:
    """What the references will cost if none is kept, one training after the other.

    Raises:
        ProjectError: the project brings a trainer of its own.
    """
    engine = engine_of(project, device)
    return retraining_estimate(engine, 2 * references, engine.n)


@dataclass(frozen=True, eq=False)
class Reference:
    """The state of a model trained from scratch, given its seed."""

    training: Training

    def __call__(self, seed: int, check: Check) -> dict[str, np.ndarray]:
        """Weights and buffers by name."""
        model = self.training.without(None, seed, check)
        return {name: value.numpy(force=True) for name, value in model.state_dict().items()}


def references_of(
    engine: Engine, training: Training, marks: tuple[Any, ...], count: int, jobs: int | None, seed: int
) -> list[nn.Module]:
    """``count`` models by ``training``, kept under the ``marks`` of the plan that it follows."""
    project, work = engine.project, Reference(training)

    def train() -> dict[str, np.ndarray]:
        seeds, message = range(seed + 1, seed + 1 + count), "Training references"
        message += " without the rows" if marks else " with the rows"
        states = results(engine, work, seeds, jobs, message)
        return {f"{k}.{name}": array for k, state in enumerate(states) for name, array in state.items()}

    name = f"{count} references from seed {seed}, marks {sha256(repr(marks).encode()).hexdigest()}"
    if name not in project.memo:
        project.memo[name] = engine.keep(name, train)
    return [_model(project, project.memo[name], f"{k}.") for k in range(count)]


def _model(project: Project, arrays: dict[str, np.ndarray], prefix: str) -> nn.Module:
    """The project's model with the weights and buffers that have that prefix.

    Raises:
        ProjectError: they are those of another kind of model.
    """
    model = copy.deepcopy(project.model)
    names = {name.removeprefix(prefix) for name in arrays if name.startswith(prefix)}
    if names != set(model.state_dict()):
        raise ProjectError(
            "expected the project's trainer to return a model like the one it is given, but its parameters "
            "have other names; try a trainer that trains its first argument."
        )
    model.load_state_dict({name: torch.from_numpy(arrays[prefix + name]) for name in names})
    return model


def logits(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Phi = log(p / (1 - p)) (m,) of the labels' probabilities (m, c), 1 - p as the sum of the others."""
    own = np.arange(len(labels)), labels
    rest = probabilities.copy()
    rest[own] = 0
    p, q = (np.maximum(part, SMALLEST_PROBABILITY) for part in (probabilities[own], rest.sum(1)))
    return np.log(p) - np.log(q)


def leave_one_out(phi: np.ndarray, members: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Membership scores (k, m), of draw r by all references but those numbered r.

    Args:
        phi: (m,) of one model, scored k times, or (k, m) of k models of which number r is scored by draw r.
        members: (k, m) phi of the references trained with the rows.
        others: (k, m) of those trained without them.
    """
    k = len(members)
    each = np.broadcast_to(phi, (k, members.shape[1]))
    return np.stack(
        [likelihood_ratio(each[r], np.delete(members, r, 0), np.delete(others, r, 0)) for r in range(k)]
    )


def likelihood_ratio(phi: np.ndarray, members: np.ndarray, others: np.ndarray) -> np.ndarray:
    """log N(phi; mu_in, sigma_in) - log N(phi; mu_out, sigma_out) (m,), sigma shared by the rows.

    A few references give a row's mean but no variance worth having (Carlini et al., section 6).
    """

    def density(known: np.ndarray) -> np.ndarray:
        variance = max(float(known.var(0, ddof=1).mean()), SMALLEST_PROBABILITY)
        return -0.5 * ((phi - known.mean(0)) ** 2 / variance + np.log(variance))

    return density(members) - density(others)


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Chance that a positive scores above a negative; ties count half."""
    ordered = np.sort(negative, axis=None)
    below, upto = (np.searchsorted(ordered, positive.ravel(), side) for side in ("left", "right"))
    return float((below + upto).mean() / 2 / ordered.size)


def tpr_at(positive: np.ndarray, negative: np.ndarray, most: float = FALSE_POSITIVES) -> float:
    """The largest share of positives found by a threshold that at most ``most`` of the negatives reach."""
    ordered = np.sort(negative, axis=None)[::-1]
    allowed = int(np.floor(most * ordered.size + 1e-9))
    if allowed >= ordered.size:
        return 1.0
    return float((positive > ordered[allowed]).mean())


def _told_apart(scores: np.ndarray, against: np.ndarray, seed: int) -> dict[str, float]:
    """Mean score and how well ``scores`` (k, m) are told from retraining's (k, m), with intervals."""
    found = {"score": float(scores.mean()), "shift": float(scores.mean() - against.mean())}
    rows = np.zeros(scores.shape[1], dtype=np.int64)

    def on(some: np.ndarray, measure: Callable[[np.ndarray, np.ndarray], float]) -> float:
        return measure(scores[:, some], against[:, some])

    for name, measure in {"auc": auc, "tpr": tpr_at}.items():
        drawn = row_draws(partial(on, measure=measure), rows, seed=seed)
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        found |= {name: measure(scores, against), f"{name}_low": float(low), f"{name}_high": float(high)}
    return found


def _among(members: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """What one retraining without the rows looks like to the others: means, and intervals over which one."""
    each = []
    for r in range(len(others)):
        ins, outs = (np.delete(known, r, 0) for known in (members, others))
        scores, against = leave_one_out(others[r], ins, outs), leave_one_out(outs, ins, outs)
        shift = scores.mean() - against.mean()
        each.append((scores.mean(), shift, auc(scores, against), tpr_at(scores, against)))
    values = np.array(each)
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    mean = values.mean(0)
    found = {"score": mean[0], "shift": mean[1]}
    for k, name in ((2, "auc"), (3, "tpr")):
        found |= {name: mean[k], f"{name}_low": low[k], f"{name}_high": high[k]}
    return {name: float(value) for name, value in found.items()}


def _distances(
    engine: Engine,
    models: list[nn.Module],
    references: list[nn.Module],
    seen: list[tuple[np.ndarray, np.ndarray]],
    count: int,
) -> pd.DataFrame:
    """How far the model before, after, and one retraining from another are from retraining."""
    import pandas as pd

    answers = seen[2 + count :]

    def between(a: tuple[nn.Module, Any], b: tuple[nn.Module, Any]) -> tuple[float, float, float]:
        (one, p), (other, q) = a, b
        removed, validation = (float(np.abs(x - y).sum(1).mean() / 2) for x, y in zip(p, q, strict=True))
        return _apart(engine, one, other), validation, removed

    known = list(zip(references, answers, strict=True))
    table = {
        name: np.mean([between((model, own), reference) for reference in known], 0)
        for name, model, own in zip(("before", "after"), models, seen, strict=False)
    }
    pairs = [between(a, b) for i, a in enumerate(known) for b in known[:i]]
    table["another retraining"] = np.mean(pairs, 0)
    names = ["parameters", "predictions on validation", "predictions on the rows"]
    return pd.DataFrame.from_dict(table, orient="index", columns=names)


def _apart(engine: Engine, one: nn.Module, other: nn.Module) -> float:
    """|theta - theta'|, nan where one of them is of another kind."""
    names = [{name for name, _ in model.named_parameters()} for model in (one, other)]
    if names[0] != names[1]:
        return float("nan")
    return float((engine.theta_of(one) - engine.theta_of(other)).norm())
