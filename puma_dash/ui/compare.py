"""What the Compare page and the report say of a patch: sentences and tables from its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from puma_dash.core.evaluation.parity import PARITY
from puma_dash.core.task import CLASSIFICATION, REGRESSION, Task
from puma_dash.core.types import doubtful, ratios
from puma_dash.ui.panels import duration, plain_number, signed
from puma_dash.ui.state import entry
from puma_dash.ui.text import INTENTS, METHODS, VERDICTS, metric

if TYPE_CHECKING:
    import pandas as pd

Criteria = Mapping[str, Mapping[str, Any]]
"""What is known of criteria by name: their label and unit."""


@dataclass(frozen=True)
class Record:
    """A patch as the cache holds it.

    Args:
        key: its key.
        info: plan, strength, predicted, measured, seconds, diagnostics and the comparison on validation.
        arrays: of each validation row and each marked row, what became of it.
    """

    key: str
    info: dict[str, Any]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, key: str) -> Record | None:
        """The record of that key, or None."""
        found = entry(key) if key else None
        return None if found is None else cls(key, found.info, found.arrays)

    @property
    def validation(self) -> dict[str, Any]:
        """The comparison on validation."""
        return self.info["comparison"]

    def doubts(self, criteria: Criteria | None = None) -> list[str]:
        """Where prediction and measurement are so far apart that the forecast should not be trusted."""
        predicted, measured = self.info["predicted"], self.info["measured"]
        ratio = ratios(predicted, measured)
        return [
            f"{label_of(criteria, name)}: measured {signed(measured[name])} is {ratio[name]:.2g} times the "
            f"predicted {signed(predicted[name])}, outside 0.5 to 2. The straight-line forecast does not "
            "hold for this patch; trust what was measured."
            for name in doubtful(predicted, measured)
        ]


def label_of(criteria: Criteria | None, name: str) -> str:
    """What people call that criterion; its name where it is not known."""
    return str((criteria or {}).get(name, {}).get("label", name))


# --- sentences ------------------------------------------------------------


def task_of(comparison: dict[str, Any]) -> Task:
    """Whether classes were compared or values."""
    return REGRESSION if "answers" in comparison else CLASSIFICATION


def outcome_sentence(comparison: dict[str, Any]) -> str:
    """The comparison in one sentence, with its verdict."""
    facts, n = comparison["diagnostics"], comparison["n"]
    rows = dict(zip(comparison["metrics"]["index"], comparison["metrics"]["data"], strict=True))
    if task_of(comparison) is REGRESSION:
        (rmse, now, _, low, high), (r2, explained, *_) = rows["rmse"], rows["r2"]
        shares = "" if r2 is None else f", R² {r2:.3f} → {explained:.3f}"
        return (
            f"Closer to the target on {facts['closer']:,}, further on {facts['further']:,} of {n:,} "
            f"{comparison['split']} rows; RMSE {plain_number(rmse)} → {plain_number(now)} "
            f"({interval(low, high)}){shares}; {verdict(comparison)[1]}."
        )
    ece = rows["ece"]
    return (
        f"Fixes {facts['fixed']:,} and breaks {facts['broken']:,} of {n:,} {comparison['split']} rows "
        f"(McNemar {p_value(facts['mcnemar_p'])}); ECE {ece[0]:.3f} → {ece[1]:.3f}; "
        f"{verdict(comparison)[1]}."
    )


def p_value(p: float) -> str:
    """p as it is written."""
    return "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".")


def verdict(comparison: dict[str, Any]) -> tuple[str, str]:
    """Whether what had to hold held: "pass", "fail" or "inconclusive", and what to say of it."""
    held = rails_of(comparison)
    held = held[held["held"]]
    if held.empty:
        return "inconclusive", "nothing had to hold"
    passed, failed, open_ = (held[held["verdict"] == kind] for kind in VERDICTS)
    if len(failed):
        parts = [f"{r.label} {signed(r.measured)} (at most {r.tolerance:g})" for r in failed.itertuples()]
        return "fail", f"worse than allowed: {', '.join(parts)}"
    good = ", ".join(passed["label"])
    if len(open_):
        undecided = f"these rows do not decide whether {', '.join(open_['label'])} held"
        return "inconclusive", f"{undecided}; {good} did" if good else undecided
    return "pass", f"all that had to hold held: {good}"


def binding_sentence(info: dict[str, Any], criteria: Criteria | None = None) -> str:
    """Which rail weakened the patch, how much it would have lost, what held it; empty where none did."""
    facts, plan = info["diagnostics"], info["plan"]
    binding, asked, applied = facts.get("binding"), plan["strength"], info["strength"]
    if not binding:
        return ""
    kept = (
        f"strength {applied:g} is the largest tried that measures within what is allowed."
        if applied
        else "so it did at every smaller strength tried, and nothing was applied."
    )
    if binding == "finite outputs":
        return f"At strength {asked:g} the model's outputs are no longer finite; {kept}"
    whole, allowed = facts["at_full_strength"], plan["tolerance"]
    over = [name for name, change in whole.items() if change > allowed.get(name, 0.0)]
    if binding not in whole or not over:
        return f"At strength {asked:g} no step lowers what the steps aim at; {kept}"
    units = {name: (criteria or {}).get(name, {}).get("unit", "") for name in over}
    told = [
        f"{label_of(criteria, name)} by {signed(whole[name])} {units[name]}".strip()
        + f" (at most {allowed.get(name, 0.0):g})"
        for name in over
    ]
    return f"At strength {asked:g} the patch worsens {', '.join(told)}; {kept}"


def patch_sentence(info: dict[str, Any]) -> str:
    """How the patch was made: method, strength, device, seconds."""
    plan, facts = info["plan"], info["diagnostics"]
    counts = {
        "removed": len(plan["remove"]),
        "up-weighted": len(plan["upweight"]),
        "relabelled": len(plan["relabel"]),
    }
    done = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    parts = [f"{METHODS[plan['method']]}: {done}"]
    if info["strength"] != plan["strength"]:
        parts.append(f"strength {info['strength']:g} applied of {plan['strength']:g} asked for")
    if plan["steps"] > 1 and facts.get("steps"):
        parts.append(f"{len(facts['steps'])} relinearised steps ({INTENTS[plan['intent']]})")
    if facts.get("compensating_rows"):
        parts.append(f"{facts['compensating_rows']:,} other rows up-weighted to compensate")
    if plan["options"].get("two_sided"):
        parts.append("two-sided")
    parts.append(f"{duration(info['seconds'])} on {facts['device'].upper()}{_ahead(info)}")
    if "residual" in facts:
        asked = facts.get("fidelity_asked")
        # Where the solves stop at a fidelity, their residual says nothing.
        solved = f"residual {facts['residual']:.1e}" if asked is None else f"solved to fidelity {asked:g}"
        parts.append(f"{facts['curvature']}, damping {facts['damping']:g}, {solved}")
    return "; ".join(parts) + "."


def _ahead(info: dict[str, Any]) -> str:
    """What an ensemble took that was not trained ahead, where that is worth a word."""
    seconds = info["diagnostics"].get("ahead_seconds", 0.0)
    return f" (+ {duration(seconds)} that training ahead would have taken)" if seconds > 0.05 else ""


def forgotten_sentences(comparison: dict[str, Any], marked: pd.DataFrame) -> list[str]:
    """What became of the marked rows: does the model still answer what it was taught on them?"""
    rows = dict(zip(comparison["metrics"]["index"], comparison["metrics"]["data"], strict=True))
    told = []
    if task_of(comparison) is REGRESSION:
        squares = [(f"{of['rows'].capitalize()} ({of['n']:,} rows)", of) for of in marked.to_dict("records")]
        told = [
            f"{who}: mean squared error {plain_number(of['loss before'])} → {plain_number(of['loss after'])}."
            for who, of in squares
        ]
        before, after = (plain_number(value**2) for value in rows["rmse"][:2])
        return [*told, f"For comparison, {comparison['split']} rows: {before} → {after}."]
    nll = rows["nll"]
    for of in marked.to_dict("records"):
        n, done = of["n"], of["rows"]
        before, after = (round(of[f"accuracy {model}"] * n) for model in ("before", "after"))
        taught = "with the new label" if done.endswith("new label") else "as it was taught"
        told.append(
            f"{done.capitalize()}: the model answers {taught} on {after:,} of {n:,} rows "
            f"(before: {before:,}); mean loss {of['loss before']:.2f} → {of['loss after']:.2f} nats."
        )
    return [*told, f"For comparison, {comparison['split']} rows: {nll[0]:.2f} → {nll[1]:.2f} nats."]


# --- tables ------------------------------------------------------------


def metric_table(comparison: dict[str, Any]) -> pd.DataFrame:
    """Metric, before, after, change and its interval."""
    import pandas as pd

    frame = pd.DataFrame(**comparison["metrics"])
    return pd.DataFrame(
        {
            "metric": [metric(name) for name in frame.index],
            "before": [plain_number(value, 4) for value in frame["before"]],
            "after": [plain_number(value, 4) for value in frame["after"]],
            "change": [signed(change) for change in frame["change"]],
            "95 % interval": [interval(*ends) for ends in zip(frame["low"], frame["high"], strict=True)],
        }
    )


def rails_of(comparison: dict[str, Any], criteria: Criteria | None = None) -> pd.DataFrame:
    """The rails as they were judged, labelled as people call them."""
    import pandas as pd

    frame = pd.DataFrame(**comparison["verdicts"])
    known = criteria or {}
    frame["label"] = [
        known.get(name, {}).get("label", label.removesuffix(f" on {comparison['split']}"))
        for name, label in zip(frame["criterion"], frame["label"], strict=True)
    ]
    return frame


def verdict_table(comparison: dict[str, Any], criteria: Criteria | None = None) -> pd.DataFrame:
    """Each rail, its verdict in words, measured change, interval, the most it may be, prediction and p."""
    import pandas as pd

    frame = rails_of(comparison, criteria)
    return pd.DataFrame(
        {
            "rail": frame["label"] + ", " + frame["unit"],
            "verdict": frame["verdict"].map(VERDICTS),
            "measured": [signed(value) for value in frame["measured"]],
            "95 % interval": [interval(*ends) for ends in zip(frame["low"], frame["high"], strict=True)],
            "at most": [
                f"+{most:g}" if held else "not held"
                for most, held in zip(frame["tolerance"], frame["held"], strict=True)
            ],
            "p (Holm)": [p_value(p).removeprefix("p ").removeprefix("= ") for p in frame["p"]],
            "predicted": [signed(None if pd.isna(value) else value) for value in frame["predicted"]],
            "test": frame["test"],
        }
    )


def ranged(value: float, low: float, high: float) -> str:
    """A rate with its interval."""
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def interval(low: float, high: float) -> str:
    """An interval of a change."""
    return f"{signed(low)} to {signed(high)}"


def changed_table(comparison: dict[str, Any], classes: list[str], kind: str) -> pd.DataFrame:
    """The rows of that kind of flip, with their classes by name."""
    import pandas as pd

    frame = pd.DataFrame(**comparison["changed"])
    frame = frame[frame["kind"] == kind].drop(columns="kind")
    for column in ("target", "before", "after"):
        frame[column] = [classes[k] for k in frame[column]]
    return frame.rename(columns={"target": "label"})


def confusion_table(comparison: dict[str, Any], classes: list[str], most: int = 20) -> pd.DataFrame:
    """The cells of the confusion matrix that changed most."""
    import pandas as pd

    frame = pd.DataFrame(**comparison["confusion"])
    frame["change"] = frame["after"] - frame["before"]
    frame = frame[frame["change"] != 0].head(most)
    for column in ("target", "predicted"):
        frame[column] = [classes[k] for k in frame[column]]
    return frame.rename(columns={"target": "label"})


def race_table(runners: Mapping[str, Record]) -> pd.DataFrame:
    """Methods side by side on validation: seconds, metrics with the interval of their change, rails."""
    import pandas as pd

    lines = []
    for name, record in runners.items():
        compared, info = record.validation, record.info
        metrics = pd.DataFrame(**compared["metrics"])
        marked = pd.DataFrame(**compared["marked"]).set_index("rows")
        rails = rails_of(compared)
        verdicts = rails.loc[rails["held"], "verdict"].value_counts()
        held = ", ".join(f"{verdicts[v]} {v}" for v in VERDICTS if v in verdicts) or "–"
        line: dict[str, Any] = {
            "method": name,
            "time": f"{duration(info['seconds'])}{_ahead(info)}",
            "rails": held,
        }
        task = task_of(compared)
        gaps = [shown for shown in metrics.index if shown.startswith(PARITY)]
        for shown in [*task.headline, *gaps]:
            found = metrics.loc[shown]
            low, high = signed(found["low"], 3), signed(found["high"], 3)
            line[metric(shown)] = f"{plain_number(found['after'])} ({low} to {high})"
        pair = ("fixed", "broken") if task is CLASSIFICATION else ("closer", "further")
        line[", ".join(pair)] = ", ".join(f"{compared['diagnostics'][name]:,}" for name in pair)
        if "removed" in marked.index:
            line["loss on removed"] = plain_number(marked.loc["removed", "loss after"], 2)
        lines.append(line)
    return pd.DataFrame(lines)


def binned(comparison: dict[str, Any], model: str) -> dict[str, Any]:
    """The reliability bins of one of the two models, as arrays."""
    import pandas as pd

    frame = pd.DataFrame(**comparison["reliability"])
    chosen = frame[frame["model"] == model]
    return {
        name: chosen[name].to_numpy() for name in ("bin_low", "bin_high", "confidence", "accuracy", "count")
    }
