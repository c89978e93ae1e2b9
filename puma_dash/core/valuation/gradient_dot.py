"""Gradient dot product: psi with the identity in place of the inverse curvature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from puma_dash.core.curvature.influence import scoring_estimate
from puma_dash.core.registry import Described

if TYPE_CHECKING:
    from torch import Tensor

    from puma_dash.core.criteria import Criterion
    from puma_dash.core.curvature import Curvature, Estimate
    from puma_dash.core.engine import Engine


@dataclass(frozen=True)
class GradientDot(Described):
    """grad C^T (a_j grad l_j): the limit of psi for large damping, up to scale; no solve."""

    label = "gradient dot product"
    reference = "Charpiat et al. (2019), Input similarity from the neural network perspective"
    needs = ("criterion",)

    def __call__(
        self, engine: Engine, criterion: Criterion, curvature: str | Curvature
    ) -> tuple[Tensor, dict[str, Any]]:
        """Scores (n,) and the criterion's value."""
        value, gradient = engine.criterion_gradient(criterion)
        return engine.directional_scores(gradient[None])[0], {"criterion_value": value}

    def estimate(self, engine: Engine) -> Estimate:
        """What a gradient and a scoring pass will cost."""
        return scoring_estimate(engine)
