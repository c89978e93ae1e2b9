"""Influence functions as published: psi of the plain loss, solved by conjugate gradients or by LiSSA."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from puma_dash.core.criteria import CRITERIA, Criterion
from puma_dash.core.curvature import ConjugateGradient, Estimate, LiSSA, inverse_of
from puma_dash.core.curvature.damping import calibration_estimate, damping_field
from puma_dash.core.curvature.influence import influences_of, scoring_estimate
from puma_dash.core.registry import Described

if TYPE_CHECKING:
    from torch import Tensor

    from puma_dash.core.curvature import Curvature
    from puma_dash.core.engine import Engine


@dataclass(frozen=True)
class Influence(Described):
    """grad L^T B^-1 (a_j grad l_j), L the mean loss on the evaluation rows: psi of the plain loss.

    Removing row j changes L by about score / n, so the sign is that of the released code; the published
    I_up,loss is its negative. Whatever the criterion measures, only its rows count. Damping is the true one
    with both solvers, B = G + (wd + damping) I; in the published LiSSA recursion it is damping * scale.
    """

    label = "influence functions"
    reference = "Koh & Liang (2017), Understanding black-box predictions via influence functions"
    needs = ("criterion",)

    solver: str = field(
        default="cg",
        metadata={"help": "Conjugate gradients to a residual of .001, or LiSSA.", "choices": "cg lissa"},
    )
    damping: float | str = damping_field()

    def __call__(
        self, engine: Engine, criterion: Criterion, curvature: str | Curvature
    ) -> tuple[Tensor, dict[str, Any]]:
        """Scores (n,) in the unit of psi, and how they were solved for."""
        loss = self._loss(engine, criterion)
        (found,) = influences_of(engine, [loss], inverse_of(engine, self._solver()))
        return found.psi, {
            **found.facts,
            "evaluated": loss.name,
            "criterion_value": found.value,
            "residual": found.residual,
            "iterations": found.iterations,
        }

    def estimate(self, engine: Engine) -> Estimate:
        """What solve and scores will cost."""
        settling = calibration_estimate(engine, self.damping)
        own = self._solver().estimate(engine) + scoring_estimate(engine)
        return own if settling is None else own + settling

    def _solver(self) -> Curvature:
        if self.solver == "lissa":
            return LiSSA(damping=self.damping)
        return ConjugateGradient(damping=self.damping, tolerance=1e-3)

    @staticmethod
    def _loss(engine: Engine, criterion: Criterion) -> Criterion:
        """The plain loss on the rows that ``criterion`` is about."""
        rows = {entry.name: getattr(criterion, entry.name) for entry in dataclasses.fields(Criterion)}
        return CRITERIA[engine.project.task.criterion](**rows)
