"""What a patch will cost, before it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from puma_dash.core.criteria import resolve_criterion
from puma_dash.core.curvature import Curvature, Estimate, for_patches, settled
from puma_dash.core.curvature.costs import BACKWARD, RECORDED, Costs
from puma_dash.core.curvature.damping import calibration_estimate
from puma_dash.core.curvature.influence import scoring_estimate
from puma_dash.core.engine import engine_of
from puma_dash.core.retraining import retraining_estimate
from puma_dash.core.unlearning import Retrain, resolve_unlearner
from puma_dash.core.unlearning.base import check_plan_for

if TYPE_CHECKING:
    from puma_dash.core.plan import PatchPlan
    from puma_dash.core.types import Project


def patch_estimate(
    project: Project, plan: PatchPlan, *, curvature: str | Curvature = "auto", device: str | None = None
) -> Estimate:
    """What ``plan`` will cost in seconds and bytes, if what must hold holds at the first attempt.

    Whatever this session has factored and scored already is not counted again. Only one batch is run, to
    time it.

    Args:
        project: model and data.
        plan: what is to be done.
        curvature: a key of ``CURVATURES`` or an instance.
        device: "cuda", "cuda:1", "cpu"; None takes CUDA where there is one.

    Raises:
        ProjectError: the plan does not fit the project, or nobody can tell how long its trainer takes.
    """
    check_plan_for(project, plan)
    engine = engine_of(project, device)
    method = resolve_unlearner(plan.method)
    if isinstance(method, Retrain):
        return retraining_estimate(engine, 1, engine.n)
    if hasattr(method, "estimate"):
        return method.estimate(engine, plan)
    exact: Any = settled(engine, curvature)
    coarse = settled(engine, for_patches(curvature, engine.n))
    inverse = engine.memo.get(exact)
    known = {} if inverse is None else engine.memo.get(inverse, {})
    new = [held for held in map(resolve_criterion, plan.hold) if held not in known]
    total = Estimate(0.0, 0, "")
    settling = calibration_estimate(engine, exact.damping)
    if inverse is None:
        total += exact.estimate(engine) if settling is None else exact.estimate(engine) + settling
    elif new:
        total += exact.estimate(engine)
    for _ in new:
        total += scoring_estimate(engine)
    if coarse not in engine.memo or coarse != exact:
        total += coarse.estimate(engine)
    costs, held_out = Costs.of(engine), len(project.validation)
    steps = costs.passes(engine.n, RECORDED + BACKWARD) + costs.passes(held_out, 2 + len(plan.hold))
    total += Estimate(steps, int(3 * costs.graph(min(engine.n, engine.batch_size))), "measuring")
    for _ in range(plan.steps - 1):
        further = costs.passes(engine.n, 2 * (RECORDED + BACKWARD))
        total += Estimate(further, 0, "a further step") + coarse.estimate(engine)
    return total
