"""What the Methods page knows of the methods: tables from the cache, and how long things will take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from puma_dash.ui.method_texts import VALUATIONS
from puma_dash.ui.panels import duration
from puma_dash.ui.state import entry
from puma_dash.ui.text import with_half

if TYPE_CHECKING:
    import pandas as pd

    from puma_dash.ui.state import Context

QUICK = 5.0
"""Seconds that a method may take to be among those that are asked without being chosen."""
NEEDS = {
    "criterion": "a criterion",
    "curvature": "curvature",
    "trainer": "retraining",
    "validation": "clean validation",
    "recorder": "records of training",
}
"""What a method may need beside the model and its rows, in words."""
TRUTHS = {"False", "True"}
MEASURES = ("AUC", "found at 10 %", "found at 20 %")
EXPERIMENTS = {
    "fig3": "Figure 3: rails hold what a patch would break",
    "fig4": "Figure 4: where naive removal and PUMA lead",
    "fig5": "Figure 5: flipped labels found",
    "fig6": "Figure 6: a cluster is forgotten",
    "fig7": "Figure 7: a style of 4 is forgotten",
    "fig8": "Figure 8: kinds of harmful rows",
    "fig9": "Figure 9: calibrated moons",
}


def name_of(method: str) -> str:
    """What a key of ``VALUATIONS`` is called: its short name, where no other has the same."""
    text = VALUATIONS[method]
    return text.name if sum(other.name == text.name for other in VALUATIONS.values()) == 1 else text.label


@dataclass(frozen=True)
class Costs:
    """What the methods cost on the open project.

    Args:
        needs: key -> keys of ``NEEDS``.
        refused: key -> why the method cannot be asked here, or None.
        known: key -> seconds, None where only a run can tell.
        training: seconds of one training; None where the project brings a trainer of its own.
    """

    needs: dict[str, list[str]]
    refused: dict[str, str | None]
    known: dict[str, float | None]
    training: float | None

    @classmethod
    def of(cls, here: Context) -> Costs | None:
        """The costs, once the worker has estimated them."""
        assert here.overview is not None
        found = entry(here.index.findings.get("costs", ""))
        if found is None:
            return None
        told = here.overview.info["valuations"]
        needs, refused = ({m: facts[part] for m, facts in told.items()} for part in ("needs", "refused"))
        return cls(needs, refused, found.info["seconds"], found.info["training"])

    @property
    def usable(self) -> list[str]:
        """The methods that can be asked."""
        return [method for method, reason in self.refused.items() if reason is None]

    @property
    def quick(self) -> list[str]:
        """Those that take little time."""
        known = {method: self.known[method] for method in self.usable}
        return [method for method, seconds in known.items() if seconds is not None and seconds <= QUICK]

    def seconds(self, methods: Iterable[str], times: float = 1, trainings: float = 0) -> float | None:
        """Seconds of ``times`` all of these methods and so many trainings; None where nobody knows."""
        parts = [self.known[method] for method in methods] + ([self.training] if trainings else [])
        if None in parts:
            return None
        own = trainings * (self.training or 0)
        return times * sum(self.known[method] or 0 for method in methods) + own


def about(seconds: float | None, more: str = "") -> str:
    """How long something takes, in words."""
    if seconds is None:
        return f"How long it takes is not known: the project brings its own trainer{more}."
    return f"Under 1 s{more}." if seconds < 1 else f"About {duration(seconds)}{more}."


def truths(here: Context) -> list[str]:
    """The columns of the training rows that say true or false of each."""
    assert here.overview is not None
    columns = here.overview.info["columns"]
    return [c["name"] for c in columns if c["categories"] and set(c["categories"]) == TRUTHS]


def methods_table(here: Context, costs: Costs) -> pd.DataFrame:
    """Every method: what it costs here, whether rows are scored by it, what it is and what it needs."""
    import pandas as pd

    scored, lines = scores_of(here), []
    for method, text in VALUATIONS.items():
        refused, seconds = costs.refused[method], costs.known[method]
        took = f"✓ {duration(scored[method][1])}" if method in scored else "not here" if refused else "–"
        lines.append(
            {
                "method": name_of(method),
                "about": "not known" if seconds is None else duration(seconds),
                "took": took,
                "needs": refused or ", ".join(NEEDS[need] for need in costs.needs[method]) or "nothing more",
                "idea": text.idea.replace("$", ""),
            }
        )
    return pd.DataFrame(lines, index=list(VALUATIONS))


def scores_of(here: Context) -> dict[str, tuple[np.ndarray, float]]:
    """Scores (n,) and seconds of the methods that have scored rows, for the plain loss where they ask one."""
    found = {}
    for name, key in here.index.values.items():
        method, _, criterion = name.partition("/")
        held = entry(key) if criterion == here.task.criterion else None
        if held is not None:
            found[method] = held.arrays["scores"], float(held.info.get("seconds", 0.0))
    return {method: found[method] for method in VALUATIONS if method in found}


def flips_found(here: Context, settings: str) -> dict[str, Any]:
    """Method -> cache entry of its search for wrong labels, with these settings."""
    prefix = f"flips {settings}/"
    names = {n.removeprefix(prefix): k for n, k in here.index.findings.items() if n.startswith(prefix)}
    return {method: found for method, key in names.items() if (found := entry(key)) is not None}


def flips_table(found: dict[str, Any]) -> pd.DataFrame:
    """Method, its measures with intervals, seconds; the best first."""
    import pandas as pd

    lines = [(method, held.info["line"]) for method, held in found.items() if "line" in held.info]
    lines.sort(key=lambda line: -line[1]["AUC"])
    return pd.DataFrame(
        [
            {
                "method": name_of(method),
                **{m: with_half(line[m], line[f"{m} ±"]) for m in MEASURES},
                "time": duration(line["seconds"]),
            }
            for method, line in lines
        ]
    )


def flips_sentence(found: dict[str, Any]) -> str:
    """Which method finds wrong labels best here, whose interval overlaps its own, and where psi stands."""
    lines = {method: held.info["line"] for method, held in found.items() if "line" in held.info}
    shares = {method: (line["found at 10 %"], line["found at 10 % ±"]) for method, line in lines.items()}
    best, *others = sorted(shares, key=lambda method: -shares[method][0])
    most, half = shares[best]
    near = [name_of(m) for m in others if shares[m][0] + (shares[m][1] or 0) >= most - (half or 0)]
    told = f"Most wrong labels in 10 % of the rows: {name_of(best)}, {with_half(most, half)} of them"
    told += f" (intervals overlap: {', '.join(near)})" if near else ""
    if "psi" in others:
        told += f"; psi {with_half(*shares['psi'])}"
    return f"{told}."


def trust_sentence(info: dict[str, Any], unit: str) -> str:
    """What the two answers are, and which assumption parts them most."""
    import pandas as pd

    terms = pd.DataFrame(**info["terms"])
    worst = terms["change"].abs().idxmax()
    told = (
        f"Retraining moved the criterion by {info['retrained']:+.4f} {unit}, influence says "
        f"{info['influence']:+.4f}. What parts them most is {worst} ({terms['change'][worst]:+.4f}): "
        f"{terms['meaning'][worst]}."
    )
    return told.replace("-", "−")
