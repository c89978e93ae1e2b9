"""Leverage: how much of the model's freedom one training row takes up, and removals that respect it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from puma_dash.core.curvature.forms import form_of
from puma_dash.core.curvature.streams import Stream, slopes
from puma_dash.core.engine import engine_of
from puma_dash.core.valuation.pairwise import split_index

if TYPE_CHECKING:
    from puma_dash.core.curvature import Curvature
    from puma_dash.core.curvature.forms import Form
    from puma_dash.core.engine import CancelEvent, Engine, Progress
    from puma_dash.core.types import Project


def leverage(
    project: Project,
    rows: Any = None,
    *,
    curvature: str | Curvature = "auto",
    parameters: str = "all",
    sampled: int | None = None,
    device: str | None = None,
    progress: Progress | None = None,
    cancel: CancelEvent | None = None,
) -> NDArray[np.float64]:
    """h_i = tr(a_i H_i K_ii) / n (m,) with K_ii = J_i B^-1 J_i^T: each from 0 to below the number of outputs.

    Over all training rows they add up to the effective number of parameters, tr(B^-1 G). A row with h_i near
    the number of outputs decides its own prediction. The label plays no part, unlike in self-influence, which
    divided by n can exceed any bound. It takes as many backward passes as there are outputs.

    Args:
        project: model and data.
        rows: training rows; None for all.
        curvature: a key of ``CURVATURES`` or an instance; the dense B is exact, else its damping is used.
        parameters: which take part: "all", "last" or a pattern of names.
        sampled: gradients that make up the curvature where B is not dense; None chooses.
        device: "cuda", "cuda:1", "cpu"; None takes CUDA where there is one.
        progress: called as ``progress(done, total, message)``.
        cancel: an event; once set, the call raises ``Cancelled``.

    Raises:
        ProjectError: no such rows, or parameters without gradients by row.

    References:
        Cook & Weisberg (1982), Residuals and influence in regression.
    """
    engine = engine_of(project, device, progress, cancel, parameters)
    index = torch.from_numpy(split_index(engine, "train", rows))
    form = form_of(engine, curvature, sampled, balanced=True)
    found = over_own(engine, form, index, lambda part, outputs, own, curved: (curved * own).sum((1, 2)))
    return found.double().numpy(force=True)


def corrected_psi(engine: Engine, form: Form, direction: Tensor) -> Tensor:
    """n grad C^T delta_j (n,) with delta_j the exact removal of row j in the quadratic model of J.

    delta_j = (1/n) B^-1 J_j^T (I - C_j K_jj)^-1 v_j with v_j the slope of a_j l_j in the outputs and
    C_j = a_j H_j / n: the row takes its curvature along. For one output that divides psi_j by 1 - h_j.

    Args:
        engine: of the project.
        form: of B.
        direction: B^-1 grad C (p,).
    """
    train = engine.split("train")
    _, moved = engine.pushforward(train, direction)  # J_j B^-1 grad C, (n, c)

    def removed(part: slice, outputs: Tensor, own: Tensor, curved: Tensor) -> Tensor:
        v = slopes(engine.loss, train, outputs, part).to(own)
        eye = torch.eye(own.shape[-1]).to(own)
        return (moved[part].to(own) * torch.linalg.solve(eye - curved @ own, v)).sum(1)

    return over_own(engine, form, torch.arange(engine.n), removed)


def over_own(engine: Engine, form: Form, index: Tensor, work: Callable[..., Tensor]) -> Tensor:
    """``work`` (m,) of the training rows ``index`` (m,).

    It is called with a slice of them, their outputs (b, c), K_ii and C_i = a_i H_i / n, both (b, c, c). Where
    K_ii leaves the row's own share of B out, it is added: (K_ii^-1 + C_i)^-1.
    """
    train = engine.split("train")
    every = torch.equal(index, torch.arange(engine.n))
    chosen = train if every else train.take(index.numpy())
    c = engine.outputs(train.take(np.arange(1))).shape[1]
    stream = Stream(engine, chosen, parts=c, message="Leverage")

    def one(part: slice) -> Tensor:
        recording = stream.recording(part)
        outputs = recording.outputs.detach()
        units = torch.eye(c).to(outputs)[:, None].expand(c, len(outputs), c)
        own = form.blocks([stream.pulled(recording, unit) for unit in units], index[part])
        root = engine.loss.hessian_root(outputs, chosen.targets[part]).to(own)
        curved = stream.weighted(root @ root.transpose(1, 2), part) / engine.n
        if form.apart:
            own = torch.linalg.solve(torch.eye(c).to(own) + own @ curved, own)
        return work(part, outputs, own, curved)

    return torch.cat(stream.over(one))
