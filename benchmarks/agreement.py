"""Our values against those of published implementations, where both compute the same thing.

The peers answer in processes of their own (``peer_agreement``), in float64, on the digits demo with its
checkpoints, and on a softmax regression, whose Hessian is its Gauss-Newton matrix.
"""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from torch import nn

import puma_dash as puma
from benchmarks.peers import PYTHON, installed, run, versions

L2, TEST = 0.006, 100
LAST = "3.weight"
"""Of the demo's network; TracInCPFast leaves the bias out."""
TRACIN = puma.VALUATIONS["tracin"]
REPRESENTER = puma.VALUATIONS["representer"]
EXACT = {"curvature": puma.Dense(damping=0.0)}
CONJUGATE = {"curvature": puma.ConjugateGradient(damping=0.0, tolerance=1e-10)}
ASKED: dict[str, list[tuple[str, str, Any, dict]]] = {
    "network": [
        ("TracIn", "captum TracInCP", "tracin", {}),
        ("TracIn", "dattri TracIn", "tracin", {}),
        ("TracIn, weights of the last layer", "captum TracInCPFast", TRACIN(layers=LAST), {}),
        ("TracIn, self-influence", "captum TracInCP, self-influence", TRACIN(self_influence=True), {}),
        (
            "TracIn, self-influence, weights of the last layer",
            "captum TracInCPFast, self-influence",
            TRACIN(self_influence=True, layers=LAST),
            {},
        ),
        ("representer points", "dattri RPS", REPRESENTER(l2=L2), {}),
        ("KNN-Shapley", "dattri KNN-Shapley", puma.KnnShapley(), {}),
    ],
    "regression": [
        ("psi, dense", "captum NaiveInfluenceFunction", "psi", EXACT),
        ("psi, dense", "dattri IF, explicit", "psi", EXACT),
        ("psi, conjugate gradients to 1e-10", "dattri IF, CG", "psi", CONJUGATE),
        ("influence, conjugate gradients to .001", "dattri IF, CG", puma.Influence(damping=0.0), {}),
        ("influence, LiSSA", "dattri IF, CG", puma.Influence(solver="lissa", damping=0.0), {}),
    ],
}
"""Case -> ours in words, the peer's, our method, how it is called."""
READ = (
    "Relative error is |ours - theirs| / |theirs| over all 1 000 training rows; the slope is that of ours "
    "against theirs. Peers are called so that they compute the same: TracIn without its random projection, "
    "RPS with labels and a constant feature in place of the model's own outputs, influence on all rows in "
    "one batch with the weight decay as regularisation. RPS ends its fit early, dattri sums in float32, and "
    "influence ends at a residual of .001, LiSSA at its own: these set how far agreement can go."
)


def measure() -> Iterator[tuple]:
    """Title, table and a sentence; nothing without the peers."""
    if not installed():
        print("\nagreement: left out, no peers; `make bench-peers` installs them")
        return
    library, rows = versions(), []
    with tempfile.TemporaryDirectory() as scratch:
        for name, asked in ASKED.items():
            project = PROJECTS[name]()
            file = Path(scratch) / f"{name}.pt"
            torch.save(case_of(project), file)
            theirs = {}
            for ours, peer, method, settings in asked:
                if peer not in theirs:
                    theirs[peer] = run(PYTHON, "peer_agreement", peer, file)[1]
                scores = puma.value(project, method, device="cpu", **settings).scores
                label = peer.replace(peer.split()[0], library[peer.split()[0]])
                rows.append({"case": name, "ours": ours, "theirs": label, **compared(scores, theirs[peer])})
    yield "Values of all rows against published implementations, float64", pd.DataFrame(rows), READ


def network() -> puma.Project:
    """The digits demo with its checkpoints, in float64."""
    project = puma.load("digits")
    return in_double(project, project.model, project.records)


def regression() -> puma.Project:
    """A softmax regression of the same rows, at its minimum."""
    project = puma.load("digits")
    x, y = project.train.inputs.flatten(1).double().numpy(), project.train.targets.numpy()
    weak = 1 / (project.weight_decay * len(y))
    fit = LogisticRegression(C=weak, fit_intercept=False, tol=1e-12, max_iter=10_000)
    model = nn.Sequential(nn.Flatten(), nn.Linear(x.shape[1], 10, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.from_numpy(fit.fit(x, y).coef_))
    return in_double(project, model, None)


PROJECTS = {"network": network, "regression": regression}


def in_double(project: puma.Project, model: nn.Module, records: puma.Records | None) -> puma.Project:
    """``project`` with this model, all numbers in float64."""
    splits = {
        name: dataclasses.replace(split, inputs=split.inputs.double())
        for name, split in {
            "train": project.train,
            "validation": project.validation.take(np.arange(TEST)),
        }.items()
    }
    return dataclasses.replace(project, model=copy.deepcopy(model).double(), records=records, **splits)


def case_of(project: puma.Project) -> dict[str, Any]:
    """What a peer is asked about, in plain torch."""
    train, test, records = project.train, project.validation, project.records
    case = {"model": project.model, "x": train.inputs, "y": train.targets, "decay": project.weight_decay}
    case |= {"test_x": test.inputs, "test_y": test.targets, "l2": L2}
    if records is not None:
        rates = [records.rates[epoch - 1] for epoch in records.epochs]
        case |= {"checkpoints": records.checkpoints.double(), "rates": rates}
    return case


def compared(ours: np.ndarray, theirs: np.ndarray | None) -> dict[str, str]:
    """How far two answers agree; nothing where the peer failed."""
    if theirs is None:
        return dict.fromkeys(("Spearman", "relative error", "slope"), "failed")
    return {
        "Spearman": f"{spearmanr(ours, theirs).statistic:.6f}",
        "relative error": f"{np.linalg.norm(ours - theirs) / np.linalg.norm(theirs):.1e}",
        "slope": f"{ours @ theirs / (theirs @ theirs):.6f}",
    }
