"""What the Compare page and the report say of a patch: sentences and tables from its record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from puma_dash.core.types import doubtful, ratios
from puma_dash.ui.panels import duration, signed
from puma_dash.ui.state import entry
from puma_dash.ui.text import INTENTS, METHODS, METRICS, VERDICTS

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Record:
    """A patch as the cache holds it.

    Args:
        key: its key.
        info: plan, strength, predicted, measured, seconds, diagnostics and the comparison on validation.
    """

    key: str
    info: dict[str, Any]

    @classmethod
    def of(cls, key: str) -> Record | None:
        """The record of that key, or None."""
        found = entry(key) if key else None
        return None if found is None else cls(key, found.info)

    @property
    def validation(self) -> dict[str, Any]:
        """The comparison on validation."""
        return self.info["comparison"]

    def doubts(self) -> list[str]:
        """Where prediction and measurement are so far apart that the forecast should not be trusted."""
        predicted, measured = self.info["predicted"], self.info["measured"]
        ratio = ratios(predicted, measured)
        return [
            f"{name}: measured {signed(measured[name])} is {ratio[name]:.2g} times the predicted "
            f"{signed(predicted[name])}, outside 0.5 to 2. The straight-line forecast does not hold for "
            "this patch; trust what was measured."
            for name in doubtful(predicted, measured)
        ]


def flips_sentence(comparison: dict[str, Any]) -> str:
    """The comparison in one sentence."""
    facts, n = comparison["diagnostics"], comparison["n"]
    p = facts["mcnemar_p"]
    shown = "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".")
    rows = dict(zip(comparison["metrics"]["index"], comparison["metrics"]["data"], strict=True))
    ece = rows["ece"]
    return (
        f"Fixes {facts['fixed']:,} and breaks {facts['broken']:,} of {n:,} {comparison['split']} rows "
        f"(McNemar {shown}); ECE {ece[0]:.3f} → {ece[1]:.3f}."
    )


def patch_sentence(info: dict[str, Any]) -> str:
    """How the patch was made: method, strength, device, seconds."""
    plan, facts = info["plan"], info["diagnostics"]
    method = METHODS[plan["method"]]
    parts = [f"{method}: {len(plan['remove']):,} rows removed, {len(plan['upweight']):,} up-weighted"]
    if info["strength"] != plan["strength"]:
        binding = facts.get("binding")
        parts.append(
            f"strength {info['strength']:g} applied of {plan['strength']:g} asked for"
            + (f", because {binding} would not have held" if binding else "")
        )
    if plan["steps"] > 1 and facts.get("steps"):
        parts.append(f"{len(facts['steps'])} relinearised steps ({INTENTS[plan['intent']]})")
    if facts.get("compensating_rows"):
        parts.append(f"{facts['compensating_rows']:,} other rows up-weighted to compensate")
    if plan["options"].get("two_sided"):
        parts.append("two-sided")
    if plan["relabel"]:
        parts.append(f"{len(plan['relabel']):,} relabelled")
    parts.append(f"{duration(info['seconds'])} on {facts['device'].upper()}")
    if "residual" in facts:
        parts.append(f"{facts['curvature']}, damping {facts['damping']:g}, residual {facts['residual']:.1e}")
    return "; ".join(parts) + "."


def metric_table(comparison: dict[str, Any]) -> pd.DataFrame:
    """Metric, before, after, change and its interval."""
    import pandas as pd

    frame = pd.DataFrame(**comparison["metrics"])
    return pd.DataFrame(
        {
            "metric": [METRICS[name] for name in frame.index],
            "before": frame["before"].map("{:.4f}".format),
            "after": frame["after"].map("{:.4f}".format),
            "change": [signed(change) for change in frame["change"]],
            "95 % interval": [
                f"{signed(low)} to {signed(high)}"
                for low, high in zip(frame["low"], frame["high"], strict=True)
            ],
        }
    )


def verdict_table(comparison: dict[str, Any]) -> pd.DataFrame:
    """Held criterion, predicted and measured change, interval, tolerance and verdict in words."""
    import pandas as pd

    frame = pd.DataFrame(**comparison["verdicts"])
    return pd.DataFrame(
        {
            "criterion": frame["criterion"],
            "verdict": frame["verdict"].map(VERDICTS),
            "predicted": [signed(None if pd.isna(value) else value) for value in frame["predicted"]],
            "measured": [signed(value) for value in frame["measured"]],
            "95 % interval": [
                f"{signed(low)} to {signed(high)}"
                for low, high in zip(frame["low"], frame["high"], strict=True)
            ],
            "tolerance": frame["tolerance"].map("{:g}".format),
        }
    )


def changed_table(comparison: dict[str, Any], classes: list[str]) -> pd.DataFrame:
    """The rows that changed sides, with their classes by name."""
    import pandas as pd

    frame = pd.DataFrame(**comparison["changed"])
    for column in ("target", "before", "after"):
        frame[column] = [classes[k] for k in frame[column]]
    return frame


def binned(comparison: dict[str, Any], model: str) -> dict[str, Any]:
    """The reliability bins of one of the two models, as arrays."""
    import pandas as pd

    frame = pd.DataFrame(**comparison["reliability"])
    chosen = frame[frame["model"] == model]
    return {
        name: chosen[name].to_numpy() for name in ("bin_low", "bin_high", "confidence", "accuracy", "count")
    }
