"""PUMA Dash: find the training rows that make a model fail, patch their influence away, compare.

The names below are the public API; each is imported on first use, so that ``import puma_dash`` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from puma_dash._version import __version__

if TYPE_CHECKING:
    from puma_dash.core.api import apply, estimate, load, patch, value, values
    from puma_dash.core.architectures import ARCHITECTURES
    from puma_dash.core.comparison import compare
    from puma_dash.core.criteria import (
        CRITERIA,
        Adversarial,
        Brier,
        Calibration,
        CrossEntropy,
        DemographicParity,
        EqualizedOdds,
        Margin,
        MeanSquaredError,
        WorstGroup,
        WorstGroupError,
    )
    from puma_dash.core.curvature import CURVATURES, EKFAC, KFAC, ConjugateGradient, Dense, Estimate, LiSSA
    from puma_dash.core.demos import DEMOS
    from puma_dash.core.embedding import EMBEDDINGS
    from puma_dash.core.evaluation.agreement import agreement
    from puma_dash.core.evaluation.datamodeling import DatamodelingScore, datamodeling_score
    from puma_dash.core.evaluation.flips import FlipSearch, find_flips
    from puma_dash.core.evaluation.health import Finding, health
    from puma_dash.core.evaluation.membership import RemovalEvidence, removal_evidence
    from puma_dash.core.evaluation.trust import Decomposition, decompose
    from puma_dash.core.first_order import curve_by_rows, predicted_change
    from puma_dash.core.forecasting import forecast
    from puma_dash.core.loaders import LOADERS
    from puma_dash.core.loaders.project_folder import read_data
    from puma_dash.core.objective import LOSSES, BinaryCrossEntropy, SoftmaxCrossEntropy, SquaredError
    from puma_dash.core.plan import PatchPlan
    from puma_dash.core.reading import read_rows, read_scores
    from puma_dash.core.recorder import Recorder, Records, read_records
    from puma_dash.core.saved import read_patch
    from puma_dash.core.training import AdamRecipe, SGDRecipe
    from puma_dash.core.types import (
        Cancelled,
        Comparison,
        Forecast,
        Patch,
        Project,
        ProjectError,
        Selection,
        Split,
        Valuation,
    )
    from puma_dash.core.unlearning import UNLEARNERS, InfluenceRemoval, Puma, Retrain
    from puma_dash.core.unlearning.sisa import train_shards
    from puma_dash.core.valuation import (
        DVRL,
        VALUATIONS,
        ConfidentLearning,
        DataShapleyG,
        DataShapleyTMC,
        Influence,
        KnnShapley,
        LeaveOneOut,
        Psi,
        Representer,
        SelfInfluence,
    )
    from puma_dash.core.valuation.leverage import leverage
    from puma_dash.core.valuation.pairwise import pairwise_influence
    from puma_dash.ui.report import report

_HOMES = {
    "puma_dash.core.api": ("apply", "estimate", "load", "patch", "value", "values"),
    "puma_dash.core.architectures": ("ARCHITECTURES",),
    "puma_dash.core.comparison": ("compare",),
    "puma_dash.core.criteria": (
        "CRITERIA",
        "Adversarial",
        "Brier",
        "Calibration",
        "CrossEntropy",
        "DemographicParity",
        "EqualizedOdds",
        "Margin",
        "MeanSquaredError",
        "WorstGroup",
        "WorstGroupError",
    ),
    "puma_dash.core.curvature": (
        "CURVATURES",
        "EKFAC",
        "KFAC",
        "ConjugateGradient",
        "Dense",
        "Estimate",
        "LiSSA",
    ),
    "puma_dash.core.demos": ("DEMOS",),
    "puma_dash.core.embedding": ("EMBEDDINGS",),
    "puma_dash.core.first_order": ("curve_by_rows", "predicted_change"),
    "puma_dash.core.forecasting": ("forecast",),
    "puma_dash.core.evaluation.agreement": ("agreement",),
    "puma_dash.core.evaluation.datamodeling": ("DatamodelingScore", "datamodeling_score"),
    "puma_dash.core.evaluation.flips": ("FlipSearch", "find_flips"),
    "puma_dash.core.evaluation.health": ("Finding", "health"),
    "puma_dash.core.evaluation.membership": ("RemovalEvidence", "removal_evidence"),
    "puma_dash.core.evaluation.trust": ("Decomposition", "decompose"),
    "puma_dash.core.objective": (
        "LOSSES",
        "BinaryCrossEntropy",
        "SoftmaxCrossEntropy",
        "SquaredError",
    ),
    "puma_dash.core.loaders": ("LOADERS",),
    "puma_dash.core.loaders.project_folder": ("read_data",),
    "puma_dash.core.reading": ("read_rows", "read_scores"),
    "puma_dash.core.recorder": ("Recorder", "Records", "read_records"),
    "puma_dash.core.saved": ("read_patch",),
    "puma_dash.core.training": ("AdamRecipe", "SGDRecipe"),
    "puma_dash.core.plan": ("PatchPlan",),
    "puma_dash.core.types": (
        "Cancelled",
        "Comparison",
        "Forecast",
        "Patch",
        "Project",
        "ProjectError",
        "Selection",
        "Split",
        "Valuation",
    ),
    "puma_dash.core.unlearning": ("UNLEARNERS", "InfluenceRemoval", "Puma", "Retrain"),
    "puma_dash.core.unlearning.sisa": ("train_shards",),
    "puma_dash.core.valuation": (
        "DVRL",
        "VALUATIONS",
        "ConfidentLearning",
        "DataShapleyG",
        "DataShapleyTMC",
        "Influence",
        "KnnShapley",
        "LeaveOneOut",
        "Psi",
        "Representer",
        "SelfInfluence",
    ),
    "puma_dash.core.valuation.leverage": ("leverage",),
    "puma_dash.core.valuation.pairwise": ("pairwise_influence",),
    "puma_dash.ui.report": ("report",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "ARCHITECTURES",
    "CRITERIA",
    "CURVATURES",
    "DEMOS",
    "DVRL",
    "EKFAC",
    "EMBEDDINGS",
    "KFAC",
    "LOADERS",
    "LOSSES",
    "UNLEARNERS",
    "VALUATIONS",
    "AdamRecipe",
    "Adversarial",
    "BinaryCrossEntropy",
    "Brier",
    "Calibration",
    "Cancelled",
    "Comparison",
    "ConfidentLearning",
    "ConjugateGradient",
    "CrossEntropy",
    "DataShapleyG",
    "DataShapleyTMC",
    "DatamodelingScore",
    "Decomposition",
    "DemographicParity",
    "Dense",
    "EqualizedOdds",
    "Estimate",
    "Finding",
    "FlipSearch",
    "Forecast",
    "Influence",
    "InfluenceRemoval",
    "KnnShapley",
    "LeaveOneOut",
    "LiSSA",
    "Margin",
    "MeanSquaredError",
    "Patch",
    "PatchPlan",
    "Project",
    "ProjectError",
    "Psi",
    "Puma",
    "Recorder",
    "Records",
    "RemovalEvidence",
    "Representer",
    "Retrain",
    "SGDRecipe",
    "Selection",
    "SelfInfluence",
    "SoftmaxCrossEntropy",
    "Split",
    "SquaredError",
    "Valuation",
    "WorstGroup",
    "WorstGroupError",
    "__version__",
    "agreement",
    "apply",
    "compare",
    "curve_by_rows",
    "datamodeling_score",
    "decompose",
    "estimate",
    "find_flips",
    "forecast",
    "health",
    "leverage",
    "load",
    "pairwise_influence",
    "patch",
    "predicted_change",
    "read_data",
    "read_patch",
    "read_records",
    "read_rows",
    "read_scores",
    "removal_evidence",
    "report",
    "train_shards",
    "value",
    "values",
]


def __getattr__(name: str) -> Any:
    """The public name, imported from its home on first use (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'puma_dash' has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """The public names."""
    return __all__
