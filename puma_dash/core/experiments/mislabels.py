"""Figure 5: flipped labels found against rows inspected, for every method of valuation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from puma_dash.core.demos.digits import Digits
from puma_dash.core.evaluation.flips import known_flips, search, summed
from puma_dash.core.experiments.base import Experiment, Result, told_value, verdict
from puma_dash.core.valuation import VALUATIONS

if TYPE_CHECKING:
    from puma_dash.core.engine import CancelEvent, Progress

METHODS = (
    "psi influence self_influence tracin gradient_dot representer knn_shapley confident_learning loss random"
)


@dataclass(frozen=True)
class Mislabels(Experiment):
    """Digits with 10 % flipped labels: rows in the order of each method, most suspicious first."""

    label = "Figure 5: flipped labels found"
    reference = "Wu, Hashemi & Srinivasa (2022), PUMA: figure 5"

    methods: str = field(default=METHODS, metadata={"help": "Keys of VALUATIONS, with blanks between."})

    def __call__(self, progress: Progress | None = None, cancel: CancelEvent | None = None) -> Result:
        """AUC, what is found at 10 % and 20 % inspected, seconds; curves with their intervals."""
        found = []
        for seed in self.over_seeds(progress, cancel):
            project = Digits(seed=seed)()
            flipped = known_flips(project, "flipped")
            found.append(search(project, flipped, self.methods.split(), seed=seed, cancel=cancel))
        done = summed(found, flipped, 0, project.fingerprint, {})
        table = done.table.assign(method=[VALUATIONS[key].label for key in done.table["method"]])
        labels = (VALUATIONS["psi"].label, table["method"][0])
        psi, best = (told_value(table, {"method": label}, "AUC") for label in labels)
        told = (
            f"psi of the validation loss has an AUC of {psi}; the best is {labels[1]} with {best}. "
            f"{verdict(labels[0] == labels[1])}, where PUMA's values find the most flips. psi says which "
            "rows move the chosen number, which is another question than which labels are wrong."
        )
        return Result({"Flipped labels, 10 % of 1 000 rows": table}, done.curves, told)
