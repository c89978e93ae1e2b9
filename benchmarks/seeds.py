"""What benchmarks over seeds share: the demos, results kept as they come, means with their intervals."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import puma_dash as puma
from benchmarks.problems import DATA
from puma_dash.core.demos import digits, mnist
from puma_dash.core.loaders.mnist import FOLDER

if TYPE_CHECKING:
    import pandas as pd

Result = TypeVar("Result")

ROWS = {"digits": digits.TRAIN, "mnist": mnist.TRAIN}
"""Training rows of a demo, a tenth of which have a flipped label."""
KEPT = "PUMA_DASH_KEPT"
"""The environment variable with a folder for results of long runs: one that was stopped goes on there.
Whoever changes what is measured empties it."""
CLOCK = (
    "Seconds are those that the process had of one core (CPU time), so that what else the machine does "
    "counts for little."
)


def demo(key: str, seed: int) -> puma.Project:
    """The trained demo; MNIST from its own variable, or from the folder of all real data sets."""
    if os.environ.get(DATA):
        os.environ.setdefault(FOLDER, str(Path(os.environ[DATA]) / "mnist"))
    return puma.DEMOS[key](seed=seed)()


def kept(name: str, measure: Callable[[], Result]) -> Result:
    """What ``measure()`` returns, plain data that JSON carries, or returned when it was last asked for."""
    if not os.environ.get(KEPT):
        return measure()
    path = Path(os.environ[KEPT]) / f"{'-'.join(re.findall(r'[a-z0-9]+', name.lower()))}.json"
    if not path.exists():
        found = measure()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found), "utf-8")
        print(f"kept: {path.stem}", flush=True)
    return json.loads(path.read_text("utf-8"))


def told(table: pd.DataFrame, digits: Mapping[str, int]) -> pd.DataFrame:
    """``table`` of ``summary`` as text: its first column, then mean ± half the interval of those named."""
    import pandas as pd

    found = {table.columns[0]: table.iloc[:, 0]}
    for name, places in digits.items():
        pairs = zip(table[name], table[f"{name} ±"], strict=True)
        found[name] = pd.Series([in_words(mean, half, places) for mean, half in pairs], index=table.index)
    return pd.DataFrame(found)


def in_words(mean: float, half: float, places: int) -> str:
    """A mean with its interval; nothing where there is none."""
    if math.isnan(mean):
        return ""
    return f"{mean:.{places}f}" + ("" if math.isnan(half) else f" ± {half:.{places}f}")
