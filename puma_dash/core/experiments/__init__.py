"""The experiments of the source, by figure: each repeated over seeds, with tables, arrays and a verdict."""

from __future__ import annotations

from typing import Any

from puma_dash.core.experiments.base import Experiment, Result
from puma_dash.core.experiments.directions import Directions
from puma_dash.core.experiments.mislabels import Mislabels
from puma_dash.core.experiments.moons import CalibratedMoons, KindsOfRows
from puma_dash.core.experiments.radial import ForgottenCluster
from puma_dash.core.experiments.rails import Rails
from puma_dash.core.experiments.style import ForgottenStyle

__all__ = ["EXPERIMENTS", "Experiment", "Result"]

EXPERIMENTS: dict[str, Any] = {
    "fig3": Rails,
    "fig4": Directions,
    "fig5": Mislabels,
    "fig6": ForgottenCluster,
    "fig8": KindsOfRows,
    "fig9": CalibratedMoons,
    "fig7": ForgottenStyle,  # the longest, and the one that needs files, at the end
}
