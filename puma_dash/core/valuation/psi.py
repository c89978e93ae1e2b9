"""psi: the influence of every training row on a criterion, for one solve and one pass over the data.

psi_j = grad C^T B^-1 (a_j grad l_j). Removing row j changes C by about psi_j / n, so psi < 0 is harmful.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from puma_dash.core.curvature import Curvature, inverse_of
from puma_dash.core.curvature.forms import form_of
from puma_dash.core.curvature.influence import ask_first, influences_of
from puma_dash.core.registry import Described
from puma_dash.core.valuation.leverage import corrected_psi

if TYPE_CHECKING:
    from torch import Tensor

    from puma_dash.core.criteria import Criterion
    from puma_dash.core.engine import Engine


@dataclass(frozen=True)
class Psi(Described):
    """Influence on the criterion through the inverse curvature (PUMA, eq. 8c)."""

    label = "psi (influence on the criterion)"
    reference = "Wu, Hashemi & Srinivasa (2022), PUMA: performance unchanged model augmentation"
    needs = ("criterion", "curvature")

    leverage: bool = field(
        default=False,
        metadata={"help": "Each row takes its own curvature along: exact single removals, slower."},
    )

    def __call__(
        self, engine: Engine, criterion: Criterion, curvature: str | Curvature
    ) -> tuple[Tensor, dict[str, Any]]:
        """psi (n,) and how it was computed."""
        ask_first(engine, [criterion], curvature)
        (found,) = influences_of(engine, [criterion], inverse_of(engine, curvature))
        psi, facts = found.psi, found.facts
        if self.leverage:
            begin = time.perf_counter()
            form = form_of(engine, curvature, balanced=True)
            psi = corrected_psi(engine, form, found.direction)
            took = facts["seconds"] + time.perf_counter() - begin
            facts = {**facts, "leverage": form.facts, "seconds": took}
        return psi, {
            **facts,
            "criterion_value": found.value,
            "residual": found.residual,
            "iterations": found.iterations,
        }
